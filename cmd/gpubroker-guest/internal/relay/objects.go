package relay

import (
	"fmt"
	"sync"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

// maxObjects bounds the objects of a client, those included that are gone here and
// not yet on the host.
const maxObjects = 1 << 16

// object is what an id of the client's connection means.
type object struct {
	id      wire.ID
	iface   proto.InterfaceID
	version uint32
	local   bool // the host does not know it
	gone    bool // destroyed; events for it may be on their way
	data    any  // what the relay keeps for the interface, nil if nothing
}

// objects is the table of a client's objects. Safe for concurrent use; what an object
// holds is not: data is set before others can see the object, or under mu.
type objects struct {
	mu sync.Mutex
	m  map[wire.ID]*object
}

func newObjects() *objects {
	display := &object{id: wire.DisplayID, iface: proto.IWlDisplay, version: 1}
	return &objects{m: map[wire.ID]*object{display.id: display}}
}

// get returns an object, nil if the id has none.
func (t *objects) get(id wire.ID) *object {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.m[id]
}

// live returns an object that the client may use.
func (t *objects) live(id wire.ID) (*object, error) {
	o := t.get(id)
	if o == nil || o.gone {
		return nil, displayError(codeInvalidObject, "invalid object %d", id)
	}
	return o, nil
}

// add makes an object for a new_id of the client.
func (t *objects) add(id wire.ID, iface proto.InterfaceID, version uint32, local bool) (*object, error) {
	if id == 0 || id >= wire.ServerIDs {
		return nil, displayError(codeInvalidObject, "new id %d is not one of the client's (1 to %d)", id, wire.ServerIDs-1)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.m[id] != nil {
		return nil, displayError(codeInvalidObject, "new id %d is in use", id)
	}
	if len(t.m) >= maxObjects {
		return nil, displayError(codeNoMemory, "%d objects, the limit", maxObjects)
	}
	o := &object{id: id, iface: iface, version: version, local: local}
	t.m[id] = o
	return o, nil
}

// addServer makes an object for a new_id in an event. The compositor gives an id
// again once the client has destroyed what had it.
func (t *objects) addServer(id wire.ID, iface proto.InterfaceID, version uint32, data any) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.m[id]; id < wire.ServerIDs || old != nil && !old.gone {
		return fmt.Errorf("new id %d of a %v cannot be had", id, iface)
	}
	if len(t.m) >= maxObjects {
		return fmt.Errorf("%w: %d objects", ErrLimit, maxObjects)
	}
	t.m[id] = &object{id: id, iface: iface, version: version, data: data}
	return nil
}

// destroy notes that an object is gone for the client. The id comes free with the
// host's delete_id, or at once for objects that end here (then remove is true).
func (t *objects) destroy(o *object) (remove bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o.gone = true
	if o.local {
		delete(t.m, o.id)
	}
	return o.local
}

// forget frees the id of an object for the client's next.
func (t *objects) forget(id wire.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.m, id)
}

// take returns all objects and empties the table.
func (t *objects) take() map[wire.ID]*object {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.m
	t.m = map[wire.ID]*object{}
	return m
}

// setData changes what an object holds.
func (t *objects) setData(o *object, data any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o.data = data
}

// data returns what an object holds.
func (t *objects) data(o *object) any {
	t.mu.Lock()
	defer t.mu.Unlock()
	return o.data
}
