package serve_test

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/apps"
	"github.com/gpubroker/gpubroker/broker/link"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/broker/wayland/waylandtest"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/drm"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/transport"
)

// stream is one without a GPU.
type stream struct{ io.ReadWriteCloser }

func (stream) GPU() *drm.Device { return nil }

// carrier is a transport made of functions.
type carrier struct {
	name string
	dial func(context.Context) (io.ReadWriteCloser, error)
	end  func() error
}

func (c *carrier) Name() string { return c.name }
func (c *carrier) Close() error { return c.end() }
func (c *carrier) Dial(ctx context.Context) (transport.Stream, error) {
	s, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	return stream{s}, nil
}

// TestReasonReachesTheClient: a program that the host ends reads wl_display.error
// before the end of its socket, over each carrier, with both ends in between.
func TestReasonReachesTheClient(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{})
	p, err := proxy.New(proxy.Config{Display: comp.Socket(), Log: zaptest.NewLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s, err := apps.New(apps.Config{Handler: p, Log: zaptest.NewLogger(t),
		Socket: filepath.Join(dir, "unix"), VSock: "unix:" + filepath.Join(dir, "v") + ":7", Serial: filepath.Join(dir, "serial")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(); p.Close() })
	port, err := net.Dial("unix", filepath.Join(dir, "serial"))
	if err != nil {
		t.Fatal(err)
	}
	mux := link.NewMux(context.Background(), port)
	var streams sync.WaitGroup // in contexts
	t.Cleanup(streams.Wait)
	socket := func(name string) func(context.Context) (io.ReadWriteCloser, error) {
		return func(ctx context.Context) (io.ReadWriteCloser, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(dir, name))
		}
	}
	nothing := func() error { return nil }
	for _, c := range []*carrier{
		{"unix", socket("unix"), nothing},
		{"vsock", socket("v_7"), nothing},
		{"virtio-serial", func(ctx context.Context) (io.ReadWriteCloser, error) { return mux.Open(ctx) }, mux.Close},
		// As in a context of the GPU: a write waits for its reader.
		{"cross-domain", func(context.Context) (io.ReadWriteCloser, error) {
			a, b := net.Pipe()
			streams.Go(func() { _ = s.ServeStream(t.Context(), b, apps.TransportCrossDomain, proxy.Owner{Ctx: 5}) })
			return a, nil
		}, nothing},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := serveGuest(t, c, nil)
			for _, idle := range []bool{false, true} {
				hearReason(t, g.display, idle)
			}
		})
	}
}

// hearReason breaks a rule that the host sees to: gpubroker-guest passes it on.
func hearReason(t *testing.T, display string, idle bool) {
	t.Helper()
	conn, err := wire.Dial(display)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	out := &conn.Out
	const registry, callback, shm = 2, 3, 4
	proto.WlDisplay(wire.DisplayID).GetRegistry(out, registry)
	proto.WlDisplay(wire.DisplayID).Sync(out, callback)
	done := false
	read := func(until func(m wire.Message) bool) bool {
		for end := time.Now().Add(patience); time.Now().Before(end); {
			if err := conn.Flush(); err != nil && !errors.Is(err, wire.ErrClosed) {
				t.Fatal(err)
			}
			for {
				m, ok, err := conn.Next()
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					break
				}
				if until(m) {
					return true
				}
			}
			polls := []unix.PollFd{{Fd: int32(conn.FD()), Events: unix.POLLIN}}
			_, _ = unix.Poll(polls, 100)
			if _, err := conn.Receive(); errors.Is(err, wire.ErrClosed) {
				return false
			} else if err != nil {
				t.Fatal(err)
			}
		}
		t.Fatal("nothing comes")
		return false
	}
	if !read(func(m wire.Message) bool {
		done = done || m.Object == callback
		return done
	}) {
		t.Fatal("the end")
	}
	// A global that does not exist is for the host to refuse.
	proto.WlRegistry(registry).Bind(out, 7777, "wl_shm", 1, shm)
	if !idle { // more is on its way, and is not read any more
		for id := range uint32(200) {
			proto.WlDisplay(wire.DisplayID).Sync(out, proto.WlCallback(5+id))
		}
	}
	text := ""
	read(func(m wire.Message) bool {
		if m.Object == wire.DisplayID && m.Opcode == proto.EvWlDisplayError {
			var e proto.WlDisplayErrorEvent
			if err := e.Decode(m); err != nil {
				t.Fatal(err)
			}
			text = e.Message
		}
		return false
	})
	if !strings.Contains(text, "no global 7777") {
		t.Errorf("the client was told %q", text)
	}
}
