package broker

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/keep"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Loop is the render thread: one locked OS thread that polls descriptors (kick
// eventfds, the renderer's fence fd) and runs posted functions. virglrenderer
// is bound to a thread, and a hop into a locked goroutine costs more than most
// commands, so the control queue is served here and not beside it.
type Loop struct {
	wake *dmabuf.FD
	done chan struct{}

	mu      sync.Mutex
	posted  []func() // guarded by mu
	stopped bool     // guarded by mu

	// Below: the render thread's own.
	running []func()
	fds     []unix.PollFd
	watches []watch
	again   bool
	page    *keep.Page // nil: nobody watches
}

type watch struct {
	fd     int
	events int16
	f      func(ready bool)
}

// NewLoop starts the thread. Close ends it.
func NewLoop() (*Loop, error) {
	raw, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, &OpError{Op: "create wake eventfd", Err: err}
	}
	l := &Loop{wake: dmabuf.NewFD(raw, "loop wake"), done: make(chan struct{})}
	go l.run()
	return l, nil
}

// Post queues f for the render thread and returns at once. After Close it does
// nothing and returns false. A function that is posted often should be made
// once, so that posting allocates nothing.
func (l *Loop) Post(f func()) bool {
	l.mu.Lock()
	if l.stopped {
		l.mu.Unlock()
		return false
	}
	l.posted = append(l.posted, f)
	first := len(l.posted) == 1
	if first {
		l.signal()
	}
	l.mu.Unlock()
	return true
}

// signal makes poll return. Its value only matters as "not zero".
func (l *Loop) signal() {
	one := [8]byte{1}
	_, _ = unix.Write(l.wake.Int(), one[:])
}

// Call runs f on the render thread and waits for it. It must not be called on
// the render thread. After Close it returns without running f.
func (l *Loop) Call(f func()) {
	ran := make(chan struct{})
	if !l.Post(func() { defer close(ran); f() }) {
		return
	}
	select {
	case <-ran:
	case <-l.done:
	}
}

// Watch calls f whenever fd is readable, until Unwatch, and after Again; ready
// says whether poll reported fd. The caller keeps fd open. Called on the render
// thread.
func (l *Loop) Watch(fd int, f func(ready bool)) {
	l.watches = append(l.watches, watch{fd, unix.POLLIN, f})
	l.fds = nil
}

// WatchFor says what a watched fd is polled for instead of being readable: POLLIN,
// POLLOUT. Called on the render thread.
func (l *Loop) WatchFor(fd int, events int16) {
	for i := range l.watches {
		if w := &l.watches[i]; w.fd == fd && w.events != events {
			w.events = events
			l.fds = nil
		}
	}
}

// Unwatch forgets fd. Called on the render thread.
func (l *Loop) Unwatch(fd int) {
	for i, w := range l.watches {
		if w.fd == fd {
			l.watches = append(l.watches[:i:i], l.watches[i+1:]...)
			l.fds = nil
			return
		}
	}
}

// SetPage has the thread say on a page that it comes around. Called on the render
// thread.
func (l *Loop) SetPage(p *keep.Page) { l.page = p }

// Again makes the next poll return at once and call every watch: for work that
// was cut short so that others get a turn. Called on the render thread.
func (l *Loop) Again() { l.again = true }

// Close stops the thread after what is posted already, and waits for it.
func (l *Loop) Close() error {
	l.mu.Lock()
	if !l.stopped {
		l.stopped = true
		l.signal()
	}
	l.mu.Unlock()
	<-l.done
	return l.wake.Close()
}

func (l *Loop) run() {
	runtime.LockOSThread() // never unlocked: GL state dies with the thread
	defer close(l.done)
	for {
		if l.runPosted() {
			return
		}
		l.poll()
	}
}

// runPosted runs what was posted; true when the loop is to end.
func (l *Loop) runPosted() bool {
	for {
		l.mu.Lock()
		l.running, l.posted = l.posted, l.running[:0]
		stopped := l.stopped
		l.mu.Unlock()
		if len(l.running) == 0 {
			return stopped
		}
		for i, f := range l.running {
			f()
			l.running[i] = nil
		}
	}
}

func (l *Loop) poll() {
	if l.fds == nil {
		l.fds = make([]unix.PollFd, 1+len(l.watches))
		l.fds[0] = unix.PollFd{Fd: int32(l.wake.Int()), Events: unix.POLLIN}
		for i, w := range l.watches {
			l.fds[i+1] = unix.PollFd{Fd: int32(w.fd), Events: w.events}
		}
	}
	timeout := -1
	again := l.again
	if again {
		timeout, l.again = 0, false
	}
	l.page.Idle(true)
	_, err := unix.Poll(l.fds, timeout)
	l.page.Idle(false)
	if err != nil {
		if errors.Is(err, unix.EINTR) {
			return
		}
		// Only a programming error (a closed descriptor is reported in
		// revents, not here) or lack of kernel memory leads here.
		fmt.Fprintf(os.Stderr, "gpubroker: poll: %v\n", err)
		return
	}
	if l.fds[0].Revents != 0 {
		var buf [8]byte
		_, _ = unix.Read(l.wake.Int(), buf[:])
	}
	fds := l.fds
	for i := 1; i < len(fds); i++ {
		ready := fds[i].Revents != 0
		if !ready && !again {
			continue
		}
		l.watches[i-1].f(ready)
		if l.fds == nil {
			return // the set changed under us; poll tells the rest again
		}
	}
}
