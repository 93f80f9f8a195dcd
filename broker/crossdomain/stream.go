package crossdomain

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"
)

// stream is a context as a stream of bytes: a SEND is a piece of it, a RECEIVE is
// another. Read and Write are each for one goroutine; the rest is for any.
type stream struct {
	c             *Context
	rest          []byte
	reads, writes deadline
}

func newStream(c *Context) *stream {
	s := &stream{c: c}
	s.reads.init(c.ctx)
	s.writes.init(c.open)
	return s
}

var _ io.ReadWriteCloser = (*stream)(nil)

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(s.rest) == 0 {
		ctx := s.reads.current()
		next, err := s.c.in.pop(ctx)
		switch {
		case err == nil:
			s.rest = next.data
			s.c.room()
		case ctx.Err() != nil && s.c.ctx.Err() == nil:
			if errors.Is(s.reads.current().Err(), context.DeadlineExceeded) {
				return 0, os.ErrDeadlineExceeded
			}
		case errors.Is(err, ErrClosed) || errors.Is(err, context.Canceled):
			return 0, io.EOF
		default:
			return 0, err
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Write implements io.Writer. It waits until the guest polls.
func (s *stream) Write(p []byte) (done int, err error) {
	for len(p) > 0 {
		ctx := s.writes.current()
		hold, err := s.c.takePoll(ctx)
		switch {
		case err == nil:
		case s.c.open.Err() != nil:
			return done, ErrClosed
		case errors.Is(s.writes.current().Err(), context.DeadlineExceeded):
			return done, os.ErrDeadlineExceeded
		default:
			continue
		}
		n := 0
		s.c.deliver(hold, func(slots int) []byte {
			n = min(len(p), s.c.roomFor(sizeOf(slots)))
			return appendReceive(nil, &message{slots: slots, data: p[:n]})
		})
		done, p = done+n, p[n:]
	}
	return done, nil
}

// SetReadDeadline and SetWriteDeadline are as net.Conn has them.
func (s *stream) SetReadDeadline(t time.Time) error  { return s.reads.set(t) }
func (s *stream) SetWriteDeadline(t time.Time) error { return s.writes.set(t) }

// Close implements io.Closer.
func (s *stream) Close() error {
	s.c.fail(ErrClosed)
	return nil
}

// deadline is a context that ends at a time which can be changed.
type deadline struct {
	base context.Context
	mu   sync.Mutex
	ctx  context.Context    // guarded by mu
	stop context.CancelFunc // guarded by mu
}

func (d *deadline) init(base context.Context) {
	d.base = base
	d.ctx, d.stop = context.WithCancel(base)
}

func (d *deadline) current() context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ctx
}

// set changes the time; who waits with the old one looks again.
func (d *deadline) set(t time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.stop
	if t.IsZero() {
		d.ctx, d.stop = context.WithCancel(d.base)
	} else {
		d.ctx, d.stop = context.WithDeadline(d.base, t)
	}
	old()
	return nil
}
