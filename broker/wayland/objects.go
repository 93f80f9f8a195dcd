package wayland

import (
	"fmt"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

// handler takes the events of the objects registered with it. The message is
// valid only during the call.
type handler interface {
	event(id wire.ID, iface proto.InterfaceID, m wire.Message) error
}

// object is an entry of the table. After our destructor h is nil, and events that
// were under way are skipped, their descriptors closed.
type object struct {
	iface proto.InterfaceID
	h     handler
}

// objects maps a connection's ids to who handles their events.
type objects struct {
	client []object           // by id
	free   []wire.ID          // ids that the compositor gave back
	server map[wire.ID]object // ids that the compositor allotted
}

func newObjects(display handler) *objects {
	return &objects{
		client: []object{{}, {proto.IWlDisplay, display}},
		server: map[wire.ID]object{},
	}
}

// add allots an id for a new object.
func (o *objects) add(iface proto.InterfaceID, h handler) wire.ID {
	if n := len(o.free); n > 0 {
		id := o.free[n-1]
		o.free = o.free[:n-1]
		o.client[id] = object{iface, h}
		return id
	}
	o.client = append(o.client, object{iface, h})
	return wire.ID(len(o.client) - 1)
}

// addServer registers an object that the compositor made.
func (o *objects) addServer(id wire.ID, iface proto.InterfaceID, h handler) error {
	if id < wire.ServerIDs {
		return fmt.Errorf("%w: %v made by the compositor has id %#x, want %#x or more", ErrProtocol, iface, uint32(id), uint32(wire.ServerIDs))
	}
	if old, ok := o.server[id]; ok && old.h != nil {
		return fmt.Errorf("%w: id %#x of a living %v is used again", ErrProtocol, uint32(id), old.iface)
	}
	o.server[id] = object{iface, h}
	return nil
}

// destroyed notes that our destructor for id was written. The id of a client's
// object is free again when the compositor says so.
func (o *objects) destroyed(id wire.ID) {
	if id >= wire.ServerIDs {
		e := o.server[id]
		e.h = nil
		o.server[id] = e
		return
	}
	if id != 0 {
		o.client[id].h = nil
	}
}

// deleted handles wl_display.delete_id.
func (o *objects) deleted(id wire.ID) error {
	if int64(id) >= int64(len(o.client)) || id <= wire.DisplayID || o.client[id].iface == 0 {
		return fmt.Errorf("%w: delete_id of %#x, which does not exist", ErrProtocol, uint32(id))
	}
	o.client[id] = object{}
	o.free = append(o.free, id)
	return nil
}

// find returns the entry of id; its iface is 0 if there is none.
func (o *objects) find(id wire.ID) object {
	if id >= wire.ServerIDs {
		return o.server[id]
	}
	if int64(id) < int64(len(o.client)) {
		return o.client[id]
	}
	return object{}
}

// dispatch hands an event to its object.
func (o *objects) dispatch(m wire.Message) error {
	obj := o.find(m.Object)
	desc := obj.iface.Event(m.Opcode)
	if desc == nil {
		return fmt.Errorf("%w: event %d for id %#x (%v)", ErrProtocol, m.Opcode, uint32(m.Object), obj.iface)
	}
	before := m.FDs.Len()
	if obj.h != nil {
		if err := obj.h.event(m.Object, obj.iface, m); err != nil {
			return err
		}
	}
	// A handler that does not care leaves the event's descriptors to us.
	if taken := before - m.FDs.Len(); taken < desc.FDs {
		return m.FDs.Skip(desc.FDs - taken)
	}
	return nil
}
