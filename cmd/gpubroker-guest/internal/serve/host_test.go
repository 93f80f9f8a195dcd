package serve_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/link"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	guestdisplay "github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/display"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/serve"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/transport"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
)

func TestMain(m *testing.M) { fdtest.Main(m) }

// linkGuest is a link as the host's proxy sees it.
type linkGuest struct {
	conn  *link.Conn
	hello link.Hello
}

func (g *linkGuest) Dialect() proxy.Dialect {
	offset, _, ok := g.conn.Clock()
	return proxy.Dialect{BufferItems: true, RenderDev: g.hello.RenderDev, ClockOffset: offset, HasClock: ok,
		Transport: "unix", Name: g.hello.Name}
}

func (g *linkGuest) Recv(context.Context) (proxy.Chunk, error) {
	f, err := g.conn.Recv()
	if err != nil {
		return proxy.Chunk{}, err
	}
	if f.Type == link.TypeUpdate {
		var u link.Update
		if err := u.Decode(f.Payload); err != nil {
			return proxy.Chunk{}, err
		}
		pixels, err := u.Unpack(nil)
		return proxy.Chunk{Update: &proxy.Update{Buffer: u.Buffer, Rect: display.Rect{X: u.X, Y: u.Y, W: u.W, H: u.H}, Pixels: pixels}}, err
	}
	items, data, err := link.DecodeWayland(f.Payload, link.Guest, nil)
	if err != nil {
		return proxy.Chunk{}, err
	}
	c := proxy.Chunk{Data: data}
	for _, it := range items {
		p := proxy.Item{Kind: proxy.ItemKind(it.Kind), Device: proxy.DeviceID(it.Device), Resource: it.ID, Offset: it.Offset, Bytes: it.Bytes}
		if it.Kind == link.ItemPipe {
			if p.FD, err = g.conn.AcceptPipe(it.ID); err != nil {
				return proxy.Chunk{}, err
			}
		}
		c.Items = append(c.Items, p)
	}
	return c, nil
}

func (g *linkGuest) Send(_ context.Context, c proxy.Chunk) error {
	var items []link.Item
	for i := range c.Items {
		it := link.Item{Kind: link.ItemKind(c.Items[i].Kind), Bytes: c.Items[i].Bytes}
		if it.Kind == link.ItemPipe {
			id, err := g.conn.NamePipe(c.Items[i].FD)
			if err != nil {
				return err
			}
			it.ID = id
		}
		items = append(items, it)
	}
	return g.conn.WriteWayland(items, c.Data)
}

func (g *linkGuest) Fail(err error) { g.conn.Fail(err) }
func (g *linkGuest) Close() error   { return g.conn.Close() }

// host is the broker's side of clients, at a socket.
type host struct {
	socket string
	proxy  *proxy.Proxy
	l      net.Listener
	wg     sync.WaitGroup
}

func newHost(t testing.TB, socket, compositor string) *host {
	t.Helper()
	p, err := proxy.New(proxy.Config{Display: compositor})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	h := &host{socket: socket, proxy: p, l: l}
	h.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			h.wg.Go(func() { h.serve(c) })
		}
	})
	t.Cleanup(h.stop)
	return h
}

func (h *host) serve(c net.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, hello, err := link.ServerHandshake(ctx, c, link.Limits{}, func(*link.Hello) (uint16, error) { return 0, nil })
	if err != nil {
		return
	}
	_ = h.proxy.Serve(context.Background(), &linkGuest{conn, hello}, proxy.Owner{Token: hello.Token})
	_ = conn.Close()
}

func (h *host) stop() {
	_ = h.l.Close()
	h.proxy.Close()
	h.wg.Wait()
}

// guest is a served display.
type guest struct {
	display string
	server  *serve.Server
	cancel  context.CancelFunc
	done    chan error
}

func newGuest(t testing.TB, spec string) *guest {
	t.Helper()
	dir := t.TempDir()
	log := slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	tr, why, err := transport.Open(t.Context(), spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := guestdisplay.Listen(filepath.Join(dir, "wayland-guest"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := &guest{display: l.Path(), server: serve.New(tr, why, nil, log), cancel: cancel, done: make(chan error, 2)}
	go func() { g.done <- g.server.Serve(ctx, l) }()
	go func() { g.done <- g.server.ServeStatus(ctx, g.display) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-g.done; err != nil {
				t.Error(err)
			}
		}
		if err := g.server.Close(); err != nil && !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	})
	return g
}

// testWriter logs for a test.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}
