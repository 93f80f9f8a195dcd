package wayland

import (
	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
)

// cursorSlots is how many pictures a cursor's pool holds: the shown one, the one
// to be shown, and two that the compositor has not released yet.
const cursorSlots = 4

// minSlot is the least width and height of a slot in pixels: those of every
// virtio-gpu cursor.
const minSlot = 64

// cursorSurface draws the guest's pointer: a sub-surface above the scanout, so
// that it is there without any wl_seat. It is synchronised: picture and position
// take effect together with the next commit of the window, and that commit needs
// no new scanout buffer.
type cursorSurface struct {
	win      *window
	surface  proto.WlSurface
	sub      proto.WlSubsurface
	viewport proto.WpViewport
	mem      *dmabuf.Buffer // the pool's memory: the slots one below the other
	pool     proto.WlShmPool
	slots    [cursorSlots]cursorSlot
	shown    *cursorSlot // nil while hidden
	at       clip
	dest     extent // viewport destination, empty if unset
	scale    uint32 // wl_surface.set_buffer_scale
	news     bool   // the surface has state to commit
	moved    bool   // the position changed, which the window's commit applies
}

// cursorSlot is one picture in the pool.
type cursorSlot struct {
	wl   proto.WlBuffer // 0 until first used
	w, h uint32
	busy bool
}

// cursorNews reports whether the window lacks something the guest wants.
func (h *head) cursorNews() bool {
	c := &h.cursor
	if !c.picture && !c.moved {
		return false
	}
	return h.win.cursor != nil || c.w != 0
}

// updateCursor sends the cursor's news and reports whether the window has to be
// committed for it.
func (win *window) updateCursor() (commit bool) {
	h := win.h
	if !h.cursorNews() || win.se.subcompositor == 0 {
		return false
	}
	c := win.cursor
	if c == nil {
		if c = win.newCursor(); c == nil {
			h.cursor.picture, h.cursor.moved = false, false
			return false
		}
		win.cursor = c
	}
	want := &h.cursor
	if want.picture && c.draw(want) {
		want.picture = false
	}
	want.moved = false
	c.place(want)
	commit = c.news || c.moved
	if c.news {
		c.surface.Commit(win.se.out())
	}
	c.news, c.moved = false, false
	return commit
}

func (win *window) newCursor() *cursorSurface {
	se, out := win.se, win.se.out()
	c := &cursorSurface{win: win, scale: 1}
	c.surface = proto.WlSurface(se.objs.add(proto.IWlSurface, ignore{}))
	se.compositor.CreateSurface(out, c.surface)
	c.sub = proto.WlSubsurface(se.objs.add(proto.IWlSubsurface, ignore{}))
	se.subcompositor.GetSubsurface(out, c.sub, c.surface, win.surface)
	if se.viewporter != 0 {
		c.viewport = proto.WpViewport(se.objs.add(proto.IWpViewport, ignore{}))
		se.viewporter.GetViewport(out, c.viewport, c.surface)
	}
	// The compositor's pointer belongs to the window below.
	region := proto.WlRegion(se.objs.add(proto.IWlRegion, ignore{}))
	se.compositor.CreateRegion(out, region)
	c.surface.SetInputRegion(out, region)
	region.Destroy(out)
	se.objs.destroyed(wire.ID(region))
	if err := c.grow(minSlot, minSlot); err != nil {
		se.s.log.Warn("cannot show the cursor", zap.Int("head", win.h.n), zap.Error(err))
		c.destroy()
		return nil
	}
	return c
}

// grow replaces the pool by one whose slots take w x h pixels. Pictures of the
// old one stay valid for the compositor until they are replaced.
func (c *cursorSurface) grow(w, h uint32) error {
	mem, err := shmfallback.Alloc(w, h*cursorSlots, dmabuf.ARGB8888, "gpubroker cursor")
	if err != nil {
		return err
	}
	fd, err := mem.Planes[0].FD.Dup()
	if err != nil {
		mem.Release()
		return err
	}
	c.dropPool()
	se := c.win.se
	c.mem = mem
	c.pool = proto.WlShmPool(se.objs.add(proto.IWlShmPool, ignore{}))
	se.shm.CreatePool(se.out(), c.pool, fd, int32(mem.Size(0)))
	return nil
}

func (c *cursorSurface) dropPool() {
	se := c.win.se
	for i := range c.slots {
		c.dropSlot(&c.slots[i])
	}
	c.shown = nil
	if c.pool != 0 {
		c.pool.Destroy(se.out())
		se.objs.destroyed(wire.ID(c.pool))
		c.pool = 0
	}
	c.mem.Release()
	c.mem = nil
}

func (c *cursorSurface) dropSlot(s *cursorSlot) {
	if s.wl != 0 {
		s.wl.Destroy(c.win.se.out())
		c.win.se.objs.destroyed(wire.ID(s.wl))
	}
	*s = cursorSlot{}
}

// draw puts the wanted picture on the surface; false means that all slots are
// with the compositor just now.
func (c *cursorSurface) draw(want *cursorBox) bool {
	if want.w == 0 || want.h == 0 || c.win.blank {
		c.hide()
		return true
	}
	if want.w > c.mem.Width || want.h > c.mem.Height/cursorSlots {
		if err := c.grow(max(want.w, c.mem.Width), max(want.h, c.mem.Height/cursorSlots)); err != nil {
			c.win.se.s.log.Warn("cannot show the cursor", zap.Int("head", c.win.h.n), zap.Error(err))
			return true
		}
	}
	i := c.freeSlot()
	if i < 0 {
		return false
	}
	s, stride := &c.slots[i], c.mem.Planes[0].Stride
	offset := c.mem.Height / cursorSlots * uint32(i) * stride
	for row := range want.h {
		copy(c.mem.Mem[offset+row*stride:], want.pixels[row*want.w*4:][:want.w*4])
	}
	if s.w != want.w || s.h != want.h {
		c.dropSlot(s)
		s.w, s.h = want.w, want.h
		s.wl = proto.WlBuffer(c.win.se.objs.add(proto.IWlBuffer, c))
		c.pool.CreateBuffer(c.win.se.out(), s.wl, int32(offset), int32(s.w), int32(s.h), int32(stride), proto.WlShmFormatArgb8888)
	}
	c.shown = s
	c.at.src = display.Rect{} // attach anew, with the crop that fits
	return true
}

func (c *cursorSurface) freeSlot() int {
	for i := range c.slots {
		if s := &c.slots[i]; !s.busy && s != c.shown {
			return i
		}
	}
	return -1
}

// event handles wl_buffer.release of a slot.
func (c *cursorSurface) event(id wire.ID, _ proto.InterfaceID, _ wire.Message) error {
	for i := range c.slots {
		if wire.ID(c.slots[i].wl) == id {
			c.slots[i].busy = false
		}
	}
	return nil
}

// place moves the surface, cut off at the window's edges as a scanout's cursor is.
func (c *cursorSurface) place(want *cursorBox) {
	if c.shown == nil {
		return
	}
	out := c.win.se.out()
	pic, placed := c.win.picture, &c.win.placed
	at := clipCursor(want.x, want.y, c.shown.w, c.shown.h, pic.w, pic.h)
	if c.viewport == 0 && !at.src.Empty() {
		at.x -= int32(at.src.X)
		at.y -= int32(at.src.Y)
		at.src = display.Rect{W: c.shown.w, H: c.shown.h}
	}
	if at.src.Empty() {
		if !c.at.src.Empty() {
			c.surface.Attach(out, 0, 0, 0)
			c.news = true
		}
		c.at = at
		return
	}
	// From here on the position is in the window's coordinates.
	at.x = int32(int64(at.x) * int64(placed.pic.w) / int64(pic.w))
	at.y = int32(int64(at.y) * int64(placed.pic.h) / int64(pic.h))
	c.resize(at.src)
	if at.x != c.at.x || at.y != c.at.y || c.at.src.Empty() {
		c.sub.SetPosition(out, at.x, at.y)
		c.moved = true
	}
	if at.src != c.at.src {
		if c.viewport != 0 {
			c.viewport.SetSource(out, wire.FixedInt(int32(at.src.X)), wire.FixedInt(int32(at.src.Y)),
				wire.FixedInt(int32(at.src.W)), wire.FixedInt(int32(at.src.H)))
		}
		if c.at.src.Empty() {
			c.surface.Attach(out, c.shown.wl, 0, 0)
			c.surface.DamageBuffer(out, 0, 0, int32(c.shown.w), int32(c.shown.h))
			c.shown.busy = true
		}
		c.news = true
	}
	c.at = at
}

// resize scales the cursor as the picture is scaled.
func (c *cursorSurface) resize(src display.Rect) {
	out, pic, placed := c.win.se.out(), c.win.picture, &c.win.placed
	if c.viewport == 0 {
		scale := placed.bufferScale
		if c.shown.w%scale != 0 || c.shown.h%scale != 0 {
			scale = 1
		}
		if scale != c.scale {
			c.scale, c.news = scale, true
			c.surface.SetBufferScale(out, int32(scale))
		}
		return
	}
	dest := extent{scaled(src.W, placed.pic.w, pic.w, placed.pic.w), scaled(src.H, placed.pic.h, pic.h, placed.pic.h)}
	if (dest == extent{src.W, src.H}) {
		dest = extent{}
	}
	if dest == c.dest {
		return
	}
	c.dest, c.news = dest, true
	if dest.empty() {
		c.viewport.SetDestination(out, -1, -1)
		return
	}
	c.viewport.SetDestination(out, int32(dest.w), int32(dest.h))
}

func (c *cursorSurface) hide() {
	if c.shown != nil {
		c.surface.Attach(c.win.se.out(), 0, 0, 0)
		c.news = true
	}
	c.shown = nil
	c.at = clip{}
}

func (c *cursorSurface) destroy() {
	se, out := c.win.se, c.win.se.out()
	c.dropPool()
	if c.viewport != 0 {
		c.viewport.Destroy(out)
		se.objs.destroyed(wire.ID(c.viewport))
	}
	c.sub.Destroy(out)
	se.objs.destroyed(wire.ID(c.sub))
	c.surface.Destroy(out)
	se.objs.destroyed(wire.ID(c.surface))
}
