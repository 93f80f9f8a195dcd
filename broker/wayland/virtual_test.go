package wayland_test

import (
	"testing"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

// virtualPointer is a client of zwlr_virtual_pointer_v1, the mouse that wlroots'
// compositors let programs have. Its requests are few enough to write by hand
// (wlr-virtual-pointer-unstable-v1.xml, version 1).
type virtualPointer struct {
	t    *testing.T
	conn *wire.Conn
}

// The ids of its objects, and the opcodes of its requests.
const (
	vpRegistry wire.ID = iota + 2
	vpSync
	vpManager
	vpPointer

	vpMotionAbsolute = 1
	vpButton         = 2
	vpAxis           = 3
	vpFrame          = 4
	vpAxisSource     = 5
	vpAxisDiscrete   = 7
)

// newVirtualPointer plugs the mouse in; the test's end pulls it out.
func newVirtualPointer(t *testing.T, socket string) *virtualPointer {
	t.Helper()
	conn, err := wire.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	p := &virtualPointer{t, conn}
	out := &conn.Out
	proto.WlDisplay(wire.DisplayID).GetRegistry(out, proto.WlRegistry(vpRegistry))
	proto.WlDisplay(wire.DisplayID).Sync(out, proto.WlCallback(vpSync))
	p.send()
	manager := uint32(0)
	eventually(t, "the compositor's globals", func() bool {
		if _, err := conn.Receive(); err != nil {
			t.Fatal(err)
		}
		for {
			m, ok, err := conn.Next()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				return false
			}
			if m.Object == vpSync {
				return true
			}
			var ev proto.WlRegistryGlobalEvent
			if m.Object == vpRegistry && ev.Decode(m) == nil && ev.Interface == "zwlr_virtual_pointer_manager_v1" {
				manager = ev.Name
			}
		}
	})
	if manager == 0 {
		t.Fatal("the compositor has no zwlr_virtual_pointer_manager_v1")
	}
	proto.WlRegistry(vpRegistry).Bind(out, manager, "zwlr_virtual_pointer_manager_v1", 1, vpManager)
	out.Begin(vpManager, 0) // create_virtual_pointer
	out.Object(0)
	out.Object(vpPointer)
	out.End()
	p.send()
	return p
}

func (p *virtualPointer) send() {
	p.t.Helper()
	if err := p.conn.Flush(); err != nil {
		p.t.Fatal(err)
	}
}

func (p *virtualPointer) request(opcode uint16, args ...uint32) {
	out := &p.conn.Out
	out.Begin(vpPointer, opcode)
	for _, a := range args {
		out.Uint(a)
	}
	out.End()
}

// frame ends a group and sends it.
func (p *virtualPointer) frame() {
	p.t.Helper()
	p.request(vpFrame)
	p.send()
}

// to moves to x, y of a screen of w x h.
func (p *virtualPointer) to(x, y, w, h uint32) {
	p.t.Helper()
	p.request(vpMotionAbsolute, 0, x, y, w, h)
	p.frame()
}

// press presses or releases a button.
func (p *virtualPointer) press(code uint32, down bool) {
	p.t.Helper()
	state := uint32(0)
	if down {
		state = 1
	}
	p.request(vpButton, 0, code, state)
	p.frame()
}

// turn turns the wheel by whole steps.
func (p *virtualPointer) turn(axis proto.WlPointerAxis, steps int32) {
	p.t.Helper()
	p.request(vpAxisSource, uint32(proto.WlPointerAxisSourceWheel))
	p.request(vpAxisDiscrete, 0, uint32(axis), uint32(wire.FixedInt(15*steps)), uint32(steps))
	p.frame()
}

// glide scrolls by a length, as a touchpad does.
func (p *virtualPointer) glide(axis proto.WlPointerAxis, length wire.Fixed) {
	p.t.Helper()
	p.request(vpAxisSource, uint32(proto.WlPointerAxisSourceFinger))
	p.request(vpAxis, 0, uint32(axis), uint32(length))
	p.frame()
}
