package wayland

import (
	"encoding/binary"
	"time"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// settleTime is how long a window's size has to stay before it becomes the head's
// mode, so that dragging an edge is one mode change and not a hundred.
const settleTime = 100 * time.Millisecond

// followTime is how long the guest may take to follow a mode. A size of its own that
// it takes later is its choice, and a floating window follows that.
const followTime = 2 * time.Second

// minMode is the least width and height of a mode in pixels.
const minMode = 64

// sizing is what a window knows of the size that it should have.
type sizing struct {
	pending configure // until xdg_surface.configure
	conf    configure // acknowledged
	user    extent    // the size that the user gave the floating window, empty if none
	want    extent    // the mode to be, in pixels
	wantAt  int64     // when want becomes the mode, 0 if it is already
}

// configure is an xdg_toplevel.configure.
type configure struct {
	size       extent // empty if it is the client's to choose
	fullscreen bool
	maximized  bool
	tiled      bool
}

// fixed reports whether the window has to have the size.
func (c *configure) fixed() bool {
	return (c.fullscreen || c.maximized || c.tiled) && !c.size.empty()
}

// toplevelEvent handles xdg_toplevel's events.
func (win *window) toplevelEvent(m wire.Message) error {
	switch m.Opcode {
	case proto.EvXdgToplevelClose:
		win.h.hide(win.se.l)
	case proto.EvXdgToplevelConfigure:
		var ev proto.XdgToplevelConfigureEvent
		if err := ev.Decode(m); err != nil {
			return err
		}
		c := configure{}
		if ev.Width > 0 && ev.Height > 0 {
			c.size = extent{uint32(ev.Width), uint32(ev.Height)}
		}
		for s := ev.States; len(s) >= 4; s = s[4:] {
			switch proto.XdgToplevelState(binary.LittleEndian.Uint32(s)) {
			case proto.XdgToplevelStateFullscreen:
				c.fullscreen = true
			case proto.XdgToplevelStateMaximized:
				c.maximized = true
			case proto.XdgToplevelStateTiledLeft, proto.XdgToplevelStateTiledRight,
				proto.XdgToplevelStateTiledTop, proto.XdgToplevelStateTiledBottom:
				c.tiled = true
			}
		}
		win.sizing.pending = c
	}
	return nil
}

// applyConfigure takes the configure that was just acknowledged.
func (win *window) applyConfigure() {
	s := &win.sizing
	before := s.conf
	s.conf = s.pending
	c := &s.conf
	switch {
	case c.fixed():
		if !before.fixed() && s.user.empty() && win.current != nil {
			s.user = win.placed.win // to be taken up again when the window floats
		}
	case c.size.empty() || c.size == win.placed.win || (c.size == before.size && !before.fixed()):
		// Compositors repeat a window's size with every change of its state, and what
		// they repeat may be older than the size that we took since.
	default:
		s.user = c.size
	}
}

// bound returns the size that the window has to have, empty if it follows the
// picture.
func (win *window) bound() extent {
	s := &win.sizing
	c := &s.conf
	if win.se.s.resizable.Load() {
		if c.fixed() {
			return c.size
		}
		return s.user
	}
	if c.size.empty() {
		return extent{}
	}
	if c.maximized {
		return c.size // xdg_toplevel: the size must be obeyed
	}
	if c.fullscreen {
		free := place(win.picture, extent{}, win.scale(), win.viewport != 0)
		if win.se.s.cfg.Fullscreen || free.win.w > c.size.w || free.win.h > c.size.h {
			return c.size // a smaller window would do, a larger one not
		}
	}
	return extent{}
}

// updateMode makes the window's size the head's mode when it has stayed long enough.
func (win *window) updateMode() {
	s, l := &win.sizing, win.se.l
	bound := win.bound()
	if !win.se.s.resizable.Load() || bound.empty() || win.h.mode.empty() {
		s.wantAt = 0
		return
	}
	px := bound.pixels(win.scale())
	want := extent{clampMode(px.w), clampMode(px.h)}
	if want == win.h.mode {
		s.wantAt = 0
		return
	}
	if s.wantAt == 0 || want != s.want {
		s.want, s.wantAt = want, l.now+int64(settleTime)
	}
	if l.now < s.wantAt {
		l.wakeAt(s.wantAt)
		return
	}
	s.wantAt = 0
	win.h.mode, win.h.asked = want, l.now
	win.se.s.setMode(win.h.n, s.want)
	win.se.s.log.Info("window resized, the guest is asked for a new mode", zap.Int("head", win.h.n),
		zap.Uint32("width", s.want.w), zap.Uint32("height", s.want.h))
}

func clampMode(px uint32) uint32 { return min(max(px, minMode), dmabuf.MaxDimension) }

// guestResized takes note of a picture of a new size. A floating window follows it
// unless the guest is on its way to the mode that the window asked for.
func (win *window) guestResized() {
	s := &win.sizing
	if s.user.empty() || s.conf.fixed() || s.wantAt != 0 || win.picture == win.h.mode {
		return
	}
	if win.se.l.now >= win.h.asked+int64(followTime) {
		s.user = extent{}
	}
}

// layout returns how the window has to look now.
func (win *window) layout() placement {
	return place(win.picture, win.bound(), win.scale(), win.viewport != 0)
}

// arrange sends what differs from the last commit in sizes, and reports whether the
// surface's size changed.
func (win *window) arrange() (resized bool) {
	p, old := win.layout(), win.placed
	if win.viewport != 0 {
		win.setDestination(p) // a picture of another size may have the same place
	}
	if p == old && win.limits == win.sizeLimits(p) {
		return false
	}
	win.placed = p
	out := win.se.out()
	if l := win.sizeLimits(p); l != win.limits {
		win.limits = l
		win.toplevel.SetMinSize(out, int32(l[0].w), int32(l[0].h))
		win.toplevel.SetMaxSize(out, int32(l[1].w), int32(l[1].h))
	}
	if p.bufferScale != old.bufferScale {
		win.surface.SetBufferScale(out, int32(p.bufferScale))
	}
	win.updateBars(p)
	// Without this the cursor's sub-surface would count as part of the window.
	win.xdg.SetWindowGeometry(out, -p.x, -p.y, int32(p.win.w), int32(p.win.h))
	if p.pic != old.pic {
		win.h.cursor.moved = true
	}
	return p.pic != old.pic
}

// sizeLimits returns the least and the largest size for the user.
func (win *window) sizeLimits(p placement) [2]extent {
	if !win.se.s.resizable.Load() {
		return [2]extent{p.win, p.win}
	}
	least := (minMode*unscaled + win.scale() - 1) / win.scale()
	return [2]extent{{least, least}, {}}
}

// setDestination scales the picture; one that has its natural size needs nothing.
func (win *window) setDestination(p placement) {
	dest := p.pic
	if dest == win.picture {
		dest = extent{}
	}
	if dest == win.dest {
		return
	}
	win.dest = dest
	if dest.empty() {
		win.viewport.SetDestination(win.se.out(), -1, -1)
		return
	}
	win.viewport.SetDestination(win.se.out(), int32(dest.w), int32(dest.h))
}
