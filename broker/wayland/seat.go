package wayland

import (
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

// maxSeat is the highest wl_seat version used: 5 brought wl_seat.release.
const maxSeat = 5

// seat hides the compositor's pointer while it is over a window of ours: the
// guest draws its own.
type seat struct {
	se      *session
	wl      proto.WlSeat
	version uint32
	pointer proto.WlPointer
}

func (se *session) addSeat(name, version uint32) {
	st := &seat{se: se, version: min(version, maxSeat)}
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
	st.dropPointer()
	if st.version >= 5 {
		st.wl.Release(se.out())
		se.objs.destroyed(wire.ID(st.wl))
	}
}

func (st *seat) event(_ wire.ID, iface proto.InterfaceID, m wire.Message) error {
	if iface == proto.IWlSeat {
		return st.seatEvent(m)
	}
	if m.Opcode != proto.EvWlPointerEnter {
		return nil
	}
	var ev proto.WlPointerEnterEvent
	if err := ev.Decode(m); err != nil {
		return err
	}
	st.pointer.SetCursor(st.se.out(), ev.Serial, 0, 0, 0)
	return nil
}

func (st *seat) seatEvent(m wire.Message) error {
	if m.Opcode != proto.EvWlSeatCapabilities {
		return nil
	}
	var ev proto.WlSeatCapabilitiesEvent
	if err := ev.Decode(m); err != nil {
		return err
	}
	has := ev.Capabilities&proto.WlSeatCapabilityPointer != 0
	switch {
	case has && st.pointer == 0:
		st.pointer = proto.WlPointer(st.se.objs.add(proto.IWlPointer, st))
		st.wl.GetPointer(st.se.out(), st.pointer)
	case !has:
		st.dropPointer()
	}
	return nil
}

func (st *seat) dropPointer() {
	if st.pointer == 0 {
		return
	}
	if st.version >= 3 {
		st.pointer.Release(st.se.out())
		st.se.objs.destroyed(wire.ID(st.pointer))
	}
	st.pointer = 0
}
