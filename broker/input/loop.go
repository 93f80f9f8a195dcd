package input

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// loop is the goroutine on which the devices' rings live: it waits for kicks and
// runs what is posted. It is not the render thread, so that the pointer moves
// while the guest's GPU commands run.
type loop struct {
	wake *dmabuf.FD
	done chan struct{}

	mu      sync.Mutex
	posted  []func() // guarded by mu
	stopped bool     // guarded by mu

	// Below: the loop's own.
	running []func()
	fds     []unix.PollFd
	watches []watch
	err     error // why it ended early; valid once done is closed
}

type watch struct {
	fd int
	f  func()
}

// newLoop starts the goroutine. Close ends it.
func newLoop() (*loop, error) {
	raw, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, &OpError{Op: "create wake eventfd", Err: err}
	}
	l := &loop{wake: dmabuf.NewFD(raw, "input wake"), done: make(chan struct{})}
	go l.run()
	return l, nil
}

// post queues f and returns at once; after Close it does nothing and returns
// false. With a function made once it allocates nothing.
func (l *loop) post(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return false
	}
	l.posted = append(l.posted, f)
	if len(l.posted) == 1 {
		l.signal()
	}
	return true
}

// signal makes poll return. It is called with mu held, so never after Close.
func (l *loop) signal() {
	one := [8]byte{1}
	_, _ = unix.Write(l.wake.Int(), one[:]) // full means awake
}

// Call runs f on the loop and waits for it: vhostuser.Executor. Not on the loop.
// After Close it returns without running f.
func (l *loop) Call(f func()) {
	ran := make(chan struct{})
	if !l.post(func() { defer close(ran); f() }) {
		return
	}
	select {
	case <-ran:
	case <-l.done:
	}
}

// watch calls f when fd, an eventfd, was readable; it is read before. On the loop.
func (l *loop) watch(fd int, f func()) {
	l.watches = append(l.watches, watch{fd, f})
	l.fds = nil
}

// unwatch ends watch. On the loop.
func (l *loop) unwatch(fd int) {
	for i, w := range l.watches {
		if w.fd == fd {
			l.watches = append(l.watches[:i:i], l.watches[i+1:]...)
			l.fds = nil
			return
		}
	}
}

// Close ends the loop after what is posted, and waits for it.
func (l *loop) Close() error {
	l.mu.Lock()
	if !l.stopped {
		l.stopped = true
		l.signal()
	}
	l.mu.Unlock()
	<-l.done
	return errors.Join(l.err, l.wake.Close())
}

func (l *loop) run() {
	defer close(l.done)
	for !l.runPosted() {
		if err := l.poll(); err != nil {
			l.mu.Lock()
			l.stopped, l.err = true, err
			l.mu.Unlock()
			return
		}
	}
}

// runPosted runs what was posted; true when the loop is to end.
func (l *loop) runPosted() bool {
	l.mu.Lock()
	l.running, l.posted = l.posted, l.running[:0]
	stopped := l.stopped
	l.mu.Unlock()
	for i, f := range l.running {
		f()
		l.running[i] = nil
	}
	return stopped
}

func (l *loop) poll() error {
	if l.fds == nil {
		l.fds = make([]unix.PollFd, 1+len(l.watches))
		l.fds[0] = unix.PollFd{Fd: int32(l.wake.Int()), Events: unix.POLLIN}
		for i, w := range l.watches {
			l.fds[i+1] = unix.PollFd{Fd: int32(w.fd), Events: unix.POLLIN}
		}
	}
	if _, err := unix.Poll(l.fds, -1); err != nil {
		if errors.Is(err, unix.EINTR) {
			return nil
		}
		return fmt.Errorf("poll: %w", err)
	}
	var buf [8]byte
	if l.fds[0].Revents != 0 {
		_, _ = unix.Read(l.wake.Int(), buf[:])
	}
	fds := l.fds
	for i := 1; i < len(fds); i++ {
		if fds[i].Revents == 0 {
			continue
		}
		if _, err := unix.Read(int(fds[i].Fd), buf[:]); err != nil && !errors.Is(err, unix.EAGAIN) {
			l.unwatch(int(fds[i].Fd)) // not an eventfd: never look at it again
			return nil
		}
		l.watches[i-1].f()
		if l.fds == nil {
			return nil // the set changed under us; poll tells the rest again
		}
	}
	return nil
}
