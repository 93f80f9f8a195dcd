package serve_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"testing"

	"go.uber.org/zap/zaptest"

	"github.com/gpubroker/gpubroker/broker/apps"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	guestdisplay "github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/display"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/serve"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/transport"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
)

func TestMain(m *testing.M) { fdtest.Main(m) }

// host is the broker's side of clients, at a socket.
type host struct {
	socket string
	proxy  *proxy.Proxy
	apps   *apps.Service
}

func newHost(t testing.TB, socket, compositor string) *host {
	t.Helper()
	p, err := proxy.New(proxy.Config{Display: compositor})
	if err != nil {
		t.Fatal(err)
	}
	h := &host{socket: socket, proxy: p}
	if h.apps, err = apps.New(apps.Config{Handler: p, Log: zaptest.NewLogger(t), Socket: socket}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.stop)
	return h
}

func (h *host) stop() {
	h.apps.Close()
	h.proxy.Close()
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
	tr, why, err := transport.Open(t.Context(), spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	return serveGuest(t, tr, why)
}

func serveGuest(t testing.TB, tr transport.Transport, why error) *guest {
	t.Helper()
	dir := t.TempDir()
	log := slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
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
