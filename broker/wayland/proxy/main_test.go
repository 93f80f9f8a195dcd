package proxy_test

import (
	"testing"

	"go.uber.org/zap/zaptest"

	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy/proxytest"
	"github.com/gpubroker/gpubroker/broker/wayland/waylandtest"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
)

func TestMain(m *testing.M) { fdtest.Main(m) }

// perBuffer is the dialect of gpubroker's own guest end.
var perBuffer = proxy.Dialect{BufferItems: true, Transport: "test", Name: "client", RenderDev: 0xe280, HasClock: true}

// newProxy makes a proxy in front of a compositor.
func newProxy(t testing.TB, c *waylandtest.Compositor, cfg proxy.Config) *proxy.Proxy {
	t.Helper()
	if c != nil {
		cfg.Display = c.Socket()
	}
	cfg.Log = zaptest.NewLogger(t)
	p, err := proxy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func connect(t testing.TB, p *proxy.Proxy) *proxytest.Client {
	t.Helper()
	return proxytest.New(t, p, proxytest.Options{Dialect: perBuffer})
}
