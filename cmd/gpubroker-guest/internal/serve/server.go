// Package serve accepts clients and gives each a relay and a connection to the host.
package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/link"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/display"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/drm"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/relay"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/shm"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/transport"
	"github.com/gpubroker/gpubroker/dmabuf"
)

const (
	// maxClients bounds how many clients there are at a time.
	maxClients = 256
	// connectTime bounds how long a client waits for the host.
	connectTime = 10 * time.Second
	// maxPipes and maxQueued bound what all clients together hold of pipes.
	maxPipes  = 512
	maxQueued = 64 << 20
)

// Server serves one display. Make it with [New].
type Server struct {
	t        transport.Transport
	why      error // why the transport is not a better one
	gpu      *drm.Node
	importer *shm.Importer
	noImport error // why there is no importer
	log      *slog.Logger
	totals   shm.Totals
	limits   link.Limits
	started  time.Time

	refused atomic.Uint64

	mu      sync.Mutex
	clients map[*client]struct{}
	idle    *sync.Cond // of mu: no client is left
	wg      sync.WaitGroup
}

// client is one that is served.
type client struct {
	name  string
	pid   int
	since time.Time
	stats relay.Stats
}

// New finds the GPU and the import device among nodes. The server owns t.
func New(t transport.Transport, why error, nodes []drm.Node, log *slog.Logger) *Server {
	s := &Server{
		t: t, why: why, log: log, started: time.Now(),
		limits:   link.Limits{Pipes: link.NewBudget(maxPipes), Queued: link.NewBudget(maxQueued)},
		clients:  map[*client]struct{}{},
		noImport: errors.New("there is no second virtio-gpu device without 3D"),
	}
	s.idle = sync.NewCond(&s.mu)
	for _, n := range nodes {
		switch {
		case n.Has3D && s.gpu == nil:
			s.gpu = &n
		case n.Imports() && s.importer == nil:
			s.importer, s.noImport = shm.OpenImporter(n.Path)
		}
	}
	if s.noImport != nil {
		log.Info("wl_shm buffers are copied", "why", s.noImport)
	}
	if s.gpu == nil {
		log.Info("no buffers of a GPU can be passed on", "why", "there is no virtio-gpu device with 3D")
	}
	return s
}

// Close closes what the server owns. Serve must have returned.
func (s *Server) Close() error {
	s.importer.Close()
	return s.t.Close()
}

// Serve accepts clients until ctx ends or the listener is closed, and waits until all
// have ended. It closes the listener.
func (s *Server) Serve(ctx context.Context, l *display.Listener) error {
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { _ = l.Close(); close(closed) })
	defer s.wg.Wait()
	defer func() {
		if stop() {
			_ = l.Close()
		} else {
			<-closed
		}
	}()
	for {
		fd, peer, err := l.Accept()
		switch {
		case errors.Is(err, os.ErrClosed):
			return nil
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
			s.log.Warn("a client waits", "why", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(time.Second):
			}
			continue
		case errors.Is(err, unix.ECONNABORTED):
			continue
		case err != nil:
			return err
		}
		c := &client{name: peer.Name, pid: peer.PID, since: time.Now()}
		if !s.admit(c) {
			s.refused.Add(1)
			relay.Refuse(fd, fmt.Sprintf("gpubroker: %d clients are connected, the limit", maxClients), 0) // whoever floods waits for nobody
			continue
		}
		s.wg.Go(func() {
			defer s.leave(c)
			s.serve(ctx, c, fd)
		})
	}
}

func (s *Server) admit(c *client) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.clients) >= maxClients {
		return false
	}
	s.clients[c] = struct{}{}
	return true
}

func (s *Server) leave(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.clients, c)
	if len(s.clients) == 0 {
		s.idle.Broadcast()
	}
}

// WaitIdle waits until no client is connected.
func (s *Server) WaitIdle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.clients) > 0 {
		s.idle.Wait()
	}
}

// serve serves one client.
func (s *Server) serve(ctx context.Context, c *client, socket *dmabuf.FD) {
	log := s.log.With("client", c.name, "pid", c.pid)
	gpu := &clientGPU{token: link.NewToken()}
	if s.gpu != nil {
		gpu.path = s.gpu.Path
	}
	defer gpu.close()
	conn, welcome, err := s.connect(ctx, c, gpu)
	if err != nil {
		log.Warn("no connection to the host", "transport", s.t.Name(), "why", err)
		s.refused.Add(1)
		relay.Refuse(socket, "gpubroker: no connection to the host: "+err.Error(), relay.LeaveTime)
		return
	}
	store := &shm.Store{Shared: &s.totals, NoImport: s.noImport}
	cfg := relay.Config{Name: c.name, Store: store, Log: log}
	if welcome.Flags&link.FlagImportResources != 0 {
		store.Import = s.importer
	} else if s.noImport == nil {
		store.NoImport = errors.New("the host does not know the import device")
	}
	switch {
	case s.gpu == nil:
	case welcome.Flags&link.FlagGPUResources != 0:
		cfg.GPU = gpu.get
		if s.gpu.HostMemory() {
			store.Blobs = gpu.get
		}
		cfg.SyncNode = s.gpu.Path
	default:
		log.Info("the host takes no buffers of the GPU over this transport")
	}
	r, err := relay.NewClient(cfg, socket, conn, &c.stats)
	if err != nil {
		log.Error("client not served", "why", err)
		return
	}
	log.Debug("client connected")
	if err := r.Run(ctx); err != nil {
		log.Warn("client ended", "why", err)
		return
	}
	log.Debug("client left")
}

// connect makes the client's connection to the host.
func (s *Server) connect(ctx context.Context, c *client, gpu *clientGPU) (*link.Conn, link.Welcome, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	stream, err := s.t.Dial(ctx)
	if err != nil {
		return nil, link.Welcome{}, err
	}
	h := link.Hello{Flags: link.FlagCompressed, Name: c.name}
	if s.gpu != nil {
		h.RenderDev = s.gpu.Dev
	}
	if dev := stream.GPU(); dev != nil {
		gpu.own(dev)
	} else if s.gpu != nil {
		h.Token = gpu.token
	}
	return link.ClientHandshake(ctx, stream, h, s.limits)
}

// clientGPU is a client's open of the GPU's render node, made when it is first needed:
// most clients have shared memory only, and each context costs the host something.
type clientGPU struct {
	path, token string

	mu       sync.Mutex
	dev      *drm.Device
	borrowed bool // the stream's
	closed   bool
	err      error
}

// own makes the GPU be the stream's own context.
func (g *clientGPU) own(dev *drm.Device) { g.dev, g.borrowed = dev, true }

func (g *clientGPU) get() (*drm.Device, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, os.ErrClosed
	}
	if g.dev != nil || g.err != nil {
		return g.dev, g.err
	}
	dev, err := drm.Open(g.path)
	if err == nil {
		if err = dev.Name(g.token); err != nil {
			_ = dev.Close()
		}
	}
	if err != nil {
		g.err = err
		return nil, err
	}
	g.dev = dev
	return dev, nil
}

func (g *clientGPU) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	if g.dev != nil && !g.borrowed {
		_ = g.dev.Close()
	}
}

// sorted returns the clients, oldest first.
func (s *Server) sorted() []*client {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*client, 0, len(s.clients))
	for c := range s.clients {
		list = append(list, c)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].since.Before(list[j].since) })
	return list
}
