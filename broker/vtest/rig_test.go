package vtest_test

import (
	"context"
	"path/filepath"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/vtest/vtesttest"
	"github.com/gpubroker/gpubroker/virgl/virgltest"
)

// rig is a server over a fake renderer.
type rig struct {
	*testing.T
	path string
	fake *virgltest.Fake
	loop *broker.Loop
	srv  *broker.Vtest
	logs *observer.ObservedLogs
}

type rigConfig struct {
	fake    virgltest.Config
	limits  broker.Limits
	clients int
	misuse  bool // what the renderer refuses is expected
}

func newRig(t *testing.T, cfg rigConfig) *rig {
	t.Helper()
	core, logs := observer.New(zapcore.InfoLevel)
	r := &rig{T: t, path: filepath.Join(t.TempDir(), "vtest"), logs: logs}
	var err error
	if r.loop, err = broker.NewLoop(); err != nil {
		t.Fatal(err)
	}
	relay := &broker.FenceRelay{}
	cfg.fake.OnFence = relay.Signal
	if r.fake, err = virgltest.New(cfg.fake); err != nil {
		t.Fatal(err)
	}
	r.srv, err = broker.ListenVtest(broker.VtestConfig{
		Path: r.path, Loop: r.loop, Renderer: r.fake, Fences: relay, Limits: cfg.limits, Clients: cfg.clients, Log: zap.New(core),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.srv.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := r.srv.Close(); err != nil {
			t.Error(err)
		}
		var contexts, resources int
		r.loop.Call(func() {
			st := r.fake.Stats()
			contexts, resources = st.Contexts, st.Resources
			_ = r.fake.Close()
		})
		if contexts+resources > 0 {
			t.Errorf("%d contexts and %d resources are left in the renderer", contexts, resources)
		}
		_ = r.loop.Close()
		for _, m := range r.fake.Misuse() {
			if !cfg.misuse {
				t.Error("renderer misused:", m)
			}
		}
	})
	return r
}

// dial connects a client that ends with the test.
func (r *rig) dial(name string, version uint32) *vtesttest.Client {
	r.Helper()
	c, err := vtesttest.Dial(r.path, name, version)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = c.Close() })
	return c
}

func (r *rig) texture(c *vtesttest.Client, w, h uint32) *vtesttest.Resource {
	r.Helper()
	x, err := c.Texture(w, h)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(x.Close)
	return x
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func must[V any](v V, err error) func(t testing.TB) V {
	return func(t testing.TB) V {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
