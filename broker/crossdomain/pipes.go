package crossdomain

import (
	"context"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// pipeFile makes a file of a pipe's end whose reads and writes wait in the runtime's
// poller, and end when it is closed. It takes fd.
func pipeFile(fd *dmabuf.FD) *os.File {
	_ = unix.SetNonblock(fd.Int(), true) // fails on no kind of file that has it
	name := fd.Name()
	return os.NewFile(uintptr(fd.Disown()), name)
}

// readPipe carries what comes out of a pipe to the guest, as READs.
type readPipe struct {
	c    *Context
	id   uint32
	file *os.File
}

// pump runs until the pipe's end or the context's.
func (r *readPipe) pump() {
	defer r.forget()
	stop := context.AfterFunc(r.c.open, func() { _ = r.file.Close() })
	defer stop()
	buf := make([]byte, r.c.roomFor(SizeReadWrite))
	for {
		n, err := r.file.Read(buf)
		if r.c.open.Err() != nil {
			return
		}
		m := pipeData{id: r.id, data: buf[:n], hangUp: n == 0 || err != nil}
		hold, perr := r.c.takePoll(r.c.open)
		if perr != nil {
			return
		}
		if m.hangUp {
			r.forget() // the guest may use the number again when it has this
		}
		r.c.deliver(hold, func(int) []byte { return appendRead(nil, &m) })
		if m.hangUp {
			return
		}
	}
}

// forget closes the pipe.
func (r *readPipe) forget() {
	_ = r.file.Close()
	r.c.mu.Lock()
	delete(r.c.reads, r.id)
	r.c.mu.Unlock()
}

// roomFor returns the bytes that a message for the guest can carry beside its fixed
// part.
func (c *Context) roomFor(fixed int) int {
	n := c.ringSize
	if c.typ != ChannelStream {
		n = min(n, pageData)
	}
	return n - fixed
}

// writePipe carries WRITEs to a pipe's end.
type writePipe struct {
	c    *Context
	file *os.File

	mu   sync.Mutex
	cond *sync.Cond
	q    [][]byte // guarded by mu
	last bool     // guarded by mu; nothing more comes
	dead bool     // guarded by mu; nobody reads
}

func newWritePipe(c *Context, fd *dmabuf.FD) *writePipe {
	w := &writePipe{c: c, file: pipeFile(fd)}
	w.cond = sync.NewCond(&w.mu)
	return w
}

// push queues data. Called with the context's mu.
func (w *writePipe) push(p []byte, last bool) {
	w.mu.Lock()
	if len(p) > 0 && !w.dead {
		w.q = append(w.q, p)
		w.c.piped += len(p)
	}
	w.last = w.last || last
	w.cond.Signal()
	w.mu.Unlock()
}

// abandon drops what is queued and ends the pipe.
func (w *writePipe) abandon() {
	w.mu.Lock()
	w.last, w.dead = true, true
	w.cond.Signal()
	w.mu.Unlock()
	_ = w.file.Close() // ends a write that waits
}

// next waits for data; false at the end.
func (w *writePipe) next() ([]byte, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.q) == 0 && !w.last {
		w.cond.Wait()
	}
	if len(w.q) == 0 {
		return nil, false
	}
	p := w.q[0]
	w.q = w.q[1:]
	return p, true
}

// pump writes until the guest hangs up. When nobody reads any more it goes on
// taking data, because the guest cannot be told.
func (w *writePipe) pump() {
	defer func() { _ = w.file.Close() }()
	for {
		p, ok := w.next()
		if !ok {
			return
		}
		w.mu.Lock()
		dead := w.dead
		w.mu.Unlock()
		if !dead {
			if _, err := w.file.Write(p); err != nil {
				w.mu.Lock()
				w.dead = true
				w.mu.Unlock()
				_ = w.file.Close()
			}
		}
		w.c.mu.Lock()
		w.c.piped -= len(p)
		w.c.mu.Unlock()
		w.c.room()
	}
}
