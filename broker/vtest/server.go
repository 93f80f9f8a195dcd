package vtest

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/unixsock"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Config says what a Server serves and where.
type Config struct {
	Path    string // of the listening socket
	Loop    Loop
	GPU     GPU
	Clients int // at a time; 0: DefaultClients
	Log     *zap.Logger
}

// DefaultClients is how many clients may be connected at a time.
const DefaultClients = 64

// Server serves every client that connects.
type Server struct {
	cfg Config
	ln  *net.UnixListener

	// Below: the render thread's own.
	conns []*conn
	// serving says that a client's message is being served.
	serving bool
	large   int // what all clients' buffers have beyond keepBuffer, in bytes
	total   uint64
	ended   uint64 // clients that an error ended
}

var errStopped = errors.New("the server stopped")

// Listen makes the socket. The caller closes.
func Listen(cfg Config) (*Server, error) {
	if cfg.Clients == 0 {
		cfg.Clients = DefaultClients
	}
	ln, err := unixsock.Listen(cfg.Path)
	if err != nil {
		return nil, &OpError{Op: "listen", Err: err}
	}
	return &Server{cfg: cfg, ln: ln}, nil
}

// Run accepts clients until ctx ends, and then ends all of them.
func (s *Server) Run(ctx context.Context) error {
	s.cfg.Log.Info("listening for vtest clients", zap.String("socket", s.cfg.Path))
	stop := context.AfterFunc(ctx, func() { _ = s.ln.Close() })
	defer stop()
	var err error
	for err == nil {
		var c *net.UnixConn
		if c, err = s.ln.AcceptUnix(); err == nil {
			s.accept(c)
			continue
		}
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ECONNABORTED) {
			s.cfg.Log.Warn("a vtest client cannot connect", zap.Error(err))
			time.Sleep(100 * time.Millisecond)
			err = nil
		}
	}
	s.cfg.Loop.Call(s.stop)
	if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return &OpError{Op: "accept", Err: err}
}

// Close removes the socket and ends every client. Not on the render thread.
func (s *Server) Close() error {
	err := s.ln.Close()
	s.cfg.Loop.Call(s.stop)
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// accept hands a connection to the render thread.
func (s *Server) accept(c *net.UnixConn) {
	fd, err := take(c)
	if err != nil {
		s.cfg.Log.Warn("a vtest client cannot be served", zap.Error(err))
		return
	}
	if !s.cfg.Loop.Post(func() { s.add(fd) }) {
		_ = fd.Close()
	}
}

// take gets the socket out of a connection, with O_NONBLOCK.
func take(c *net.UnixConn) (*dmabuf.FD, error) {
	defer func() { _ = c.Close() }()
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd *dmabuf.FD
	if cerr := raw.Control(func(n uintptr) {
		var dup int
		if dup, err = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			fd = dmabuf.NewFD(dup, "vtest client")
		}
	}); err == nil {
		err = cerr
	}
	return fd, err
}

func (s *Server) add(fd *dmabuf.FD) {
	s.total++
	if n := len(s.conns); n >= s.cfg.Clients {
		s.cfg.Log.Warn("a vtest client is refused", zap.Int("clients", n), zap.Int("limit", s.cfg.Clients))
		_ = fd.Close()
		return
	}
	c := &conn{srv: s, id: s.total, fd: fd, since: time.Now()}
	s.conns = append(s.conns, c)
	c.start()
}

func (s *Server) gone(c *conn, err error) {
	if i := slices.Index(s.conns, c); i >= 0 {
		s.conns = slices.Delete(s.conns, i, i+1)
	}
	if leftQuietly(err) {
		s.cfg.Log.Info("a vtest client left", c.fields()...)
		return
	}
	s.ended++
	s.cfg.Log.Warn("a vtest client was ended", append(c.fields(), zap.Error(err))...)
}

func (s *Server) stop() {
	for len(s.conns) > 0 {
		s.conns[0].end(errStopped)
	}
}

// Status is what a Server does now.
type Status struct {
	Total   uint64         `json:"total"` // clients since the start
	Ended   uint64         `json:"ended"` // of these, ended for an error
	Clients []ClientStatus `json:"clients"`
}

// ClientStatus is a client that is connected.
type ClientStatus struct {
	ID        uint64 `json:"id"`
	Name      string `json:"name"`
	Version   uint32 `json:"version"` // of the protocol
	Resources int    `json:"resources"`
	Messages  uint64 `json:"messages"`
	Submits   uint64 `json:"submits"`
	Seconds   uint64 `json:"seconds"` // connected
}

// Status describes the server. Render thread.
func (s *Server) Status() Status {
	st := Status{Total: s.total, Ended: s.ended, Clients: []ClientStatus{}}
	for _, c := range s.conns {
		st.Clients = append(st.Clients, ClientStatus{
			ID: c.id, Name: c.client.name, Version: c.client.version, Resources: len(c.client.names),
			Messages: c.client.messages, Submits: c.client.submits, Seconds: uint64(time.Since(c.since).Seconds()),
		})
	}
	return st
}
