package wayland

import (
	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

// Versions of wl_seat that brought something.
const (
	seatRelease  = 3 // release requests of the devices
	seatFrames   = 5 // wl_pointer.frame, wl_seat.release
	seatMaximum  = 11
	codesPerWord = 64
)

// seat takes the user's input in our windows. Without a display.Input it only hides
// the compositor's pointer while that is over one: the guest draws its own.
type seat struct {
	se       *session
	wl       proto.WlSeat
	version  uint32
	pointer  pointer
	keyboard keyboard
	touch    touch
}

// input returns who takes the events, nil if nobody does.
func (st *seat) input() display.Input { return st.se.s.cfg.Input }

func (se *session) addSeat(name, version uint32) {
	st := &seat{se: se, version: min(version, seatMaximum)}
	st.pointer.st, st.keyboard.st, st.touch.st = st, st, st
	st.wl = proto.WlSeat(se.objs.add(proto.IWlSeat, st))
	se.registry.Bind(se.out(), name, "wl_seat", st.version, wire.ID(st.wl))
	se.seats[name] = st
}

func (se *session) removeSeat(name uint32) {
	st := se.seats[name]
	if st == nil {
		return
	}
	delete(se.seats, name)
	st.capabilities(0)
	if st.version >= seatFrames {
		st.wl.Release(se.out())
		se.objs.destroyed(wire.ID(st.wl))
	}
}

func (st *seat) event(_ wire.ID, _ proto.InterfaceID, m wire.Message) error {
	if m.Opcode != proto.EvWlSeatCapabilities {
		return nil
	}
	var ev proto.WlSeatCapabilitiesEvent
	if err := ev.Decode(m); err != nil {
		return err
	}
	st.capabilities(ev.Capabilities)
	return nil
}

// capabilities makes and drops devices.
func (st *seat) capabilities(has proto.WlSeatCapability) {
	se, out := st.se, st.se.out()
	if want := has&proto.WlSeatCapabilityPointer != 0; want != (st.pointer.wl != 0) {
		if want {
			st.pointer.wl = proto.WlPointer(se.objs.add(proto.IWlPointer, &st.pointer))
			st.wl.GetPointer(out, st.pointer.wl)
		} else {
			st.pointer.drop()
		}
	}
	if want := st.input() != nil && has&proto.WlSeatCapabilityKeyboard != 0; want != (st.keyboard.wl != 0) {
		if want {
			st.keyboard.wl = proto.WlKeyboard(se.objs.add(proto.IWlKeyboard, &st.keyboard))
			st.wl.GetKeyboard(out, st.keyboard.wl)
		} else {
			st.keyboard.drop()
		}
	}
	if want := st.input() != nil && has&proto.WlSeatCapabilityTouch != 0; want != (st.touch.wl != 0) {
		if want {
			st.touch.wl = proto.WlTouch(se.objs.add(proto.IWlTouch, &st.touch))
			st.wl.GetTouch(out, st.touch.wl)
		} else {
			st.touch.drop()
		}
	}
}

// blur ends what the user does in a window that goes away; nil means any window.
func (se *session) blur(win *window) {
	for _, st := range se.seats {
		st.pointer.blur(win)
		st.keyboard.blur(win)
		st.touch.blur(win)
	}
}

// target is a surface of ours.
type target struct {
	win  *window // nil if there is none
	bars bool    // it is what surrounds the picture
}

func (se *session) target(id proto.WlSurface) target {
	switch h := se.objs.find(wire.ID(id)).h.(type) {
	case *window:
		return target{win: h}
	case *bars:
		return target{win: h.win, bars: true}
	}
	return target{}
}

// at returns a place on the surface as a place in the picture.
func (t target) at(x, y wire.Fixed) (px, py uint16) {
	p := &t.win.placed
	if t.bars {
		x -= wire.FixedInt(p.x)
		y -= wire.FixedInt(p.y)
	}
	return inPicture(x, p.pic.w), inPicture(y, p.pic.h)
}

// codes is a set of evdev codes (linux/input-event-codes.h, KEY_MAX 0x2ff).
type codes [0x300 / codesPerWord]uint64

// set notes that a code is pressed or not, and reports whether that is news. Codes
// beyond KEY_MAX never are.
func (c *codes) set(code uint32, pressed bool) bool {
	if code/codesPerWord >= uint32(len(c)) {
		return false
	}
	word, bit := &c[code/codesPerWord], uint64(1)<<(code%codesPerWord)
	if (*word&bit != 0) == pressed {
		return false
	}
	*word ^= bit
	return true
}
