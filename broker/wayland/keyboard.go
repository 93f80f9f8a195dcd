package wayland

import (
	"math/bits"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

// keyboard passes a seat's keys on: wl_keyboard.key has evdev codes, which are what
// the guest wants; the keymap is the guest's own business.
type keyboard struct {
	st   *seat
	wl   proto.WlKeyboard // 0 if the seat has none
	win  *window          // that has the focus
	down codes            // pressed, as the guest was told
}

func (k *keyboard) event(_ wire.ID, _ proto.InterfaceID, m wire.Message) error {
	switch m.Opcode {
	case proto.EvWlKeyboardEnter:
		var ev proto.WlKeyboardEnterEvent
		if err := ev.Decode(m); err != nil {
			return err
		}
		k.release()
		// Keys that are down already were pressed for somebody else (wl_keyboard.enter).
		k.win = k.st.se.target(ev.Surface).win
	case proto.EvWlKeyboardLeave:
		k.release()
		k.win = nil
	case proto.EvWlKeyboardKey:
		var ev proto.WlKeyboardKeyEvent
		if err := ev.Decode(m); err != nil {
			return err
		}
		pressed := ev.State == proto.WlKeyboardKeyStatePressed
		if k.win == nil || (!pressed && ev.State != proto.WlKeyboardKeyStateReleased) || !k.down.set(ev.Key, pressed) {
			return nil
		}
		k.st.input().Key(k.win.h.n, uint16(ev.Key), pressed)
		k.st.input().Frame(k.win.h.n)
	}
	return nil
}

// release lets go of every key.
func (k *keyboard) release() {
	any := false
	for i, word := range k.down {
		for ; word != 0; word &= word - 1 {
			any = true
			k.st.input().Key(k.win.h.n, uint16(i*codesPerWord+bits.TrailingZeros64(word)), false)
		}
		k.down[i] = 0
	}
	if any {
		k.st.input().Frame(k.win.h.n)
	}
}

func (k *keyboard) blur(win *window) {
	if k.win != nil && (win == nil || k.win == win) {
		k.release()
		k.win = nil
	}
}

func (k *keyboard) drop() {
	k.blur(nil)
	if k.st.version >= seatRelease {
		k.wl.Release(k.st.se.out())
		k.st.se.objs.destroyed(wire.ID(k.wl))
	}
	k.wl = 0
}
