package wayland

import (
	"time"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// callbackTime is how long a commit waits for the frame callback of the one
// before it. A hidden window gets no callbacks; its frames still have to move
// now and then, so that superseded buffers come back.
const callbackTime = 250 * time.Millisecond

// window is a head's xdg_toplevel on one connection.
type window struct {
	se       *session
	h        *head
	surface  proto.WlSurface
	xdg      proto.XdgSurface
	toplevel proto.XdgToplevel
	deco     proto.ZxdgToplevelDecorationV1
	viewport proto.WpViewport
	cursor   *cursorSurface // made when the guest first shows a cursor

	bars       *bars // made when the picture first leaves room
	scaling    scaling
	sizing     sizing
	sync       windowSync
	configured bool
	callback   wire.ID // outstanding wl_surface.frame, 0 if none
	callbackAt int64   // when it was asked for

	current *imported
	picture extent // of the scanout, in pixels
	// What was last committed, to send only what changes.
	placed    placement
	limits    [2]extent    // least and largest size
	dest      extent       // viewport destination, empty if unset
	crop      display.Rect // viewport source, empty if unset
	transform proto.WlOutputTransform
	opaque    bool
	blank     bool // shows a disabled head, without its cursor
}

// newWindow makes the window and commits it without a picture, which asks the
// compositor for its first configure (xdg_surface).
func (se *session) newWindow(h *head, w, height uint32) *window {
	win := &window{se: se, h: h}
	out := se.out()
	win.surface = proto.WlSurface(se.objs.add(proto.IWlSurface, win))
	se.compositor.CreateSurface(out, win.surface)
	win.xdg = proto.XdgSurface(se.objs.add(proto.IXdgSurface, win))
	se.wm.GetXdgSurface(out, win.xdg, win.surface)
	win.toplevel = proto.XdgToplevel(se.objs.add(proto.IXdgToplevel, win))
	win.xdg.GetToplevel(out, win.toplevel)
	win.toplevel.SetTitle(out, se.s.cfg.title(h.n))
	win.toplevel.SetAppId(out, se.s.cfg.appID(h.n))
	if se.s.cfg.Fullscreen {
		win.toplevel.SetFullscreen(out, 0)
	}
	if se.decorations != 0 {
		win.deco = proto.ZxdgToplevelDecorationV1(se.objs.add(proto.IZxdgToplevelDecorationV1, win))
		se.decorations.GetToplevelDecoration(out, win.deco, win.toplevel)
		win.deco.SetMode(out, proto.ZxdgToplevelDecorationV1ModeServerSide)
	}
	if se.viewporter != 0 {
		win.viewport = proto.WpViewport(se.objs.add(proto.IWpViewport, win))
		se.viewporter.GetViewport(out, win.viewport, win.surface)
	}
	if se.fractional != 0 {
		win.scaling.fractional = proto.WpFractionalScaleV1(se.objs.add(proto.IWpFractionalScaleV1, win))
		se.fractional.GetFractionalScale(out, win.scaling.fractional, win.surface)
	}
	win.picture = extent{w, height}
	win.placed.bufferScale = 1
	win.arrange()
	win.surface.Commit(out)
	// A new window knows nothing of the cursor.
	h.cursor.picture, h.cursor.moved = true, true
	return win
}

func (win *window) event(id wire.ID, iface proto.InterfaceID, m wire.Message) error {
	switch iface {
	case proto.IWlCallback:
		if id == win.callback {
			win.callback = 0
			win.taken()
		}
	case proto.IXdgSurface:
		var ev proto.XdgSurfaceConfigureEvent
		if err := ev.Decode(m); err != nil {
			return err
		}
		win.xdg.AckConfigure(win.se.out(), ev.Serial)
		win.applyConfigure()
		win.configured = true
	case proto.IXdgToplevel:
		return win.toplevelEvent(m)
	case proto.IWlSurface, proto.IWpFractionalScaleV1:
		return win.scaleEvent(iface, m)
	}
	return nil
}

// update says to the compositor what is new for the head.
func (se *session) update(h *head) {
	l := se.l
	if se.conn.Out.Pending() > lowWater {
		return // the loop turns again when the socket takes more
	}
	if h.blankAt != 0 {
		if l.now >= h.blankAt {
			h.blankAt = 0
			h.closeWindow(se.s)
			return
		}
		l.wakeAt(h.blankAt)
	}
	f := &h.next
	if h.hidden && f.buf != nil {
		if (extent{f.src.W, f.src.H}) == h.hiddenAt {
			h.shelve(se.s)
			return
		}
		h.hidden = false
	}
	if h.win == nil {
		if f.buf != nil {
			h.win = se.newWindow(h, f.src.W, f.src.H)
		}
		return
	}
	win := h.win
	imp := se.nextImport(h)
	if !win.configured {
		return
	}
	win.updateMode()
	moved := win.current != nil && win.layout() != win.placed
	if imp == nil && !moved && !(win.current != nil && h.cursorNews()) {
		return
	}
	if win.callback != 0 {
		if late := win.callbackAt + int64(callbackTime); l.now < late {
			l.wakeAt(late)
			return
		}
		h.stopPacing(se.s)
	}
	switch {
	case imp != nil:
		win.show(imp)
		win.updateCursor()
	case moved:
		if win.arrange() && win.opaque {
			win.setOpaque(true)
		}
		win.updateCursor()
	case !win.updateCursor():
		return
	}
	win.finish()
}

// nextImport returns the import of the next frame when it is ready to be
// committed. A frame that cannot be shown is dropped.
func (se *session) nextImport(h *head) *imported {
	f := &h.next
	if f.buf == nil {
		return nil
	}
	imp := se.importOf(h, f)
	switch {
	case imp == nil || imp.state == importPending:
		return nil
	case imp.state == importFailed:
		old := *f
		*f = frame{}
		h.skip(se.s, &old)
		se.s.supersede(old)
		return nil
	}
	return imp
}

// show attaches the next frame.
func (win *window) show(imp *imported) {
	h, out := win.h, win.se.out()
	f := h.next
	h.next = frame{}
	base := whole(f.buf)
	if !imp.key.crop.Empty() {
		base = imp.key.crop
	}
	if win.adapt(&f, base) || win.current == nil {
		f.damage = f.src
	}
	win.surface.Attach(out, imp.wl, 0, 0)
	win.synchronise(imp)
	if d := bufferDamage(f.damage, f.src, base, f.buf.YInvert); !d.Empty() {
		win.surface.DamageBuffer(out, int32(d.X), int32(d.Y), int32(d.W), int32(d.H))
	}
	old := win.current
	win.current = imp
	if old != nil && old != imp {
		old.current = false
		old.settle()
	}
	if win.blank != f.blank {
		win.blank = f.blank
		h.cursor.picture = true
	}
	h.keep(f)
	imp.commit()
	if f.blank {
		return
	}
	h.flushed = f.flushed
	h.committed, h.unreported = f.serial, f.serial != 0
	if f.buf.Kind == dmabuf.KindDMABuf {
		win.se.s.stats.FramesDMABuf.Add(1)
	} else {
		win.se.s.stats.FramesShm.Add(1)
	}
}

// adapt sends what differs from the last commit in size, crop, orientation and
// opacity, and reports whether the whole picture has to be damaged.
func (win *window) adapt(f *frame, base display.Rect) (all bool) {
	out := win.se.out()
	if size := (extent{f.src.W, f.src.H}); win.picture != size {
		win.picture = size
		win.guestResized()
		all = true
	}
	resized := win.arrange()
	transform := proto.WlOutputTransformNormal
	if f.buf.YInvert {
		transform = proto.WlOutputTransformFlipped180
	}
	if win.transform != transform {
		win.surface.SetBufferTransform(out, transform)
		win.transform = transform
		all = true
	}
	crop := f.src
	if f.src == base {
		crop = display.Rect{}
	}
	if win.crop != crop {
		win.setCrop(crop)
		all = true
	}
	if win.opaque != f.opaque || (resized && f.opaque) || win.current == nil {
		win.setOpaque(f.opaque)
	}
	return all
}

// setCrop shows a part of the buffer. The source rectangle counts after the
// buffer transform (wp_viewport), that is in picture coordinates, like ours.
func (win *window) setCrop(crop display.Rect) {
	win.crop = crop
	if crop.Empty() {
		unset := wire.FixedInt(-1)
		win.viewport.SetSource(win.se.out(), unset, unset, unset, unset)
		return
	}
	win.viewport.SetSource(win.se.out(), wire.FixedInt(int32(crop.X)), wire.FixedInt(int32(crop.Y)),
		wire.FixedInt(int32(crop.W)), wire.FixedInt(int32(crop.H)))
}

func (win *window) setOpaque(opaque bool) {
	win.opaque = opaque
	se := win.se
	var region proto.WlRegion
	if opaque {
		region = proto.WlRegion(se.objs.add(proto.IWlRegion, ignore{}))
		se.compositor.CreateRegion(se.out(), region)
		region.Add(se.out(), 0, 0, int32(win.placed.pic.w), int32(win.placed.pic.h))
	}
	win.surface.SetOpaqueRegion(se.out(), region)
	if region != 0 {
		region.Destroy(se.out())
		se.objs.destroyed(wire.ID(region))
	}
}

// finish commits, and asks when the next commit is welcome.
func (win *window) finish() {
	out := win.se.out()
	if win.callback == 0 {
		win.callback = win.se.objs.add(proto.IWlCallback, win)
		win.surface.Frame(out, proto.WlCallback(win.callback))
	}
	win.callbackAt = win.se.l.now
	win.surface.Commit(out)
}

// closeWindow closes the window of a head that shows nothing any more.
func (h *head) closeWindow(s *Sink) {
	s.supersede(h.next)
	h.next = frame{}
	if h.win != nil {
		h.win.destroy()
	}
	s.log.Debug("closed the window of a disabled head", zap.Int("head", h.n))
}

// destroy closes the window. Its buffer stays busy until the compositor releases it.
func (win *window) destroy() {
	out, objs := win.se.out(), win.se.objs
	win.se.blur(win)
	win.h.stopPacing(win.se.s)
	win.h.win = nil
	win.h.flushed = 0
	if win.current != nil {
		win.current.current = false
		win.current.settle()
	}
	if win.cursor != nil {
		win.cursor.destroy()
	}
	if win.bars != nil {
		win.bars.destroy()
	}
	if win.callback != 0 {
		objs.destroyed(win.callback)
	}
	if f := win.scaling.fractional; f != 0 {
		f.Destroy(out)
		objs.destroyed(wire.ID(f))
	}
	if win.viewport != 0 {
		win.viewport.Destroy(out)
		objs.destroyed(wire.ID(win.viewport))
	}
	if win.deco != 0 {
		win.deco.Destroy(out)
		objs.destroyed(wire.ID(win.deco))
	}
	win.implicit()
	win.sync.acquire.destroy(win.se)
	win.toplevel.Destroy(out)
	objs.destroyed(wire.ID(win.toplevel))
	win.xdg.Destroy(out)
	objs.destroyed(wire.ID(win.xdg))
	win.surface.Destroy(out)
	objs.destroyed(wire.ID(win.surface))
}
