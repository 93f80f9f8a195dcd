package proxy_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy/proxytest"
	"github.com/gpubroker/gpubroker/broker/wayland/waylandtest"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

// TestErrorBehindEvents: a guest that reads slowly gets everything that the compositor
// sent before its client broke the rules, and then why it ends.
func TestErrorBehindEvents(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{})
	c := connect(t, newProxy(t, comp, proxy.Config{}))
	c.Stall(true)
	var last wire.ID
	for range 50 {
		last = c.NewID(proto.IWlCallback, 1)
		proto.WlDisplay(wire.DisplayID).Sync(&c.Out, proto.WlCallback(last))
	}
	c.Flush()
	time.Sleep(50 * time.Millisecond) // the answers are on their way
	c.Out.Begin(4242, 0)
	c.Out.End()
	c.Flush()
	time.Sleep(50 * time.Millisecond) // the client has ended
	c.Stall(false)
	if err := c.Wait(); !errors.Is(err, proxy.ErrProtocol) {
		t.Errorf("error %v", err)
	}
	if c.Sync() {
		t.Fatal("the client goes on")
	}
	if n := c.Count(proto.IWlCallback, proto.EvWlCallbackDone); n != 51 { // and one of connect
		t.Errorf("%d callbacks, want 51", n)
	}
	if s := c.DisplayError(); !strings.Contains(s, "object 4242") {
		t.Errorf("the client was told %q", s)
	}
}

// TestNobodyReads: a guest that does not read holds up the end of its client for a
// moment only.
func TestNobodyReads(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{})
	c := connect(t, newProxy(t, comp, proxy.Config{}))
	c.Stall(true)
	proto.WlDisplay(wire.DisplayID).Sync(&c.Out, proto.WlCallback(c.NewID(proto.IWlCallback, 1)))
	c.Out.Begin(4242, 0)
	c.Out.End()
	c.Flush()
	if err := c.Wait(); !errors.Is(err, proxy.ErrProtocol) {
		t.Errorf("error %v", err)
	}
}

// TestReasons: whatever ends a client is said in the words that every client
// understands, once.
func TestReasons(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{})
	p := newProxy(t, comp, proxy.Config{Limits: proxy.Limits{Clients: 1}})
	served := connect(t, p)
	turned := proxytest.Dial(t, p, proxytest.Options{Dialect: perBuffer})
	lost := proxytest.Dial(t, newProxy(t, nil, proxy.Config{Display: "/nowhere/wayland-0"}), proxytest.Options{Dialect: perBuffer})
	if turned.Wait() == nil { // before there is room for it
		t.Fatal("a client too many is served")
	}
	comp.Kill()
	for want, c := range map[string]*proxytest.Client{"clients 2, limit 1": turned, "/nowhere/wayland-0": lost, "closed the connection": served} {
		if c.Wait() == nil || c.Sync() {
			t.Fatal("the client goes on")
		}
		if s := c.DisplayError(); !strings.Contains(s, want) {
			t.Errorf("the client was told %q, want %q in it", s, want)
		}
		if n := c.Count(proto.IWlDisplay, proto.EvWlDisplayError); n != 1 {
			t.Errorf("%q: told %d times", want, n)
		}
	}
}
