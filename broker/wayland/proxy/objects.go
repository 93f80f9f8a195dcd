package proxy

import (
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

// object is a protocol object of the guest, of the proxy, or of both sides.
type object struct {
	iface   proto.InterfaceID
	version uint32
	guest   wire.ID // 0: an object of the proxy alone
	host    wire.ID // 0: one that the compositor does not know
	// dead: its owner destroyed it, and the compositor has not said so yet. Events
	// for it are dropped, and nobody may name it.
	dead bool
	// own handles the events of an object that the guest does not know; nil drops them.
	own func(c *client, m *message) error
	// data is what the handlers of the interface keep.
	data any
}

// objects maps ids of both sides. Ids of the client range are translated both ways.
// So are those of the compositor's range: the proxy makes buffers in the
// compositor's name, and libwayland wants such ids without gaps.
type objects struct {
	guest map[wire.ID]*object
	host  []*object // by id; 0 and unused are nil
	// server holds the compositor's own objects. Nobody is told when such an id is
	// free, so that a dead one stays until the compositor uses the id again.
	server map[wire.ID]*object

	freeHost   []wire.ID // host ids below len(host) that are free
	nextServer wire.ID   // the first id of the compositor's range that the guest has not seen
	freeServer []wire.ID
	pool       []*object // for reuse
}

func newObjects() objects {
	o := objects{
		guest:      map[wire.ID]*object{},
		host:       []*object{nil, nil},
		server:     map[wire.ID]*object{},
		nextServer: wire.ServerIDs,
	}
	display := &object{iface: proto.IWlDisplay, version: 1, guest: wire.DisplayID, host: wire.DisplayID}
	o.guest[wire.DisplayID] = display
	o.host[wire.DisplayID] = display
	return o
}

// len returns the number of objects on either side.
func (t *objects) len() int {
	return max(len(t.guest), len(t.host)-len(t.freeHost)) + len(t.server)
}

func (t *objects) make() *object {
	if n := len(t.pool); n > 0 {
		o := t.pool[n-1]
		t.pool = t.pool[:n-1]
		return o
	}
	return new(object)
}

// recycle keeps an object that no table and no handler knows any more.
func (t *objects) recycle(o *object) {
	if o.data == nil && o.own == nil && len(t.pool) < 64 {
		*o = object{}
		t.pool = append(t.pool, o)
	}
}

// addGuest registers an object that the guest made.
func (t *objects) addGuest(id wire.ID, iface proto.InterfaceID, version uint32) *object {
	o := t.make()
	*o = object{iface: iface, version: version, guest: id}
	t.guest[id] = o
	return o
}

// allot gives an object the next free id on the host's side.
func (t *objects) allot(o *object) wire.ID {
	if n := len(t.freeHost); n > 0 {
		o.host = t.freeHost[n-1]
		t.freeHost = t.freeHost[:n-1]
		t.host[o.host] = o
		return o.host
	}
	t.host = append(t.host, o)
	o.host = wire.ID(len(t.host) - 1)
	return o.host
}

// addOwn makes an object of the proxy.
func (t *objects) addOwn(iface proto.InterfaceID, version uint32, own func(*client, *message) error) *object {
	o := t.make()
	*o = object{iface: iface, version: version, own: own}
	t.allot(o)
	return o
}

// announce gives an object an id of the compositor's range on the guest's side.
func (t *objects) announce(o *object) wire.ID {
	if n := len(t.freeServer); n > 0 {
		o.guest = t.freeServer[n-1]
		t.freeServer = t.freeServer[:n-1]
	} else {
		o.guest = t.nextServer
		t.nextServer++
	}
	t.guest[o.guest] = o
	return o.guest
}

// findHost returns the object that the compositor names; nil if there is none.
func (t *objects) findHost(id wire.ID) *object {
	if id >= wire.ServerIDs {
		return t.server[id]
	}
	if int64(id) < int64(len(t.host)) {
		return t.host[id]
	}
	return nil
}

// forgetGuest frees the guest's id.
func (t *objects) forgetGuest(o *object) {
	if o.guest == 0 {
		return
	}
	delete(t.guest, o.guest)
	if o.guest >= wire.ServerIDs {
		t.freeServer = append(t.freeServer, o.guest)
	}
	o.guest = 0
}

// forgetHost frees the host's id, which the compositor has just given back.
func (t *objects) forgetHost(o *object) {
	t.host[o.host] = nil
	t.freeHost = append(t.freeHost, o.host)
	o.host = 0
}
