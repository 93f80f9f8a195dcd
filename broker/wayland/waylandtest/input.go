package waylandtest

import (
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

// Devices are the first client's input devices, 0 for what it did not ask for, and
// where events for them are written.
type Devices struct {
	Out      *wire.Writer
	Pointer  proto.WlPointer
	Keyboard proto.WlKeyboard
	Touch    proto.WlTouch
	Windows  []proto.WlSurface // the toplevels' surfaces in the order of their making
	Below    []proto.WlSurface // sub-surfaces below them
}

// Input runs f to write what a user does, and sends it.
func (c *Compositor) Input(f func(d Devices)) {
	first := true
	c.each(func(cl *client) {
		if !first {
			return
		}
		first = false
		d := Devices{Out: cl.out(), Pointer: proto.WlPointer(cl.pointer), Keyboard: cl.keyboard, Touch: cl.touch}
		for _, s := range cl.surfaces() {
			switch {
			case s.toplevel != 0:
				d.Windows = append(d.Windows, proto.WlSurface(s.id))
			case s.below:
				d.Below = append(d.Below, proto.WlSurface(s.id))
			}
		}
		f(d)
	})
}

// Resize sends every toplevel a configure with a size and states.
func (c *Compositor) Resize(w, h int32, states ...proto.XdgToplevelState) {
	c.each(func(cl *client) {
		for _, s := range cl.surfaces() {
			if s.toplevel != 0 {
				cl.configureSize(s, w, h, states...)
			}
		}
	})
}

// Drag sends every toplevel many sizes at once, as when its edge is dragged.
func (c *Compositor) Drag(sizes [][2]int32) {
	c.each(func(cl *client) {
		for _, s := range cl.surfaces() {
			for _, size := range sizes {
				if s.toplevel != 0 {
					cl.configureSize(s, size[0], size[1], proto.XdgToplevelStateResizing)
				}
			}
		}
	})
}

// Rescale changes the scales and tells every toplevel.
func (c *Compositor) Rescale(fractional uint32, scale int32) {
	c.call(func() { c.cfg.Fractional, c.cfg.Scale = fractional, scale })
	c.each(func(cl *client) {
		if cl.output != 0 {
			cl.output.SendScale(cl.out(), scale)
			cl.output.SendDone(cl.out())
		}
		for _, s := range cl.surfaces() {
			if s.toplevel != 0 {
				cl.sendScale(s)
			}
		}
	})
}
