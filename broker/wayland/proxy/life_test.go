package proxy_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy/proxytest"
	"github.com/gpubroker/gpubroker/broker/wayland/waylandtest"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
)

// TestSparseIDs: a guest's end that keeps objects for itself uses ids with gaps; the
// compositor's stay dense, which the fake one does not insist on but libwayland does.
func TestSparseIDs(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{})
	c := connect(t, newProxy(t, comp, proxy.Config{}))
	for i := range uint32(100) {
		id := wire.ID(0xfeffffff - i*1000)
		c.Adopt(id, proto.IWlCallback, 1)
		proto.WlDisplay(wire.DisplayID).Sync(&c.Out, proto.WlCallback(id))
	}
	c.Roundtrip()
	if n := c.Count(proto.IWlCallback, proto.EvWlCallbackDone); n != 102 {
		t.Errorf("%d callbacks, want 102", n)
	}
	if id := comp.HighestID(); id > 120 {
		t.Errorf("the compositor saw id %d", id)
	}
}

// TestIDsAreReused runs long enough for ids to be given back.
func TestIDsAreReused(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{})
	c := connect(t, newProxy(t, comp, proxy.Config{}))
	w := c.NewWindow()
	b := w.Buffer(proxy.Item{Kind: proxy.ItemMemory}, 8, 8, proto.WlShmFormatXrgb8888)
	for range 300 {
		w.Surface.Frame(&c.Out, proto.WlCallback(c.NewID(proto.IWlCallback, 1)))
		w.Show(b)
		r := proto.WlRegion(c.NewID(proto.IWlRegion, 6))
		w.Compositor.CreateRegion(&c.Out, r)
		w.Surface.SetOpaqueRegion(&c.Out, r)
		r.Destroy(&c.Out)
		b2 := w.Buffer(proxy.Item{Kind: proxy.ItemMemory}, 8, 8, proto.WlShmFormatXrgb8888)
		w.Show(b2)
		b2.Destroy(&c.Out)
		c.Roundtrip()
	}
	if id := comp.HighestID(); id > 60 {
		t.Errorf("the compositor saw id %d", id)
	}
}

// TestSplitMessages brings a stream byte by byte.
func TestSplitMessages(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{})
	c := connect(t, newProxy(t, comp, proxy.Config{}))
	w := c.NewWindow()
	w.Top.SetTitle(&c.Out, "in pieces")
	w.Surface.Commit(&c.Out)
	data := append([]byte(nil), c.Out.Unsent()...)
	c.Out.Reset()
	for i := range data {
		c.Chunk(proxy.Chunk{Data: data[i : i+1]})
	}
	c.Roundtrip()
	if all := comp.Commits(); all[len(all)-1].Title != "in pieces" {
		t.Errorf("%+v", all[len(all)-1])
	}
}

// TestCompositorGone ends the clients; the next ones connect anew.
func TestCompositorGone(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{})
	p := newProxy(t, comp, proxy.Config{})
	c, idle := connect(t, p), connect(t, p)
	c.NewWindow()
	comp.Kill()
	for _, c := range []*proxytest.Client{c, idle} {
		if err := c.Wait(); !errors.Is(err, proxy.ErrCompositor) {
			t.Errorf("error %v", err)
		}
	}
	connect(t, p).NewWindow()
}

// TestNoCompositor is an error at once.
func TestNoCompositor(t *testing.T) {
	p := newProxy(t, nil, proxy.Config{Display: "/nowhere/wayland-0"})
	c := proxytest.Dial(t, p, proxytest.Options{Dialect: perBuffer})
	if err := c.Wait(); !errors.Is(err, proxy.ErrCompositor) || !strings.Contains(err.Error(), "/nowhere/wayland-0") {
		t.Errorf("error %v", err)
	}
}

// TestRubbishFromTheCompositor ends the client with a reason.
func TestRubbishFromTheCompositor(t *testing.T) {
	for name, raw := range map[string][]byte{
		"size":        header(1, 3, 0),
		"object":      header(77, 8, 0),
		"opcode":      header(1, 8, 9),
		"delete_id":   append(header(1, 12, 1), 200, 0, 0, 0),
		"delete_id 1": append(header(1, 12, 1), 1, 0, 0, 0),
		"arguments":   append(header(1, 12, 0), 1, 0, 0, 0),
	} {
		comp := waylandtest.New(t, waylandtest.Config{})
		c := connect(t, newProxy(t, comp, proxy.Config{}))
		comp.SendRaw(raw)
		if err := c.Wait(); !errors.Is(err, proxy.ErrCompositor) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// TestClose ends everything, waiting or not, and leaves nothing.
func TestClose(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{})
	comp.Sandboxes()
	goroutines, fds := runtime.NumGoroutine(), fdtest.Count(t)
	res := proxytest.NewResources()
	p, err := proxy.New(proxy.Config{Display: comp.Socket(), Resources: res, Limits: proxy.Limits{ParkTime: proxy.Duration(time.Hour)}})
	if err != nil {
		t.Fatal(err)
	}
	idle, waiting, stalled := connect(t, p), connect(t, p), connect(t, p)
	w := waiting.NewWindow()
	w.Buffer(proxy.Item{Kind: proxy.ItemResource, Device: proxy.DeviceImport, Resource: 7}, 8, 8, proto.WlShmFormatXrgb8888)
	waiting.Flush()
	stalled.Stall(true)
	proto.WlDisplay(wire.DisplayID).Sync(&stalled.Out, proto.WlCallback(stalled.NewID(proto.IWlCallback, 1)))
	stalled.Flush()
	p.Close()
	p.Close()
	for _, c := range []*proxytest.Client{idle, waiting, stalled} {
		if err := c.Wait(); err == nil {
			t.Error("a client ended in an orderly way")
		}
		c.Leave()
	}
	late := proxytest.Dial(t, p, proxytest.Options{Dialect: perBuffer})
	if err := late.Wait(); !errors.Is(err, proxy.ErrClosed) {
		t.Errorf("a late client: %v", err)
	}
	waylandtest.Eventually(t, "goroutines and descriptors are gone", func() bool {
		comp.Sandboxes()
		return runtime.NumGoroutine() <= goroutines && fdtest.Count(t) <= fds
	})
}

// TestServeContext ends with its context.
func TestServeContext(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{})
	p := newProxy(t, comp, proxy.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- p.Serve(ctx, proxytest.NewGuest(perBuffer), proxy.Owner{}) }()
	waylandtest.Eventually(t, "a client", func() bool { return comp.Accepted() == 2 }) // the first asks for security contexts
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestClientLimit(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{})
	p := newProxy(t, comp, proxy.Config{Limits: proxy.Limits{Clients: 2}})
	first := connect(t, p)
	connect(t, p)
	c := proxytest.Dial(t, p, proxytest.Options{Dialect: perBuffer})
	if err := c.Wait(); !errors.Is(err, proxy.ErrQuota) || !strings.Contains(err.Error(), "clients 3, limit 2") {
		t.Errorf("error %v", err)
	}
	first.Leave()
	connect(t, p)
}

// TestSlowGuest: what the compositor says waits for a guest that does not read,
// bounded, and then all of it arrives; another guest is not kept.
func TestSlowGuest(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{Seat: true})
	p := newProxy(t, comp, proxy.Config{Limits: proxy.Limits{Backlog: 4096}})
	c, other := connect(t, p), connect(t, p)
	proto.WlSeat(c.Bind("wl_seat", 5)).GetPointer(&c.Out, proto.WlPointer(c.NewID(proto.IWlPointer, 5)))
	c.Roundtrip()
	c.Stall(true)
	const n = 20000
	for range n / 1000 {
		comp.Input(func(d waylandtest.Devices) {
			for i := range uint32(1000) {
				d.Pointer.SendMotion(d.Out, i, 1, 2)
			}
		})
	}
	other.Roundtrip()
	c.Stall(false)
	c.Eventually("all motion", func() bool { return c.Count(proto.IWlPointer, proto.EvWlPointerMotion) == n })

	// The same of the guest's own making: answers that it does not read.
	c.Stall(true)
	sent := make(chan int)
	go func() {
		i := 0
		for ; i < 2000; i++ {
			g := c.NewID(proto.IWlRegistry, 1)
			proto.WlDisplay(wire.DisplayID).GetRegistry(&c.Out, proto.WlRegistry(g))
			data := append([]byte(nil), c.Out.Unsent()...)
			c.Out.Reset()
			if !c.Try(proxy.Chunk{Data: data}, time.Second) {
				break
			}
		}
		sent <- i
	}()
	if i := <-sent; i > 500 {
		t.Errorf("%d registries were served to a guest that does not read", i)
	}
	c.Stall(false)
}

// TestSlowCompositor: what the guest says waits for a compositor that does not read.
func TestSlowCompositor(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{})
	p := newProxy(t, comp, proxy.Config{Limits: proxy.Limits{Backlog: 4096}})
	c := connect(t, p)
	w := c.NewWindow()
	comp.Freeze()
	frozen := false
	n := 0
	for ; n < 100000 && !frozen; n++ {
		for range 20 {
			w.Surface.Damage(&c.Out, 0, 0, 1, 1)
		}
		data := append([]byte(nil), c.Out.Unsent()...)
		c.Out.Reset()
		frozen = !c.Try(proxy.Chunk{Data: data}, time.Second)
	}
	if !frozen {
		t.Error("the guest was never made to wait")
	}
	comp.Thaw()
	c.Roundtrip()
}

// TestSecurityContext: clients come by the VM's own listener, also after a
// compositor's restart, and none without contexts.
func TestSecurityContext(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{Security: true})
	p := newProxy(t, comp, proxy.Config{VMName: "a vm", VMID: "1234"})
	connect(t, p)
	connect(t, p)
	want := waylandtest.Sandbox{Engine: "gpubroker", App: "a vm", Instance: "1234"}
	if got := comp.Sandboxes(); len(got) != 2 || got[0] != want || got[1] != want {
		t.Errorf("sandboxes %+v", got)
	}
	if n := comp.Listeners(); n != 1 {
		t.Errorf("%d contexts, want 1 of the VM", n)
	}
	p.Close()
	waylandtest.Eventually(t, "the context has ended", func() bool { return comp.Listeners() == 0 })

	policy := proxy.DefaultPolicy()
	policy.SecurityContext = false
	connect(t, newProxy(t, comp, proxy.Config{Policy: policy}))
	if got := comp.Sandboxes(); len(got) != 0 {
		t.Errorf("sandboxes %+v", got)
	}

	second, err := waylandtest.Listen(comp.Socket()+"2", waylandtest.Config{Security: true})
	if err != nil {
		t.Fatal(err)
	}
	p = newProxy(t, nil, proxy.Config{Display: second.Socket()})
	connect(t, p)
	second.Close()
	second, err = waylandtest.Listen(comp.Socket()+"2", waylandtest.Config{Security: true})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	connect(t, p)
	if got := second.Sandboxes(); len(got) != 1 || got[0].Engine != "gpubroker" {
		t.Errorf("after a restart: %+v", got)
	}
}

// TestPoolDialect speaks as cross-domain clients do, whose pools are blobs.
func TestPoolDialect(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{ShmFormats: nil})
	res := proxytest.NewResources()
	p := newProxy(t, comp, proxy.Config{Resources: res})
	open := func() (*proxytest.Client, *proxytest.Window) {
		c := proxytest.New(t, p, proxytest.Options{Dialect: proxy.Dialect{Transport: "cross-domain"}})
		return c, c.NewWindow()
	}
	c, w := open()
	res.AddBlob(t, 9, 8192)
	item := proxy.Item{Kind: proxy.ItemResource, Device: proxy.DeviceImport, Resource: 9}
	pool := w.Pool(4096)
	c.Item(item)
	pool.Resize(&c.Out, 8192)
	for i := range int32(2) {
		b := proto.WlBuffer(c.NewID(proto.IWlBuffer, 1))
		pool.CreateBuffer(&c.Out, b, i*4096, 16, 16, 64, proto.WlShmFormatXrgb8888)
		w.Show(b)
		b.Destroy(&c.Out)
	}
	pool.Destroy(&c.Out)
	c.Roundtrip()
	waylandtest.Eventually(t, "the shown buffer alone is left", func() bool { return comp.Buffers() == 1 })
	if ws := p.Windows(); ws[0].Frames["shared"] != 2 || ws[0].Transport != "cross-domain" {
		t.Errorf("windows: %+v", ws)
	}
	for name, bad := range map[string]func(c *proxytest.Client, w *proxytest.Window){
		"has 8192": func(c *proxytest.Client, w *proxytest.Window) { w.Pool(8193); c.Item(item) },
		"resource has 8192": func(c *proxytest.Client, w *proxytest.Window) {
			pool := w.Pool(8192)
			c.Item(item)
			pool.Resize(&c.Out, 8193)
		},
		"want a resource": func(c *proxytest.Client, w *proxytest.Window) {
			w.Pool(4096)
			c.Item(proxy.Item{Kind: proxy.ItemMemory})
		},
		"the pool has 4096": func(c *proxytest.Client, w *proxytest.Window) {
			pool := w.Pool(4096)
			c.Item(item)
			pool.CreateBuffer(&c.Out, proto.WlBuffer(c.NewID(proto.IWlBuffer, 1)), 1, 16, 16, 256, 1)
		},
		"0 came": func(_ *proxytest.Client, w *proxytest.Window) { w.Pool(4096) },
	} {
		c, w := open()
		bad(c, w)
		if c.Flush() && c.Sync() {
			t.Errorf("%s: the client goes on", name)
		}
		if s := c.DisplayError(); !strings.Contains(s, name) {
			t.Errorf("%s: the client was told %q", name, s)
		}
		c.Leave()
	}
	c.Leave()
	if n := res.OpenCount(); n != 0 {
		t.Errorf("%d resources still open", n)
	}
}

// TestParkedResource: a stream that is faster than the control queue waits.
func TestParkedResource(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{})
	res := proxytest.NewResources()
	p := newProxy(t, comp, proxy.Config{Resources: res})
	c, other := connect(t, p), connect(t, p)
	w := c.NewWindow()
	w.Show(w.Buffer(proxy.Item{Kind: proxy.ItemResource, Device: proxy.DeviceImport, Resource: 7}, 8, 8, proto.WlShmFormatXrgb8888))
	c.Flush()
	other.Roundtrip()
	if n := len(comp.Frames()); n != 0 {
		t.Fatalf("%d frames of a resource that does not exist", n)
	}
	res.AddBlob(t, 7, 4096)
	c.Roundtrip()
	if n := len(comp.Frames()); n != 1 {
		t.Errorf("%d frames", n)
	}
}

// TestSubsurfacesCount for the window that they are part of.
func TestSubsurfacesCount(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{})
	p := newProxy(t, comp, proxy.Config{})
	c := connect(t, p)
	w := c.NewWindow()
	child := proto.WlSurface(c.NewID(proto.IWlSurface, 6))
	w.Compositor.CreateSurface(&c.Out, child)
	sub := proto.WlSubsurface(c.NewID(proto.IWlSubsurface, 1))
	proto.WlSubcompositor(c.Bind("wl_subcompositor", 1)).GetSubsurface(&c.Out, sub, child, w.Surface)
	b := w.Buffer(proxy.Item{Kind: proxy.ItemMemory}, 4, 4, proto.WlShmFormatXrgb8888)
	child.Attach(&c.Out, b, 0, 0)
	child.Commit(&c.Out)
	b2 := w.Buffer(proxy.Item{Kind: proxy.ItemMemory}, 8, 8, proto.WlShmFormatXrgb8888)
	w.Show(b2)
	c.Roundtrip()
	if ws := p.Windows(); len(ws) != 1 || ws[0].Frames["shm"] != 2 {
		t.Errorf("windows: %+v", ws)
	}
	w.Top.Destroy(&c.Out)
	w.XDG.Destroy(&c.Out)
	w.Surface.Destroy(&c.Out)
	c.Roundtrip()
	if ws := p.Windows(); len(ws) != 0 {
		t.Errorf("windows: %+v", ws)
	}
}
