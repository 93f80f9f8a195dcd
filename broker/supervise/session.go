package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/keep"
	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// session is one front-end, whatever workers serve it. One goroutine owns it.
type session struct {
	sup     *Supervisor
	name    keep.Role
	fe      *vhostuser.Conn
	journal *journal

	w     *worker
	inner *vhostuser.Conn // to w
	over  bool            // w has said that it let go of inner
}

// maxTries is how many workers may die of one message.
const maxTries = 4

var (
	errDied  = errors.New("the worker died")
	errEnded = errors.New("the worker ended the connection")
)

// run serves the front-end until it leaves, which is no error, or ctx ends. It closes
// the connection.
func (s *session) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		s.fe.Interrupt()
	})
	defer stop()
	messages, next, readErr := make(chan *vhostuser.Message), make(chan struct{}), error(nil)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(messages)
		for {
			m, err := s.fe.Read()
			if err != nil {
				readErr = err
				return
			}
			messages <- m
			if _, more := <-next; !more {
				return
			}
		}
	}()
	defer func() {
		_ = s.fe.Close()
		close(next)
		for m := range messages { // one that was read meanwhile
			m.CloseFDs()
		}
		<-ended
		s.journal.clear()
	}()
	defer s.leave()
	for {
		if s.inner == nil {
			if err := s.connect(ctx); err != nil {
				return err
			}
			if s.inner == nil {
				return nil // ctx ended
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.w.done:
			s.disconnect()
		case m, ok := <-messages:
			if !ok {
				if ctx.Err() != nil || errors.Is(readErr, io.EOF) || errors.Is(readErr, unix.ECONNRESET) {
					return nil
				}
				return readErr
			}
			err := s.serve(ctx, m)
			m.CloseFDs()
			if err != nil || ctx.Err() != nil {
				return err
			}
			next <- struct{}{}
		}
	}
}

// serve has a message answered by a worker, and by the next if that one dies of it.
func (s *session) serve(ctx context.Context, m *vhostuser.Message) error {
	for range maxTries {
		if s.inner == nil {
			if err := s.connect(ctx); err != nil || s.inner == nil {
				return err
			}
		}
		reply, err := s.ask(ctx, m)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errDied) {
			s.disconnect()
			continue
		}
		if err != nil {
			return err
		}
		req := vhostuser.Request(m.Request)
		needReply := m.NeedReply() || req.Answers()
		if req.Answers() || accepted(reply) {
			s.journal.note(m, reply)
		}
		if !needReply {
			return nil
		}
		if err := s.fe.Send(m.Request, vhostuser.FlagReply, reply); err != nil && !errors.Is(err, unix.EPIPE) {
			return err // with EPIPE the next read says that it left
		}
		return nil
	}
	return fmt.Errorf("%w of %v, %d times", errDied, vhostuser.Request(m.Request), maxTries)
}

func accepted(status []byte) bool {
	v, err := vhostuser.DecodeU64(status)
	return err == nil && v == 0
}

// ask sends a message to the worker and returns the payload of its answer.
func (s *session) ask(ctx context.Context, m *vhostuser.Message) ([]byte, error) {
	return s.call(ctx, m.Request, m.Flags, m.Payload, m.FDs)
}

func (s *session) call(ctx context.Context, request, flags uint32, payload []byte, fds []*dmabuf.FD) ([]byte, error) {
	stop := context.AfterFunc(ctx, s.inner.Interrupt)
	defer stop()
	err := s.inner.Send(request, flags|vhostuser.FlagNeedReply, payload, fds...)
	var r *vhostuser.Message
	if err == nil {
		r, err = s.inner.Read()
	}
	if err != nil {
		return nil, s.lost(ctx)
	}
	defer r.CloseFDs()
	if r.Request != request || !r.IsReply() {
		_ = s.w.cmd.Process.Kill() // it is not itself any more
		<-s.w.done
		return nil, errDied
	}
	return r.Payload, nil
}

// lost says why the connection to the worker broke.
func (s *session) lost(ctx context.Context) error {
	select {
	case why := <-s.w.ended[s.name]:
		s.over = true
		if why == "" {
			return errEnded
		}
		return fmt.Errorf("%w: %s", errEnded, why)
	case <-s.w.done:
		return errDied
	case <-ctx.Done():
		return ctx.Err()
	}
}

// connect gives the front-end to the worker that serves, and tells it all that was said
// before. inner stays nil if ctx ended.
func (s *session) connect(ctx context.Context) error {
	for {
		if s.w = s.sup.worker(ctx); s.w == nil {
			return nil
		}
		err := s.introduce(ctx)
		if err == nil {
			return nil
		}
		s.disconnect()
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, errDied) {
			return err
		}
	}
}

func (s *session) introduce(ctx context.Context) error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socketpair: %w", err)
	}
	theirs := dmabuf.NewFD(fds[1], "worker's front-end")
	defer func() { _ = theirs.Close() }()
	if s.inner, err = vhostuser.FromFD(dmabuf.NewFD(fds[0], "worker's back-end")); err != nil {
		return err
	}
	s.over = false
	slots := s.journal.slots()
	if err := s.w.pass(s.name, theirs, len(slots)); err != nil {
		<-s.w.done // it is dying
		return errDied
	}
	_ = theirs.Close()
	for _, sl := range slots {
		l := s.journal.lines[sl]
		status, err := s.call(ctx, uint32(sl.req), 0, l.payload, l.fds)
		if err != nil {
			return err
		}
		if !accepted(status) {
			s.sup.log.Warn("a worker does not accept what the one before did", zap.Stringer("request", sl.req), zap.Uint64("index", sl.index))
		}
	}
	return nil
}

func (s *session) disconnect() {
	if s.inner != nil {
		_ = s.inner.Close()
		s.inner = nil
	}
}

// leave ends the worker's service and waits until it has let go.
func (s *session) leave() {
	if s.inner == nil {
		return
	}
	s.disconnect()
	if s.over {
		return
	}
	select {
	case <-s.w.ended[s.name]:
	case <-s.w.done:
	}
}
