package relay

import (
	"encoding/binary"
	"sync"
	"syscall"
	"time"

	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

const (
	// maxUnsent is the most bytes that wait for a client that does not read; more end it.
	maxUnsent = 4 << 20
	// enough is how many unsent bytes make events of the host wait.
	enough = 256 << 10
)

// writer sends to the client. Any goroutine may write and never waits for the
// client; flush, one goroutine's, sends what the socket did not take at once.
type writer struct {
	raw syscall.RawConn // of the same socket, to wait with

	mu      sync.Mutex
	conn    *wire.Conn
	err     error
	drained *sync.Cond    // of mu: less is pending, or err is set
	kick    chan struct{} // something is pending
}

func newWriter(conn *wire.Conn, raw syscall.RawConn) *writer {
	w := &writer{raw: raw, conn: conn, kick: make(chan struct{}, 1)}
	w.drained = sync.NewCond(&w.mu)
	conn.Out.MaxPending = maxUnsent
	return w
}

// write adds messages and sends what the socket takes.
func (w *writer) write(add func(*wire.Writer)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	add(&w.conn.Out)
	return w.sendLocked()
}

// send sends what message collected, as far as the socket takes it.
func (w *writer) send() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sendLocked()
}

func (w *writer) sendLocked() error {
	if w.err != nil {
		return w.err
	}
	w.flushLocked()
	if w.err == nil && w.conn.Out.Pending() > 0 {
		select {
		case w.kick <- struct{}{}:
		default:
		}
	}
	return w.err
}

func (w *writer) flushLocked() {
	if err := w.conn.Flush(); err != nil && w.err == nil {
		w.err = err
	}
	if w.err != nil || w.conn.Out.Pending() < enough {
		w.drained.Broadcast()
	}
}

// message adds an event, which send sends. What the compositor sent together stays
// together: clients that commit and make one round trip rely on the configure event's coming
// with its end. The descriptors become the writer's.
func (w *writer) message(m wire.Message, fds []*dmabuf.FD) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := &w.conn.Out
	out.Begin(m.Object, m.Opcode)
	for b := m.Body; len(b) >= 4; b = b[4:] {
		out.Uint(binary.LittleEndian.Uint32(b))
	}
	for _, fd := range fds {
		out.FD(fd)
	}
	out.End()
	return w.err
}

// wait waits until the client has read most of what was written.
func (w *writer) wait() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn.Out.Pending() >= enough {
		if err := w.sendLocked(); err != nil {
			return err
		}
	}
	for w.err == nil && w.conn.Out.Pending() >= enough {
		w.drained.Wait()
	}
	return w.err
}

// flush sends what is pending until stop closes or the socket is gone.
func (w *writer) flush(stop <-chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		case <-w.kick:
		}
		var failed error
		err := w.raw.Write(func(uintptr) bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.flushLocked()
			failed = w.err
			return w.err != nil || w.conn.Out.Pending() == 0
		})
		if failed == nil {
			failed = err
		}
		if failed != nil {
			w.fail(failed)
			return failed
		}
	}
}

// fail makes all that wait return.
func (w *writer) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	w.drained.Broadcast()
}

// close closes the connection, after a last error message if it fits; the client has wait
// to read it.
func (w *writer) close(wait time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.conn.Leave(wait)
}
