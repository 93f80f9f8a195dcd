package vhostusertest

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// Loop is an executor with a goroutine of its own, which also waits for kicks:
// a render thread without a renderer.
type Loop struct {
	wake *dmabuf.FD
	done sync.WaitGroup

	mu     sync.Mutex
	posted []func() // guarded by mu
	ended  bool     // guarded by mu

	// Owned by the goroutine.
	watched []watch
	fds     []unix.PollFd
}

type watch struct {
	fd *dmabuf.FD
	f  func()
}

// NewLoop starts a loop.
func NewLoop() (*Loop, error) {
	wake, err := newEvent()
	if err != nil {
		return nil, err
	}
	l := &Loop{wake: wake}
	l.done.Add(1)
	go l.run()
	return l, nil
}

// Call runs f on the loop and waits for it. It must not be called on the loop.
func (l *Loop) Call(f func()) {
	done := make(chan struct{})
	l.post(func() { f(); close(done) })
	<-done
}

func (l *Loop) post(f func()) {
	l.mu.Lock()
	l.posted = append(l.posted, f)
	l.mu.Unlock()
	_ = writeEvent(l.wake)
}

// Watch makes f run on the loop whenever fd (borrowed until Unwatch) is readable.
// On the loop only.
func (l *Loop) Watch(fd *dmabuf.FD, f func()) { l.watched = append(l.watched, watch{fd, f}) }

// Unwatch ends Watch. On the loop only.
func (l *Loop) Unwatch(fd *dmabuf.FD) {
	for i := range l.watched {
		if l.watched[i].fd == fd {
			l.watched = append(l.watched[:i:i], l.watched[i+1:]...)
			return
		}
	}
}

// Close ends the loop; nothing may be posted any more.
func (l *Loop) Close() {
	l.post(func() {
		l.mu.Lock()
		l.ended = true
		l.mu.Unlock()
	})
	l.done.Wait()
	_ = l.wake.Close()
}

func (l *Loop) run() {
	defer l.done.Done()
	for !l.runPosted() {
		l.fds = append(l.fds[:0], unix.PollFd{Fd: int32(l.wake.Int()), Events: unix.POLLIN})
		for i := range l.watched {
			l.fds = append(l.fds, unix.PollFd{Fd: int32(l.watched[i].fd.Int()), Events: unix.POLLIN})
		}
		n, err := unix.Poll(l.fds, -1)
		if err == unix.EINTR || n == 0 {
			continue
		}
		if err != nil {
			panic(fmt.Sprintf("vhostusertest: poll: %v", err))
		}
		if l.fds[0].Revents != 0 {
			_, _ = readEvent(l.wake)
		}
		ready := l.watched // Watch and Unwatch make new slices or append behind
		for i := range l.fds[1:] {
			if l.fds[1+i].Revents == 0 || i >= len(ready) {
				continue
			}
			if _, err := readEvent(ready[i].fd); err == nil {
				ready[i].f()
			}
		}
	}
}

// runPosted reports whether the loop has ended.
func (l *Loop) runPosted() bool {
	for {
		l.mu.Lock()
		if len(l.posted) == 0 {
			ended := l.ended
			l.mu.Unlock()
			return ended
		}
		f := l.posted[0]
		l.posted[0] = nil
		l.posted = l.posted[1:]
		l.mu.Unlock()
		f()
	}
}
