package proxytest

import (
	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

// Window is a toplevel of a client.
type Window struct {
	C          *Client
	Compositor proto.WlCompositor
	Shm        proto.WlShm
	Surface    proto.WlSurface
	XDG        proto.XdgSurface
	Top        proto.XdgToplevel
}

// NewWindow makes a toplevel and acknowledges its first configure.
func (c *Client) NewWindow() *Window {
	c.T.Helper()
	w := &Window{C: c}
	v := min(c.Version("wl_compositor"), 6)
	w.Compositor = proto.WlCompositor(c.Bind("wl_compositor", v))
	w.Shm = proto.WlShm(c.Bind("wl_shm", 1))
	wm := proto.XdgWmBase(c.Bind("xdg_wm_base", 1))
	w.Surface = proto.WlSurface(c.NewID(proto.IWlSurface, v))
	w.Compositor.CreateSurface(&c.Out, w.Surface)
	w.XDG = proto.XdgSurface(c.NewID(proto.IXdgSurface, 1))
	wm.GetXdgSurface(&c.Out, w.XDG, w.Surface)
	w.Top = proto.XdgToplevel(c.NewID(proto.IXdgToplevel, 1))
	w.XDG.GetToplevel(&c.Out, w.Top)
	w.Surface.Commit(&c.Out)
	c.Flush()
	c.Eventually("a configure", func() bool { return c.Last(proto.IXdgSurface, proto.EvXdgSurfaceConfigure) != nil })
	var ev proto.XdgSurfaceConfigureEvent
	if err := ev.Decode(c.Last(proto.IXdgSurface, proto.EvXdgSurfaceConfigure).Message); err != nil {
		c.T.Fatal(err)
	}
	w.XDG.AckConfigure(&c.Out, ev.Serial)
	return w
}

// Pool makes a pool. With Dialect.BufferItems it is a number only.
func (w *Window) Pool(size int32) proto.WlShmPool {
	pool := proto.WlShmPool(w.C.NewID(proto.IWlShmPool, 1))
	out := &w.C.Out
	out.Begin(wire.ID(w.Shm), proto.OpWlShmCreatePool)
	out.Object(wire.ID(pool))
	out.Int(size)
	out.End()
	return pool
}

// Buffer makes a buffer of w x h pixels of 4 bytes in a pool of its own; it is the
// item's memory.
func (w *Window) Buffer(it proxy.Item, width, height int32, format proto.WlShmFormat) proto.WlBuffer {
	pool := w.Pool(width * height * 4)
	b := proto.WlBuffer(w.C.NewID(proto.IWlBuffer, 1))
	pool.CreateBuffer(&w.C.Out, b, 0, width, height, width*4, format)
	w.C.Item(it)
	pool.Destroy(&w.C.Out)
	return b
}

// Fill sends an update that makes a rectangle of a buffer one colour.
func (w *Window) Fill(b proto.WlBuffer, r display.Rect, v uint32) {
	px := make([]byte, 0, r.W*r.H*4)
	for range r.W * r.H {
		px = append(px, byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
	}
	w.C.Flush()
	w.C.Chunk(proxy.Chunk{Update: &proxy.Update{Buffer: uint32(b), Rect: r, Pixels: px}})
}

// Show attaches a buffer, damages all of it and commits.
func (w *Window) Show(b proto.WlBuffer) {
	out := &w.C.Out
	w.Surface.Attach(out, b, 0, 0)
	w.Surface.Damage(out, 0, 0, 1<<30, 1<<30)
	w.Surface.Commit(out)
}

// ParamsAdd writes zwp_linux_buffer_params_v1.add of a resource.
func (c *Client) ParamsAdd(p proto.ZwpLinuxBufferParamsV1, it proxy.Item, plane, offset, stride uint32, modifier uint64) {
	out := &c.Out
	out.Begin(wire.ID(p), proto.OpZwpLinuxBufferParamsV1Add)
	out.Uint(plane)
	out.Uint(offset)
	out.Uint(stride)
	out.Uint(uint32(modifier >> 32))
	out.Uint(uint32(modifier))
	out.End()
	c.Item(it)
}
