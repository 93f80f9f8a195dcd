package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

// Proxy serves the Wayland clients of one VM. Its methods may be called from any
// goroutine but the render thread.
type Proxy struct {
	cfg    Config
	limits Limits
	policy *Policy
	log    *zap.Logger
	stats  Stats

	mu      sync.Mutex
	closed  bool                 // guarded by mu
	clients map[*client]struct{} // guarded by mu
	refused map[Format]struct{}  // guarded by mu: imports that made a compositor end a connection
	ctx     context.Context      // ends with the proxy
	stop    context.CancelFunc   // ends ctx
	busy    sync.WaitGroup       // running Serve calls
	entry   entry                // how clients reach the compositor
}

// Stats counts what all clients did. Read any time.
type Stats struct {
	Clients     atomic.Uint64 // served so far
	Faults      atomic.Uint64 // clients that ended with a protocol error or over a limit
	Requests    atomic.Uint64 // messages from guests
	Events      atomic.Uint64 // messages from the compositor
	BytesCopied atomic.Uint64
}

// New checks the configuration. It does not connect: the compositor may start later.
func New(cfg Config) (*Proxy, error) {
	if cfg.Display == "" {
		return nil, &OpError{Op: "configure", Err: fmt.Errorf("%w: no compositor socket", ErrPolicy)}
	}
	policy := cfg.Policy
	if policy == nil {
		policy = DefaultPolicy()
	}
	if err := policy.check(); err != nil {
		return nil, &OpError{Op: "configure", Err: err}
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	p := &Proxy{
		cfg: cfg, policy: policy, log: cfg.Log,
		limits:  cfg.Limits.or(policy.Limits).or(DefaultLimits()),
		clients: map[*client]struct{}{},
		refused: map[Format]struct{}{},
	}
	p.entry = entry{path: cfg.Display, folder: cfg.Folder, secure: policy.SecurityContext, name: cfg.VMName, id: cfg.VMID, log: cfg.Log}
	p.ctx, p.stop = context.WithCancel(context.Background())
	return p, nil
}

// Serve runs one client until it or the compositor ends, ctx ends, or the proxy is
// closed; it closes the guest's end and everything that it opened. The result is nil
// when the client left in an orderly way.
func (p *Proxy) Serve(ctx context.Context, guest Guest, owner Owner) error {
	c, err := p.admit(ctx, guest, owner)
	if err != nil {
		turnAway(guest, err)
		return err
	}
	defer p.busy.Done()
	err = c.serve()
	p.mu.Lock()
	delete(p.clients, c)
	p.mu.Unlock()
	if errors.Is(err, io.EOF) {
		err = nil
	}
	var bad *clientError
	if errors.As(err, &bad) {
		p.stats.Faults.Add(1)
		p.log.Warn("a guest's client was ended", zap.String("vm", p.cfg.VMName), zap.String("client", c.dialect.Name),
			zap.String("transport", c.dialect.Transport), zap.Error(err))
	} else if err != nil {
		p.log.Info("a guest's client ended", zap.String("client", c.dialect.Name), zap.Error(err))
	}
	if err != nil {
		return &OpError{Op: "serve", Object: c.dialect.Name, Err: err}
	}
	return nil
}

// turnAway ends a client that is not served, and tells it why.
func turnAway(guest Guest, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	var out wire.Writer
	proto.WlDisplay(wire.DisplayID).SendError(&out, wire.DisplayID, codeBroken, short("gpubroker: "+err.Error()))
	_ = guest.Send(ctx, Chunk{Data: out.Unsent()})
	guest.Fail(err)
	_ = guest.Close()
}

// admit registers a client if there may be one more.
func (p *Proxy) admit(ctx context.Context, guest Guest, owner Owner) (*client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, &OpError{Op: "serve", Err: ErrClosed}
	}
	if len(p.clients) >= p.limits.Clients {
		return nil, &OpError{Op: "serve", Err: fmt.Errorf("%w: clients %d, limit %d", ErrQuota, len(p.clients)+1, p.limits.Clients)}
	}
	c := newClient(ctx, p, guest, owner)
	p.clients[c] = struct{}{}
	p.busy.Add(1)
	p.stats.Clients.Add(1)
	return c, nil
}

// Windows describes the toplevels that exist now.
func (p *Proxy) Windows() []WindowStats {
	p.mu.Lock()
	clients := make([]*client, 0, len(p.clients))
	for c := range p.clients {
		clients = append(clients, c)
	}
	p.mu.Unlock()
	var out []WindowStats
	for _, c := range clients {
		out = c.appendWindows(out)
	}
	return out
}

// Stats returns the counters.
func (p *Proxy) Stats() *Stats { return &p.stats }

// Clients returns how many clients are served now.
func (p *Proxy) Clients() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.clients)
}

// Close ends every client and waits until Serve has returned for each. A second
// Close does nothing.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.stop()
	p.busy.Wait()
	p.entry.close()
}

// refuse remembers a layout whose import made the compositor end a connection.
func (p *Proxy) refuse(f Format) {
	p.mu.Lock()
	p.refused[f] = struct{}{}
	p.mu.Unlock()
}

func (p *Proxy) isRefused(f Format) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.refused[f]
	return ok
}

// dial makes the host connection of a client.
func (p *Proxy) dial(ctx context.Context) (*wire.Conn, error) {
	return p.entry.dial(ctx)
}
