package crossdomain

import (
	"context"
	"errors"
	"io"
)

// stream is a context as a stream of bytes: a SEND is a piece of it, a RECEIVE is
// another. Read and Write are each for one goroutine.
type stream struct {
	c    *Context
	rest []byte
}

var _ io.ReadWriteCloser = (*stream)(nil)

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(s.rest) == 0 {
		next, err := s.c.in.pop(s.c.ctx)
		if errors.Is(err, ErrClosed) || errors.Is(err, context.Canceled) {
			err = io.EOF
		}
		if err != nil {
			return 0, err
		}
		s.rest = next.data
		s.c.room()
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Write implements io.Writer. It waits until the guest polls.
func (s *stream) Write(p []byte) (done int, err error) {
	for len(p) > 0 {
		hold, err := s.c.takePoll(s.c.open)
		if err != nil {
			return done, ErrClosed
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

// Close implements io.Closer.
func (s *stream) Close() error {
	s.c.fail(ErrClosed)
	return nil
}
