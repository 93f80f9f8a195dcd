package wayland

import (
	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

// touch passes a seat's fingers on. The compositor's ids are any numbers; a guest
// has slots.
type touch struct {
	st    *seat
	wl    proto.WlTouch // 0 if the seat has none
	slots [16]finger
	dirty [display.MaxHeads]bool // heads that heard something since their last Frame
}

type finger struct {
	on   target // win is nil for a free slot
	id   int32
	x, y uint16
}

func (t *touch) event(_ wire.ID, _ proto.InterfaceID, m wire.Message) error {
	switch m.Opcode {
	case proto.EvWlTouchDown:
		var ev proto.WlTouchDownEvent
		if err := ev.Decode(m); err != nil {
			return err
		}
		t.end(t.find(ev.Id)) // the compositor forgot to
		on := t.st.se.target(ev.Surface)
		for i := range t.slots {
			if f := &t.slots[i]; f.on.win == nil && on.win != nil {
				*f = finger{on: on, id: ev.Id}
				t.move(i, ev.X, ev.Y)
				break // a seventeenth finger is not there
			}
		}
	case proto.EvWlTouchMotion:
		var ev proto.WlTouchMotionEvent
		if err := ev.Decode(m); err != nil {
			return err
		}
		if i := t.find(ev.Id); i >= 0 {
			t.move(i, ev.X, ev.Y)
		}
	case proto.EvWlTouchUp:
		var ev proto.WlTouchUpEvent
		if err := ev.Decode(m); err != nil {
			return err
		}
		t.end(t.find(ev.Id))
	case proto.EvWlTouchCancel:
		t.blur(nil)
	case proto.EvWlTouchFrame:
		t.frame()
	}
	return nil
}

// find returns the slot of a finger, -1 if it has none.
func (t *touch) find(id int32) int {
	for i := range t.slots {
		if f := &t.slots[i]; f.on.win != nil && f.id == id {
			return i
		}
	}
	return -1
}

func (t *touch) move(slot int, x, y wire.Fixed) {
	f := &t.slots[slot]
	f.x, f.y = f.on.at(x, y)
	t.tell(slot, true)
}

func (t *touch) end(slot int) {
	if slot < 0 {
		return
	}
	t.tell(slot, false)
	t.slots[slot] = finger{}
}

func (t *touch) tell(slot int, down bool) {
	f := &t.slots[slot]
	head := f.on.win.h.n
	t.st.input().Touch(head, uint8(slot), f.x, f.y, down)
	t.dirty[head] = true
}

func (t *touch) frame() {
	for head := range t.dirty {
		if t.dirty[head] {
			t.dirty[head] = false
			t.st.input().Frame(head)
		}
	}
}

// blur lifts every finger from a window; nil means any.
func (t *touch) blur(win *window) {
	for i := range t.slots {
		if f := &t.slots[i]; f.on.win != nil && (win == nil || f.on.win == win) {
			t.end(i)
		}
	}
	t.frame()
}

func (t *touch) drop() {
	t.blur(nil)
	if t.st.version >= seatRelease {
		t.wl.Release(t.st.se.out())
		t.st.se.objs.destroyed(wire.ID(t.wl))
	}
	t.wl = 0
}
