package inputcase

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// keymap is that of a PC keyboard, whose XKB codes are evdev's plus 8.
const keymap = `xkb_keymap {
	xkb_keycodes { include "evdev+aliases(qwerty)" };
	xkb_types { include "complete" };
	xkb_compat { include "complete" };
	xkb_symbols { include "pc+us+inet(evdev)" };
};
`

// The ids of a Virtual's objects, in the order of their making.
const (
	vRegistry wire.ID = iota + 2
	vSync
	vSeat
	vPointers
	vPointer
	vKeyboards
	vKeyboard
	vSync2
)

// Opcodes (wlr-virtual-pointer-unstable-v1.xml, virtual-keyboard-unstable-v1.xml).
const (
	vCreate = 0 // of both managers

	vpMotionAbsolute = 1
	vpButton         = 2
	vpFrame          = 4
	vpAxisSource     = 5
	vpAxisDiscrete   = 7

	vkKeymap = 0
	vkKey    = 1
)

// Virtual is a user of a wlroots compositor: a client with a virtual pointer and a
// virtual keyboard. It is not safe for concurrent use.
type Virtual struct {
	conn *wire.Conn
	now  uint32 // milliseconds of the compositor's events
}

// NewVirtual plugs pointer and keyboard in. Close pulls them out.
func NewVirtual(socket string) (*Virtual, error) {
	conn, err := wire.Dial(socket)
	if err != nil {
		return nil, err
	}
	v := &Virtual{conn: conn}
	if err := v.setUp(); err != nil {
		v.Close()
		return nil, fmt.Errorf("virtual input: %w", err)
	}
	return v, nil
}

// Close unplugs both.
func (v *Virtual) Close() { _ = v.conn.Close() }

func (v *Virtual) setUp() error {
	out := &v.conn.Out
	proto.WlDisplay(wire.DisplayID).GetRegistry(out, proto.WlRegistry(vRegistry))
	names := map[string]uint32{}
	err := v.roundTrip(vSync, func(m wire.Message) {
		var ev proto.WlRegistryGlobalEvent
		if m.Object == vRegistry && m.Opcode == proto.EvWlRegistryGlobal && ev.Decode(m) == nil {
			names[ev.Interface] = ev.Name
		}
	})
	if err != nil {
		return err
	}
	for _, g := range []struct {
		iface string
		id    wire.ID
	}{{"wl_seat", vSeat}, {"zwlr_virtual_pointer_manager_v1", vPointers}, {"zwp_virtual_keyboard_manager_v1", vKeyboards}} {
		if names[g.iface] == 0 {
			return fmt.Errorf("the compositor has no %s", g.iface)
		}
		if g.id == vKeyboards { // ids come in order
			v.create(vPointers, vPointer)
		}
		proto.WlRegistry(vRegistry).Bind(out, names[g.iface], g.iface, 1, g.id)
	}
	v.create(vKeyboards, vKeyboard)
	if err := v.sendKeymap(); err != nil {
		return err
	}
	return v.roundTrip(vSync2, func(wire.Message) {})
}

// create asks a manager for its device on our seat.
func (v *Virtual) create(manager, id wire.ID) {
	out := &v.conn.Out
	out.Begin(manager, vCreate)
	out.Object(vSeat)
	out.Object(id)
	out.End()
}

func (v *Virtual) sendKeymap() error {
	raw, err := unix.MemfdCreate("keymap", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("memfd_create: %w", err)
	}
	fd := dmabuf.NewFD(raw, "keymap")
	text := []byte(keymap + "\x00")
	if _, err := unix.Write(raw, text); err != nil {
		_ = fd.Close()
		return fmt.Errorf("write keymap: %w", err)
	}
	out := &v.conn.Out
	out.Begin(vKeyboard, vkKeymap)
	out.Uint(uint32(proto.WlKeyboardKeymapFormatXkbV1))
	out.FD(fd)
	out.Uint(uint32(len(text)))
	out.End()
	return nil
}

// roundTrip waits until the compositor has served everything, and shows its events.
func (v *Virtual) roundTrip(callback wire.ID, event func(wire.Message)) error {
	proto.WlDisplay(wire.DisplayID).Sync(&v.conn.Out, proto.WlCallback(callback))
	if err := v.conn.Flush(); err != nil {
		return err
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		poll := []unix.PollFd{{Fd: int32(v.conn.FD()), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, 100); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if _, err := v.conn.Receive(); err != nil {
			return err
		}
		for {
			m, ok, err := v.conn.Next()
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			if m.Object == wire.DisplayID && m.Opcode == proto.EvWlDisplayError {
				var ev proto.WlDisplayErrorEvent
				err := ev.Decode(m)
				return fmt.Errorf("the compositor says: object %d, code %d: %s (%v)", ev.ObjectId, ev.Code, ev.Message, err)
			}
			if m.Object == callback {
				return nil
			}
			event(m)
		}
	}
	return errors.New("the compositor does not answer")
}

func (v *Virtual) request(object wire.ID, opcode uint16, args ...uint32) {
	out := &v.conn.Out
	out.Begin(object, opcode)
	for _, a := range args {
		out.Uint(a)
	}
	out.End()
}

func (v *Virtual) time() uint32 {
	v.now += 10
	return v.now
}

// Key presses or releases a key by its evdev code.
func (v *Virtual) Key(code uint32, down bool) error {
	v.request(vKeyboard, vkKey, v.time(), code, number(down))
	return v.conn.Flush()
}

// To moves the pointer to x, y of the whole output of w x h.
func (v *Virtual) To(x, y, w, h uint32) error {
	v.request(vPointer, vpMotionAbsolute, v.time(), x, y, w, h)
	return v.frame()
}

// Button presses or releases a button by its evdev code.
func (v *Virtual) Button(code uint32, down bool) error {
	v.request(vPointer, vpButton, v.time(), code, number(down))
	return v.frame()
}

// Turn turns the wheel by detents, positive down and right.
func (v *Virtual) Turn(axis proto.WlPointerAxis, detents int32) error {
	v.request(vPointer, vpAxisSource, uint32(proto.WlPointerAxisSourceWheel))
	v.request(vPointer, vpAxisDiscrete, v.time(), uint32(axis), uint32(wire.FixedInt(15*detents)), uint32(detents))
	return v.frame()
}

func (v *Virtual) frame() error {
	v.request(vPointer, vpFrame)
	return v.conn.Flush()
}

func number(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}
