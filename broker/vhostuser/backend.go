package vhostuser

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/guestmem"
	"github.com/gpubroker/gpubroker/broker/virtq"
)

// ChannelUser is what a Device implements if it sends requests to the front-end.
type ChannelUser interface {
	// BackendChannel hands over the channel, or nil when it is gone. It stays
	// valid (but closed) after that. Called on the render thread.
	BackendChannel(ch *Channel)
}

// Config says how to make a back-end.
type Config struct {
	Device   Device
	Executor Executor
	Log      *zap.Logger // nil for none

	// Queues is the number of rings, 2 if 0 (control and cursor).
	Queues int
	// Shmem offers the SHMEM protocol feature with these regions, by their id.
	// nil does not offer it. See [ShmemConfig] for what QEMU demands of the sizes.
	Shmem *ShmemConfig
	// Ledgers, one for each ring, outlive the process and say where its rings stand.
	// nil if nobody would read them.
	Ledgers []*virtq.Ledger
	// Half outlives the process like Ledgers; nil if nobody would read it.
	Half Half
	// OnStart, if set, hears that a front-end is served; resumed: another process served
	// it before. OnEnd, if set, hears that a front-end is not served any more, before its
	// connection is closed; err is nil if it hung up.
	OnStart func(resumed bool)
	OnEnd   func(err error)
}

// Backend serves front-ends, one at a time, for one device.
type Backend struct {
	cfg   Config
	log   *zap.Logger
	proto ProtocolFeature // offered
}

// NewBackend makes a back-end. Device and Executor must be set.
func NewBackend(cfg Config) (*Backend, error) {
	if cfg.Device == nil || cfg.Executor == nil {
		return nil, &OpError{Op: "new back-end", Err: fmt.Errorf("%w: no device or no executor", ErrState)}
	}
	if cfg.Queues == 0 {
		cfg.Queues = 2
	}
	if cfg.Queues < 1 || cfg.Queues > 256 {
		return nil, &OpError{Op: "new back-end", Err: fmt.Errorf("%w: %d queues, limit 256", ErrState, cfg.Queues)}
	}
	if n := len(cfg.Ledgers); n != 0 && n != cfg.Queues {
		return nil, &OpError{Op: "new back-end", Err: fmt.Errorf("%w: %d ledgers for %d queues", ErrState, n, cfg.Queues)}
	}
	b := &Backend{cfg: cfg, log: cfg.Log, proto: offeredProto}
	if b.log == nil {
		b.log = zap.NewNop()
	}
	if cfg.Shmem != nil {
		b.proto |= ProtoShmem
	}
	return b, nil
}

// Run serves one front-end after the other on l until ctx ends, which is no
// error. A second front-end waits in the socket's backlog until the first is
// gone. A front-end that breaks the protocol is logged and dropped.
func (b *Backend) Run(ctx context.Context, l *Listener) error {
	for {
		conn, err := l.Accept(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		b.log.Info("front-end connected", zap.String("socket", l.Path()))
		if err := b.Serve(ctx, conn); err != nil {
			b.log.Error("front-end dropped", zap.Error(err))
			continue
		}
		b.log.Info("front-end gone")
	}
}

// Serve serves one front-end until it hangs up or ctx ends, both without error,
// or until it breaks the protocol. It closes conn. When it returns, the rings
// are stopped, the device is detached and no descriptor of the connection is
// left.
func (b *Backend) Serve(ctx context.Context, conn *Conn) error {
	s := &session{
		Backend: b, dev: b.cfg.Device, conn: conn,
		mem: guestmem.New(), rings: make([]ring, b.cfg.Queues), resuming: conn.Resume,
	}
	for i, l := range b.cfg.Ledgers {
		s.rings[i].ledger = l
		if conn.Resume == 0 {
			b.cfg.Executor.Call(l.Clear)
		}
	}
	stop := context.AfterFunc(ctx, conn.Interrupt)
	defer stop()
	defer func() { _ = conn.Close() }()

	if b.cfg.OnStart != nil {
		b.cfg.OnStart(conn.Resume > 0)
	}
	b.cfg.Executor.Call(func() { s.dev.Attach(s.mem) })
	err := s.loop()
	s.channel.setGate(false)
	s.end()
	if ctx.Err() != nil || hungUp(err) {
		err = nil
	}
	if b.cfg.OnEnd != nil {
		b.cfg.OnEnd(err)
	}
	return err
}

// session is one connection. The connection's goroutine owns it, except for what
// is marked render: that is touched inside Executor.Call only, while the
// connection's goroutine waits.
type session struct {
	*Backend
	dev  Device
	conn *Conn

	features    uint64 // acknowledged by SET_FEATURES; render
	hasFeatures bool   // render
	acked       ProtocolFeature
	channel     *Channel // nil until SET_BACKEND_REQ_FD
	reply       []byte   // scratch

	mem        *guestmem.Map // render
	rings      []ring        // render
	toldUnseal bool          // render
	resuming   int           // messages that are told again; written by the connection's goroutine
}

// loop serves messages until there are no more; it always returns an error.
func (s *session) loop() error {
	for {
		m, err := s.conn.Read()
		if err != nil {
			return err
		}
		err = s.dispatch(m)
		m.CloseFDs()
		if err != nil {
			return err
		}
		if s.resuming > 0 {
			if s.resuming--; s.resuming == 0 {
				s.resumed()
			}
		}
	}
}

// resumed starts the rings of a front-end that was taken over.
func (s *session) resumed() {
	s.cfg.Executor.Call(func() {
		if r, ok := s.dev.(Restorer); ok {
			r.Restore()
		}
		for i := range s.rings {
			s.rings[i].resume = s.rings[i].ledger.Held()
		}
		if err := s.updateRings(); err != nil {
			s.log.Error("a ring cannot go on", zap.Error(err))
		}
	})
}

// dispatch serves one message. An error ends the connection.
func (s *session) dispatch(m *Message) error {
	req := Request(m.Request)
	if e := s.log.Check(zap.DebugLevel, "vhost-user request"); e != nil {
		e.Write(zap.Stringer("request", req), zap.Int("bytes", len(m.Payload)), zap.Int("fds", len(m.FDs)), zap.Bool("needReply", m.NeedReply()))
	}
	fail := func(err error) error { return &OpError{Op: "handle", Request: req, Err: err} }
	if m.IsReply() {
		return fail(fmt.Errorf("%w: a reply to nothing, flags %#x", ErrProtocol, m.Flags))
	}
	ru, err := m.check()
	if err == nil {
		h := handlers[req]
		if h.stops != nil && h.stops(m) {
			// Before anything waits: once QEMU has its answer, a request from us
			// would crash it. The gate opens at the next start of a ring.
			s.channel.setGate(false)
		}
		if h.render {
			s.cfg.Executor.Call(func() { s.reply, err = h.run(s, m, s.reply[:0]) })
		} else {
			s.reply, err = h.run(s, m, s.reply[:0])
		}
	}
	if err != nil && !errors.Is(err, errOwnMapping) {
		s.log.Warn("vhost-user request refused", zap.Stringer("request", req), zap.Error(err))
	}
	if errors.Is(err, ErrFeature) {
		return fail(err)
	}
	if ru.reply == replyOwn {
		if err != nil { // the front-end waits for an answer that we do not have
			return fail(err)
		}
		return s.send(m, s.reply)
	}
	if !m.NeedReply() {
		return nil
	}
	var status uint64
	if err != nil {
		status = 1
	}
	return s.send(m, AppendU64(s.reply[:0], status))
}

// send answers m. QEMU takes no reply flags but these.
func (s *session) send(m *Message, payload []byte) error {
	return s.conn.Send(m.Request, flagVersion|FlagReply, payload)
}

// end takes everything down: the front-end is gone.
func (s *session) end() {
	s.channel.close()
	s.cfg.Executor.Call(func() {
		for i := range s.rings {
			s.stopRing(i)
			s.rings[i].close()
		}
		if s.channel != nil {
			s.announceChannel(nil)
		}
		s.dev.Detach()
		s.mem.Close()
	})
}

func (s *session) announceChannel(ch *Channel) {
	if u, ok := s.dev.(ChannelUser); ok {
		u.BackendChannel(ch)
	}
}
