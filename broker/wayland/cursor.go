package wayland

import (
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// cursorSlots is how many pictures a cursor's pool holds: the shown one, the one
// to be shown, and two that the compositor has not released yet.
const cursorSlots = 4

// minSlot is a 64x64 ARGB8888 picture, the size of every virtio-gpu cursor.
const minSlot = 64 * 64 * 4

// cursorSurface draws the guest's pointer: a sub-surface above the scanout, so
// that it is there without any wl_seat. It is synchronised: picture and position
// take effect together with the next commit of the window, and that commit needs
// no new scanout buffer.
type cursorSurface struct {
	win      *window
	surface  proto.WlSurface
	sub      proto.WlSubsurface
	viewport proto.WpViewport
	fd       *dmabuf.FD // the pool's memory
	pool     proto.WlShmPool
	slot     int // bytes of a slot
	slots    [cursorSlots]cursorSlot
	shown    *cursorSlot // nil while hidden
	at       clip
	news     bool // the surface has state to commit
	moved    bool // the position changed, which the window's commit applies
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
	c := &cursorSurface{win: win}
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
	if err := c.grow(minSlot); err != nil {
		se.s.log.Warn("cannot show the cursor", zap.Int("head", win.h.n), zap.Error(err))
		c.destroy()
		return nil
	}
	return c
}

// grow replaces the pool by one whose slots hold size bytes. Pictures of the old
// one stay valid for the compositor until they are replaced.
func (c *cursorSurface) grow(size int) error {
	fd, err := newMemfd("gpubroker cursor", int64(size)*cursorSlots)
	if err != nil {
		return err
	}
	toSend, err := fd.Dup()
	if err != nil {
		_ = fd.Close()
		return err
	}
	c.dropPool()
	se := c.win.se
	c.fd, c.slot = fd, size
	c.pool = proto.WlShmPool(se.objs.add(proto.IWlShmPool, ignore{}))
	se.shm.CreatePool(se.out(), c.pool, toSend, int32(size*cursorSlots))
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
	_ = c.fd.Close()
	c.fd = nil
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
	if want.w == 0 || want.h == 0 {
		c.hide()
		return true
	}
	size := len(want.pixels)
	if size > c.slot {
		if err := c.grow(size); err != nil {
			c.win.se.s.log.Warn("cannot show the cursor", zap.Int("head", c.win.h.n), zap.Error(err))
			return true
		}
	}
	i := c.freeSlot()
	if i < 0 {
		return false
	}
	s := &c.slots[i]
	if _, err := unix.Pwrite(c.fd.Int(), want.pixels, int64(i*c.slot)); err != nil {
		c.win.se.s.log.Warn("cannot draw the cursor", zap.Int("head", c.win.h.n), zap.Error(err))
		return true
	}
	if s.w != want.w || s.h != want.h {
		c.dropSlot(s)
		s.w, s.h = want.w, want.h
		s.wl = proto.WlBuffer(c.win.se.objs.add(proto.IWlBuffer, c))
		c.pool.CreateBuffer(c.win.se.out(), s.wl, int32(i*c.slot), int32(s.w), int32(s.h), int32(s.w*4), proto.WlShmFormatArgb8888)
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
	at := clipCursor(want.x, want.y, want.hotX, want.hotY, c.shown.w, c.shown.h, c.win.w, c.win.height)
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
