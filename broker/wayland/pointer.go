package wayland

import (
	"math/bits"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

// detent is one step of a wheel, and detentLength what it is on wl_pointer.axis.
const (
	detent       = 120
	detentLength = 10
)

// pointer passes a seat's pointer on, as a place in the picture.
type pointer struct {
	st    *seat
	wl    proto.WlPointer // 0 if the seat has none
	over  target
	down  codes
	dirty bool // something was said since the last Frame
	wheel [2]axis
}

// axis gathers a wheel's turns until the frame's end.
type axis struct {
	steps int32 // in 1/120 of a detent
	exact bool  // steps were told, so that the length means nothing
	turn  int64 // what wl_pointer.axis told, in 1/256 of a step
}

// take returns the steps of the frame and keeps what is less than one.
func (a *axis) take() int32 {
	steps := int64(a.steps)
	if a.exact {
		a.turn = 0
	} else {
		steps = a.turn / 256
		a.turn %= 256
	}
	a.steps, a.exact = 0, false
	return int32(steps)
}

func (p *pointer) event(_ wire.ID, _ proto.InterfaceID, m wire.Message) error {
	err := p.handle(m)
	if m.Opcode == proto.EvWlPointerFrame || p.st.version < seatFrames {
		p.frame()
	}
	return err
}

func (p *pointer) handle(m wire.Message) error {
	switch m.Opcode {
	case proto.EvWlPointerEnter:
		var ev proto.WlPointerEnterEvent
		if err := ev.Decode(m); err != nil {
			return err
		}
		p.blur(nil)
		p.wl.SetCursor(p.st.se.out(), ev.Serial, 0, 0, 0)
		p.over = p.st.se.target(ev.Surface)
		p.move(ev.SurfaceX, ev.SurfaceY)
	case proto.EvWlPointerLeave:
		p.blur(nil)
	case proto.EvWlPointerMotion:
		var ev proto.WlPointerMotionEvent
		if err := ev.Decode(m); err != nil {
			return err
		}
		p.move(ev.SurfaceX, ev.SurfaceY)
	case proto.EvWlPointerWarp:
		var ev proto.WlPointerWarpEvent
		if err := ev.Decode(m); err != nil {
			return err
		}
		p.move(ev.SurfaceX, ev.SurfaceY)
	case proto.EvWlPointerButton:
		var ev proto.WlPointerButtonEvent
		if err := ev.Decode(m); err != nil {
			return err
		}
		p.button(ev.Button, ev.State == proto.WlPointerButtonStatePressed)
	default:
		return p.scroll(m)
	}
	return nil
}

// scroll handles the events of the wheel. Which ones come depends on the version of
// the seat: value120 from 8 on, before that discrete, and axis always.
func (p *pointer) scroll(m wire.Message) error {
	switch m.Opcode {
	case proto.EvWlPointerAxis:
		var ev proto.WlPointerAxisEvent
		if err := ev.Decode(m); err != nil {
			return err
		}
		if a := p.axis(ev.Axis); a != nil {
			a.turn += int64(ev.Value) * detent / detentLength
		}
	case proto.EvWlPointerAxisDiscrete:
		var ev proto.WlPointerAxisDiscreteEvent
		if err := ev.Decode(m); err != nil {
			return err
		}
		if a := p.axis(ev.Axis); a != nil {
			a.steps, a.exact = a.steps+ev.Discrete*detent, true
		}
	case proto.EvWlPointerAxisValue120:
		var ev proto.WlPointerAxisValue120Event
		if err := ev.Decode(m); err != nil {
			return err
		}
		if a := p.axis(ev.Axis); a != nil {
			a.steps, a.exact = a.steps+ev.Value120, true
		}
	case proto.EvWlPointerAxisStop:
		var ev proto.WlPointerAxisStopEvent
		if err := ev.Decode(m); err != nil {
			return err
		}
		if a := p.axis(ev.Axis); a != nil {
			a.turn = 0 // the next gesture starts anew
		}
	}
	return nil
}

func (p *pointer) axis(which proto.WlPointerAxis) *axis {
	if p.quiet() || int(which) >= len(p.wheel) {
		return nil
	}
	return &p.wheel[which]
}

// quiet reports whether nobody hears what the pointer does.
func (p *pointer) quiet() bool { return p.over.win == nil || p.st.input() == nil }

func (p *pointer) move(x, y wire.Fixed) {
	if p.quiet() {
		return
	}
	px, py := p.over.at(x, y)
	p.st.input().Pointer(p.over.win.h.n, px, py)
	p.dirty = true
}

func (p *pointer) button(code uint32, pressed bool) {
	if p.quiet() || !p.down.set(code, pressed) {
		return
	}
	p.st.input().Button(p.over.win.h.n, uint16(code), pressed)
	p.dirty = true
}

// frame ends a group of events.
func (p *pointer) frame() {
	if p.quiet() {
		return
	}
	v := p.wheel[proto.WlPointerAxisVerticalScroll].take()
	h := p.wheel[proto.WlPointerAxisHorizontalScroll].take()
	if v != 0 || h != 0 {
		p.st.input().Scroll(p.over.win.h.n, v, h)
		p.dirty = true
	}
	if p.dirty {
		p.dirty = false
		p.st.input().Frame(p.over.win.h.n)
	}
}

// blur ends what the pointer does in a window; nil means any. A compositor keeps the
// pointer in a window while a button is down, so a button that is down here was
// taken away by it.
func (p *pointer) blur(win *window) {
	if p.over.win == nil || (win != nil && p.over.win != win) {
		return
	}
	for i, word := range p.down {
		for ; word != 0; word &= word - 1 {
			p.button(uint32(i*codesPerWord+bits.TrailingZeros64(word)), false)
		}
	}
	p.frame()
	p.wheel = [2]axis{}
	p.over = target{}
}

func (p *pointer) drop() {
	p.blur(nil)
	if p.st.version >= seatRelease {
		p.wl.Release(p.st.se.out())
		p.st.se.objs.destroyed(wire.ID(p.wl))
	}
	p.wl = 0
}
