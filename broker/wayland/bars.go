package wayland

import (
	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
)

// bars fill a window beside a picture of another shape: a black pixel on a
// sub-surface below the picture, scaled to the window. The picture stays on the
// window's own surface, where compositors scan it out directly.
type bars struct {
	win      *window
	surface  proto.WlSurface
	sub      proto.WlSubsurface
	viewport proto.WpViewport
	wl       proto.WlBuffer
	shown    bool
}

// event ignores what the surface hears; the type leads from it to the window.
func (*bars) event(wire.ID, proto.InterfaceID, wire.Message) error { return nil }

// updateBars shows, moves or hides the bars; the window's next commit applies it.
func (win *window) updateBars(p placement) {
	b, out := win.bars, win.se.out()
	if !p.bars {
		if b != nil && b.shown {
			b.surface.Attach(out, 0, 0, 0)
			b.surface.Commit(out)
			b.shown = false
		}
		return
	}
	if b == nil {
		if b = win.newBars(); b == nil {
			return
		}
		win.bars = b
	}
	b.sub.SetPosition(out, -p.x, -p.y)
	b.viewport.SetDestination(out, int32(p.win.w), int32(p.win.h))
	if !b.shown {
		b.surface.Attach(out, b.wl, 0, 0)
		b.surface.DamageBuffer(out, 0, 0, 1, 1)
		b.shown = true
	}
	b.surface.Commit(out)
}

func (win *window) newBars() *bars {
	se, out := win.se, win.se.out()
	if se.subcompositor == 0 {
		return nil // the compositor fills what the picture leaves
	}
	mem, err := shmfallback.Alloc(1, 1, dmabuf.XRGB8888, "gpubroker bars") // zeros are black
	if err == nil {
		defer mem.Release()
	}
	var fd *dmabuf.FD
	if err == nil {
		fd, err = mem.Planes[0].FD.Dup()
	}
	if err != nil {
		se.s.log.Warn("cannot fill the window beside the picture", zap.Int("head", win.h.n), zap.Error(err))
		return nil
	}
	b := &bars{win: win}
	pool := proto.WlShmPool(se.objs.add(proto.IWlShmPool, ignore{}))
	se.shm.CreatePool(out, pool, fd, int32(mem.Size(0)))
	b.wl = proto.WlBuffer(se.objs.add(proto.IWlBuffer, b)) // its release means nothing, it never changes
	pool.CreateBuffer(out, b.wl, 0, 1, 1, int32(mem.Planes[0].Stride), proto.WlShmFormatXrgb8888)
	pool.Destroy(out)
	se.objs.destroyed(wire.ID(pool))
	b.surface = proto.WlSurface(se.objs.add(proto.IWlSurface, b))
	se.compositor.CreateSurface(out, b.surface)
	b.sub = proto.WlSubsurface(se.objs.add(proto.IWlSubsurface, b))
	se.subcompositor.GetSubsurface(out, b.sub, b.surface, win.surface)
	b.sub.PlaceBelow(out, win.surface)
	b.viewport = proto.WpViewport(se.objs.add(proto.IWpViewport, b))
	se.viewporter.GetViewport(out, b.viewport, b.surface)
	return b
}

func (b *bars) destroy() {
	out, objs := b.win.se.out(), b.win.se.objs
	b.viewport.Destroy(out)
	objs.destroyed(wire.ID(b.viewport))
	b.sub.Destroy(out)
	objs.destroyed(wire.ID(b.sub))
	b.surface.Destroy(out)
	objs.destroyed(wire.ID(b.surface))
	b.wl.Destroy(out)
	objs.destroyed(wire.ID(b.wl))
}
