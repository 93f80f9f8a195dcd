package wayland_test

import (
	"fmt"
	"testing"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/wayland"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/waylandtest"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

const allDevices = proto.WlSeatCapabilityKeyboard | proto.WlSeatCapabilityTouch

// twoHeads shows a window for each of two heads, 64x32, on a compositor with a seat.
func twoHeads(t *testing.T, cfg waylandtest.Config) (*waylandtest.Compositor, *wayland.Sink, *recorder) {
	t.Helper()
	cfg.Seat, cfg.Devices = true, allDevices
	b := shm(t, 1)
	c, r := waylandtest.New(t, cfg), &recorder{}
	mode := display.Mode{Enabled: true, W: 64, H: 32}
	s := openSink(t, wayland.Config{Display: c.Socket(), Input: r, Modes: []display.Mode{mode, mode}})
	t.Cleanup(func() { closeSink(t, s) })
	for head := range 2 {
		f := frameOf(b)
		f.Head = head
		s.Present(f)
		c.WaitFrames(t, head+1)
	}
	return c, s, r
}

func at(x, y float64) (wire.Fixed, wire.Fixed) { return wire.FixedFloat(x), wire.FixedFloat(y) }

func TestKeyboard(t *testing.T) {
	const a, b = 30, 48 // KEY_A, KEY_B
	c, s, r := twoHeads(t, waylandtest.Config{SeatVersion: 10})
	key := func(d waylandtest.Devices, code uint32, state proto.WlKeyboardKeyState) {
		d.Keyboard.SendKey(d.Out, 1, 1, code, state)
	}
	r.expect(t, c, "keys without focus", func(d waylandtest.Devices) { key(d, a, 1) })
	r.expect(t, c, "enter with a key down", func(d waylandtest.Devices) {
		d.Keyboard.SendEnter(d.Out, 1, d.Windows[0], []byte{a, 0, 0, 0})
		d.Keyboard.SendModifiers(d.Out, 1, 1, 0, 0, 0)
	})
	r.expect(t, c, "its release", func(d waylandtest.Devices) { key(d, a, 0) })
	r.expect(t, c, "a stroke", func(d waylandtest.Devices) { key(d, a, 1); key(d, a, 0) },
		"0:key+30", "0:frame", "0:key-30", "0:frame")
	r.expect(t, c, "repeats", func(d waylandtest.Devices) { key(d, a, 1); key(d, a, 2); key(d, a, 1) }, "0:key+30", "0:frame")
	r.expect(t, c, "a code beyond KEY_MAX", func(d waylandtest.Devices) { key(d, 0x300, 1); key(d, 1<<31, 1) })
	r.expect(t, c, "leave", func(d waylandtest.Devices) {
		key(d, b, 1)
		d.Keyboard.SendLeave(d.Out, 2, d.Windows[0])
		key(d, b, 0)
	}, "0:key+48", "0:frame", "0:key-30", "0:key-48", "0:frame")
	r.expect(t, c, "the other head", func(d waylandtest.Devices) {
		d.Keyboard.SendEnter(d.Out, 3, d.Windows[1], nil)
		key(d, 0x2ff, 1)
	}, "1:key+767", "1:frame")
	r.take()
	s.Disable(1) // its window closes two seconds later
	waylandtest.Eventually(t, "the key of a closed window is released", func() bool { return r.has("1:key-767", "1:frame") })
}

func TestPointer(t *testing.T) {
	c, _, r := twoHeads(t, waylandtest.Config{SeatVersion: 8})
	enter := func(d waylandtest.Devices, head int, x, y float64) {
		fx, fy := at(x, y)
		d.Pointer.SendEnter(d.Out, 9, d.Windows[head], fx, fy)
	}
	r.expect(t, c, "enter", func(d waylandtest.Devices) { enter(d, 0, 32, 8); d.Pointer.SendFrame(d.Out) },
		"0:pointer(16384,8192)", "0:frame")
	r.expect(t, c, "click", func(d waylandtest.Devices) {
		x, y := at(63.996, -1)
		d.Pointer.SendMotion(d.Out, 1, x, y)
		d.Pointer.SendButton(d.Out, 1, 1, 0x110, 1)
		d.Pointer.SendFrame(d.Out)
		d.Pointer.SendButton(d.Out, 1, 1, 0x110, 0)
		d.Pointer.SendFrame(d.Out)
	}, "0:pointer(32766,0)", "0:button+0x110", "0:frame", "0:button-0x110", "0:frame")
	r.expect(t, c, "an empty frame", func(d waylandtest.Devices) { d.Pointer.SendFrame(d.Out) })
	r.expect(t, c, "from head to head with a button down", func(d waylandtest.Devices) {
		d.Pointer.SendButton(d.Out, 1, 1, 0x111, 1)
		d.Pointer.SendLeave(d.Out, 1, d.Windows[0])
		enter(d, 1, 0, 31)
		d.Pointer.SendFrame(d.Out)
	}, "0:button+0x111", "0:button-0x111", "0:frame", "1:pointer(0,31744)", "1:frame")
	r.expect(t, c, "outside", func(d waylandtest.Devices) {
		d.Pointer.SendLeave(d.Out, 1, d.Windows[1])
		d.Pointer.SendFrame(d.Out)
		d.Pointer.SendMotion(d.Out, 1, 0, 0)
		d.Pointer.SendFrame(d.Out)
	})
	if p := c.Pointers(); len(p) != 2 || p[0] != (waylandtest.Pointer{Serial: 9}) {
		t.Errorf("cursors %v, want it hidden at each of two enters", p)
	}
}

func TestWheel(t *testing.T) {
	const v, h = proto.WlPointerAxisVerticalScroll, proto.WlPointerAxisHorizontalScroll
	axis := func(d waylandtest.Devices, which proto.WlPointerAxis, length float64) {
		d.Pointer.SendAxis(d.Out, 1, which, wire.FixedFloat(length))
	}
	for _, c := range []struct {
		version uint32
		send    func(d waylandtest.Devices)
		want    []string
	}{
		{8, func(d waylandtest.Devices) {
			axis(d, v, 15)
			d.Pointer.SendAxisValue120(d.Out, v, 120)
			d.Pointer.SendFrame(d.Out)
			axis(d, v, -1)
			d.Pointer.SendAxisValue120(d.Out, v, -30)
			axis(d, h, 3)
			d.Pointer.SendAxisValue120(d.Out, h, 60)
			d.Pointer.SendFrame(d.Out)
		}, []string{"0:scroll(120,0)", "0:frame", "0:scroll(-30,60)", "0:frame"}},
		{7, func(d waylandtest.Devices) {
			axis(d, h, 30)
			d.Pointer.SendAxisDiscrete(d.Out, h, -2)
			d.Pointer.SendFrame(d.Out)
		}, []string{"0:scroll(0,-240)", "0:frame"}},
		// A touchpad: 0.04 of a length unit is less than a 120th, ten of them are 4.
		{5, func(d waylandtest.Devices) {
			axis(d, v, 10)
			d.Pointer.SendFrame(d.Out)
			for range 8 {
				d.Pointer.SendAxis(d.Out, 1, v, 11)
				d.Pointer.SendFrame(d.Out)
			}
			d.Pointer.SendAxisStop(d.Out, 1, v)
			d.Pointer.SendFrame(d.Out)
			axis(d, v, 0.05)
			d.Pointer.SendFrame(d.Out)
		}, []string{"0:scroll(120,0)", "0:frame", "0:scroll(1,0)", "0:frame", "0:scroll(1,0)", "0:frame", "0:scroll(1,0)", "0:frame", "0:scroll(1,0)", "0:frame"}},
		{4, func(d waylandtest.Devices) { axis(d, v, -5) }, []string{"0:scroll(-60,0)", "0:frame"}},
	} {
		t.Run(fmt.Sprint("version ", c.version), func(t *testing.T) {
			comp, _, r := twoHeads(t, waylandtest.Config{SeatVersion: c.version})
			comp.Input(func(d waylandtest.Devices) {
				d.Pointer.SendEnter(d.Out, 1, d.Windows[0], 0, 0)
				if c.version >= 5 {
					d.Pointer.SendFrame(d.Out)
				}
			})
			waylandtest.Eventually(t, "the pointer is in", func() bool { return r.has("0:pointer(0,0)", "0:frame") })
			r.expect(t, comp, "wheel", c.send, c.want...)
		})
	}
}

func TestTouch(t *testing.T) {
	c, _, r := twoHeads(t, waylandtest.Config{})
	down := func(d waylandtest.Devices, head int, id int32, x, y float64) {
		fx, fy := at(x, y)
		d.Touch.SendDown(d.Out, 1, 1, d.Windows[head], id, fx, fy)
	}
	r.expect(t, c, "two fingers", func(d waylandtest.Devices) {
		down(d, 0, 1000, 32, 16)
		down(d, 0, -7, 16, 8)
		d.Touch.SendFrame(d.Out)
	}, "0:touch+0(16384,16384)", "0:touch+1(8192,8192)", "0:frame")
	r.expect(t, c, "one moves, one goes, one comes", func(d waylandtest.Devices) {
		x, y := at(48, 100)
		d.Touch.SendMotion(d.Out, 1, -7, x, y)
		d.Touch.SendUp(d.Out, 1, 1, 1000)
		down(d, 1, 5, 0, 0)
		d.Touch.SendFrame(d.Out)
	}, "0:touch+1(24576,32767)", "0:touch-0(16384,16384)", "1:touch+0(0,0)", "0:frame", "1:frame")
	r.expect(t, c, "an unknown finger", func(d waylandtest.Devices) {
		d.Touch.SendMotion(d.Out, 1, 99, 0, 0)
		d.Touch.SendUp(d.Out, 1, 1, 99)
		d.Touch.SendFrame(d.Out)
	})
	r.expect(t, c, "cancel", func(d waylandtest.Devices) { d.Touch.SendCancel(d.Out) },
		"1:touch-0(0,0)", "0:touch-1(24576,32767)", "0:frame", "1:frame")
	hands := make([]string, 0, 17)
	for i := range 16 {
		hands = append(hands, fmt.Sprintf("0:touch+%d(0,0)", i))
	}
	r.expect(t, c, "seventeen fingers", func(d waylandtest.Devices) {
		for i := range int32(17) {
			down(d, 0, i, 0, 0)
		}
		d.Touch.SendFrame(d.Out)
	}, append(hands, "0:frame")...)
}

// TestInputEndsWithConnection: whatever is down is released when the compositor goes.
func TestInputEndsWithConnection(t *testing.T) {
	c, _, r := twoHeads(t, waylandtest.Config{})
	c.Input(func(d waylandtest.Devices) {
		d.Keyboard.SendEnter(d.Out, 1, d.Windows[0], nil)
		d.Keyboard.SendKey(d.Out, 1, 1, 30, 1)
		d.Pointer.SendEnter(d.Out, 1, d.Windows[1], 0, 0)
		d.Pointer.SendButton(d.Out, 1, 1, 0x110, 1)
		d.Touch.SendDown(d.Out, 1, 1, d.Windows[0], 3, 0, 0)
	})
	waylandtest.Eventually(t, "all is down", func() bool { return r.has("0:key+30", "1:button+0x110", "0:touch+0(0,0)") })
	c.Kill()
	for _, word := range []string{"0:key-30", "1:button-0x110", "0:touch-0(0,0)"} {
		waylandtest.Eventually(t, word, func() bool { return r.has(word) })
	}
}

// TestNoInput: a sink without a display.Input asks for nothing but the pointer, which
// it hides.
func TestNoInput(t *testing.T) {
	b := shm(t, 1)
	c, s, _ := connect(t, waylandtest.Config{Seat: true, Devices: allDevices})
	defer closeSink(t, s)
	s.Present(frameOf(b))
	c.WaitFrames(t, 1)
	c.Input(func(d waylandtest.Devices) {
		if d.Pointer == 0 || d.Keyboard != 0 || d.Touch != 0 {
			t.Errorf("devices %+v, want only the pointer", d)
		}
		d.Pointer.SendEnter(d.Out, 4, d.Windows[0], 0, 0)
		d.Pointer.SendButton(d.Out, 1, 1, 0x110, 1)
		d.Pointer.SendFrame(d.Out)
	})
	waylandtest.Eventually(t, "the pointer is hidden", func() bool { return len(c.Pointers()) == 1 })
}
