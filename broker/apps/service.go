package apps

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/link"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
)

// Names of transports, as status and logs say them.
const (
	TransportUnix         = "unix"
	TransportVSock        = "vsock"
	TransportSerial       = "virtio-serial"
	TransportCrossDomain  = "cross-domain"
	handshakesBeyondLimit = 16 // connections that have not said Hello, beside the clients
)

// Service listens for a VM's clients. Any goroutine may use it.
type Service struct {
	cfg    Config
	log    *zap.Logger
	limits link.Limits
	ctx    context.Context // ends with Close, cause ErrClosed
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	lns    []io.Closer

	strangers chan struct{} // a place for each that is told why it is turned away

	mu      sync.Mutex
	closed  bool                       // guarded by mu
	tokens  map[string]struct{}        // guarded by mu: in use
	clients int                        // guarded by mu: those past their handshake
	conns   int                        // guarded by mu: all of them
	live    map[*link.Conn]string      // guarded by mu: transport of each client
	totals  map[string]TransportStatus // guarded by mu: what ended
}

// New starts to listen where cfg says. On error nothing is left behind.
func New(cfg Config) (*Service, error) {
	cfg.Limits = cfg.Limits.filled()
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	s := &Service{
		cfg: cfg, log: cfg.Log,
		limits:    link.Limits{Pipes: link.NewBudget(int64(cfg.Limits.Pipes)), Queued: link.NewBudget(cfg.Limits.Queued)},
		strangers: make(chan struct{}, maxStrangers),
		tokens:    map[string]struct{}{}, live: map[*link.Conn]string{}, totals: map[string]TransportStatus{},
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	if err := s.listen(); err != nil {
		s.Close()
		return nil, &OpError{"listen", err}
	}
	return s, nil
}

// Close ends all clients and waits for them.
func (s *Service) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel(ErrClosed)
	for _, l := range s.lns {
		_ = l.Close()
	}
	s.wg.Wait()
}

// spawn runs f unless the service is closed.
func (s *Service) spawn(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.wg.Go(f)
	return true
}

// accept hands on what a listener brings, until it is closed.
func (s *Service) accept(l net.Listener, transport string, serve func(net.Conn)) {
	s.lns = append(s.lns, l)
	s.log.Info("listening for apps", zap.String("transport", transport), zap.Stringer("address", l.Addr()))
	s.spawn(func() {
		for {
			c, err := l.Accept()
			if err == nil {
				if !s.spawn(func() { serve(c) }) {
					_ = c.Close()
				}
				continue
			}
			if s.ctx.Err() != nil {
				return
			}
			// Out of descriptors, for example: that passes.
			s.log.Warn("accept", zap.String("transport", transport), zap.Error(err))
			select {
			case <-s.ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
}

// ServeStream serves one client on a stream until it ends or ctx does. It takes
// ownership of rwc, which must bear Close from any goroutine and more than once. What
// the owner lacks comes from the client's Hello. The error says why the client ended;
// nil is its orderly end.
func (s *Service) ServeStream(ctx context.Context, rwc io.ReadWriteCloser, transport string, owner proxy.Owner) error {
	end := make(chan error, 1)
	if !s.spawn(func() { end <- s.serve(ctx, rwc, transport, owner) }) {
		_ = rwc.Close()
		return ErrClosed
	}
	return <-end
}

func (s *Service) serve(ctx context.Context, rwc io.ReadWriteCloser, transport string, owner proxy.Owner) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.ctx, func() { cancel(ErrClosed) })()
	if !s.enter() {
		_ = rwc.Close()
		s.refused(transport)
		return ErrFull
	}
	defer s.leave()
	c, hello, token, err := s.handshake(ctx, rwc)
	if err != nil {
		s.refused(transport)
		s.log.Info("no client", zap.String("transport", transport), zap.Error(err))
		return err
	}
	if owner.Token == "" {
		owner.Token = hello.Token
	}
	s.add(c, transport)
	log := s.log.With(zap.String("client", hello.Name), zap.String("transport", transport))
	log.Debug("client")
	g := &guest{c: c, hello: hello, transport: transport}
	err = s.cfg.Handler.Serve(ctx, g, owner)
	if err == io.EOF {
		err = nil
	}
	if err != nil {
		c.Fail(err)
	}
	s.finish(ctx, g)
	s.remove(c, transport, token)
	log.Debug("client ended", zap.Error(err))
	return err
}

func (s *Service) handshake(ctx context.Context, rwc io.ReadWriteCloser) (*link.Conn, link.Hello, string, error) {
	hctx, cancel := context.WithTimeoutCause(ctx, s.cfg.Limits.Handshake,
		fmt.Errorf("no complete handshake in %v: %w", s.cfg.Limits.Handshake, context.DeadlineExceeded))
	defer cancel()
	var flags uint16
	if s.cfg.GPU {
		flags |= link.FlagGPUResources
	}
	if s.cfg.Import {
		flags |= link.FlagImportResources
	}
	token, admitted := "", false
	c, hello, err := link.ServerHandshake(hctx, rwc, s.limits, func(h *link.Hello) (uint16, error) {
		err := s.admit(h.Token)
		token, admitted = h.Token, err == nil
		return flags, err
	})
	if err != nil && admitted {
		s.dismiss(token)
	}
	return c, hello, token, err
}

// finish closes a client's connection when what came for its pipes has been taken, or
// after a while.
func (s *Service) finish(ctx context.Context, g *guest) {
	g.reading.end()
	g.writing.end()
	g.c.PeerGone()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Limits.Linger)
	defer cancel()
	if err := g.c.DrainPipes(ctx); err != nil {
		s.log.Debug("data of pipes was not taken", zap.Int("pipes", g.c.OpenPipes()), zap.Error(err))
	}
	_ = g.c.Close()
}

// enter counts a connection; there may be a few more than clients.
func (s *Service) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns >= s.cfg.Limits.Clients+handshakesBeyondLimit {
		return false
	}
	s.conns++
	return true
}

func (s *Service) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns--
}

// admit takes a place for a client, and its token.
func (s *Service) admit(token string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clients >= s.cfg.Limits.Clients {
		return fmt.Errorf("%w: %d are connected", ErrFull, s.clients)
	}
	if token != "" {
		if _, ok := s.tokens[token]; ok {
			return ErrTokenInUse
		}
		s.tokens[token] = struct{}{}
	}
	s.clients++
	return nil
}

func (s *Service) dismiss(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tokens, token)
	s.clients--
}

// serveSerial serves the clients on one connection of QEMU's chardev.
func (s *Service) serveSerial(c net.Conn) {
	s.log.Info("virtio-serial port connected")
	err := link.ServeMux(s.ctx, c, s.cfg.Limits.Clients+handshakesBeyondLimit, func(ctx context.Context, stream io.ReadWriteCloser) {
		_ = s.ServeStream(ctx, stream, TransportSerial, proxy.Owner{})
	})
	if err != nil && !errors.Is(err, ErrClosed) {
		s.log.Info("virtio-serial port disconnected", zap.Error(err))
	}
}
