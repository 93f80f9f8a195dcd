package apps

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/gpubroker/gpubroker/broker/link"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
)

func TestMain(m *testing.M) { fdtest.Main(m) }

// patience is how long a test waits for what should happen at once.
const patience = 20 * time.Second

func timeout(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// handlerFunc is a Handler.
type handlerFunc func(ctx context.Context, g proxy.Guest, o proxy.Owner) error

func (f handlerFunc) Serve(ctx context.Context, g proxy.Guest, o proxy.Owner) error {
	return f(ctx, g, o)
}

// discard takes everything from a client until it ends.
func discard(ctx context.Context, g proxy.Guest, _ proxy.Owner) error {
	for {
		c, err := g.Recv(ctx)
		if err != nil {
			return err
		}
		closeItems(c.Items)
	}
}

func start(t testing.TB, cfg Config) *Service {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = zaptest.NewLogger(t)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func dialUnix(t testing.TB, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// client makes the guest's end on a stream.
func client(t testing.TB, rwc io.ReadWriteCloser, token string) *link.Conn {
	t.Helper()
	c, _, err := link.ClientHandshake(timeout(t), rwc, link.Hello{
		Flags: link.FlagCompressed, Token: token, Name: "test client", RenderDev: 57984,
	}, link.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func socketPath(t testing.TB) string { return filepath.Join(t.TempDir(), "s") }

// eventually waits until ok says so.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not after %v", what, patience)
		}
	}
}
