package link

import (
	"context"
	"net"
	"testing"
	"time"

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

// sockets returns two connected sockets.
func sockets(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: t.TempDir() + "/s", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr)); err != nil {
		t.Fatal(err)
	}
	if b, err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func admit(*Hello) (uint16, error) { return FlagGPUResources, nil }

// pair returns the two ends of a connection after the handshake.
func pair(t testing.TB, hostLimits Limits) (guest, host *Conn) {
	t.Helper()
	a, b := sockets(t)
	return join(t, a, b, hostLimits)
}

func join(t testing.TB, a, b net.Conn, hostLimits Limits) (guest, host *Conn) {
	t.Helper()
	ctx := timeout(t)
	type result struct {
		c   *Conn
		h   Hello
		err error
	}
	served := make(chan result, 1)
	go func() {
		c, h, err := ServerHandshake(ctx, b, hostLimits, admit)
		served <- result{c, h, err}
	}()
	guest, w, err := ClientHandshake(ctx, a, Hello{Flags: FlagCompressed, Token: "token", Name: "test", RenderDev: 57984}, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { guest.Close() })
	r := <-served
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { r.c.Close() })
	if w.Version != Version || w.Flags != FlagCompressed|FlagGPUResources {
		t.Fatalf("welcome %+v", w)
	}
	if r.h.Token != "token" || r.h.Name != "test" || r.h.RenderDev != 57984 || r.h.Clock == 0 {
		t.Fatalf("hello %+v", r.h)
	}
	return guest, r.c
}

// keepReceiving reads a connection until it ends and leaves the error in the channel.
func keepReceiving(t testing.TB, c *Conn) <-chan error {
	end := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if _, err := c.Recv(); err != nil {
				end <- err
				return
			}
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return end
}
