package proxy

import (
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

// requestHandlers are the requests that are not simply sent on. A handler forwards
// the message itself, if at all; made objects are registered already.
var requestHandlers [][]func(c *client, m *message) error

// eventHandlers are the events that are not simply sent on.
var eventHandlers [][]func(c *client, m *message) error

func init() {
	requestHandlers = make([][]func(*client, *message) error, len(proto.Interfaces))
	eventHandlers = make([][]func(*client, *message) error, len(proto.Interfaces))
	for i := range proto.Interfaces {
		requestHandlers[i] = make([]func(*client, *message) error, len(proto.Interfaces[i].Requests))
		eventHandlers[i] = make([]func(*client, *message) error, len(proto.Interfaces[i].Events))
	}
	for _, h := range handlers {
		if h.event {
			eventHandlers[h.iface][h.opcode] = h.f
		} else {
			requestHandlers[h.iface][h.opcode] = h.f
		}
	}
}

// itemsOf returns how many items a request brings in the client's dialect.
func (c *client) itemsOf(m *message) int {
	if c.dialect.BufferItems {
		switch {
		case m.obj.iface == proto.IWlShm && m.opcode() == proto.OpWlShmCreatePool:
			return 0
		case m.obj.iface == proto.IWlShmPool && m.opcode() == proto.OpWlShmPoolCreateBuffer:
			return 1
		}
	}
	return m.desc.FDs
}

// findGuest returns a living object of the guest.
func (c *client) findGuest(id wire.ID) *object {
	if o := c.objs.guest[id]; o != nil && !o.dead {
		return o
	}
	return nil
}

// request checks a message of the guest against the tables and handles it.
func (c *client) request(raw wire.Message) error {
	m := &c.req
	m.raw = raw
	m.obj = c.findGuest(raw.Object)
	if m.obj == nil {
		return fault(wire.DisplayID, codeObject, "request %d for object %d, which does not exist", raw.Opcode, raw.Object)
	}
	m.desc = m.obj.iface.Request(raw.Opcode)
	if m.desc == nil || m.desc.Since > m.obj.version {
		return fault(m.obj.guest, codeMethod, "request %d is not in version %d of %v", raw.Opcode, m.obj.version, m.obj.iface)
	}
	if bad := m.parse(c.findGuest); bad != nil {
		return fault(m.obj.guest, codeMethod, "%s: argument %s %s %d", m.name(), bad.arg, bad.text, bad.num)
	}
	if err := c.claim(m); err != nil {
		return err
	}
	if m.made != 0 {
		if err := c.adopt(m); err != nil {
			return err
		}
	}
	c.p.stats.Requests.Add(1)
	var err error
	if h := requestHandlers[m.obj.iface][raw.Opcode]; h != nil {
		err = h(c, m)
	} else {
		err = c.forward(m)
	}
	m.item.Close()
	if err != nil {
		return err
	}
	if m.desc.Destructor && !m.sent {
		c.destroyed(m.obj)
	}
	return nil
}

// claim takes the item that a request brings.
func (c *client) claim(m *message) error {
	m.item = Item{}
	n := c.itemsOf(m)
	if n == 0 {
		return nil
	}
	if n > len(c.inbox) {
		return fault(m.obj.guest, codeMethod, "%s brings %d items, %d came", m.name(), n, len(c.inbox))
	}
	m.item = c.inbox[0]
	rest := copy(c.inbox, c.inbox[1:])
	c.inbox[rest] = Item{}
	c.inbox = c.inbox[:rest]
	return nil
}

// adopt registers the object that a request makes.
func (c *client) adopt(m *message) error {
	if m.made >= wire.ServerIDs {
		return fault(m.obj.guest, codeMethod, "%s: new id %#x, want one below %#x", m.name(), uint32(m.made), uint32(wire.ServerIDs))
	}
	if c.objs.guest[m.made] != nil {
		return fault(m.obj.guest, codeMethod, "%s: new id %d is in use", m.name(), m.made)
	}
	if n := c.objs.len(); n >= c.limits.Objects {
		return over(m.obj.guest, "objects", int64(n+1), int64(c.limits.Objects))
	}
	m.refs[m.slot] = c.objs.addGuest(m.made, m.kind, m.obj.version)
	return nil
}

// forward sends a request on with the compositor's ids.
func (c *client) forward(m *message) error {
	c.begin(m)
	c.conn.Out.End()
	return c.conn.Out.Err()
}

// begin writes a request without ending it.
func (c *client) begin(m *message) {
	out := &c.conn.Out
	out.Begin(m.obj.host, m.raw.Opcode)
	out.Raw(m.raw.Body)
	for i := range m.desc.Args {
		switch m.desc.Args[i].Type {
		case proto.Object:
			if m.refs[i] != nil {
				out.Patch(m.at[i], uint32(m.refs[i].host))
			}
		case proto.NewID:
			out.Patch(m.at[i], uint32(c.objs.allot(m.refs[i])))
		}
	}
}

// destroyed notes that the guest destroyed an object. The guest may use the id again
// when it is told so: by the compositor if that knows the object, else by us.
func (c *client) destroyed(o *object) {
	if d, ok := o.data.(closer); ok {
		o.data = nil
		d.free(c)
	}
	o.dead = true
	switch {
	case o.guest >= wire.ServerIDs: // nobody tells
		c.objs.forgetGuest(o)
		if o.host == 0 {
			c.objs.recycle(o)
		}
	case o.host == 0, o.host >= wire.ServerIDs:
		c.deleteID(o)
		if o.host == 0 {
			c.objs.recycle(o)
		}
	}
}

// deleteID gives an id back to the guest.
func (c *client) deleteID(o *object) {
	if o.guest < wire.ServerIDs {
		proto.WlDisplay(wire.DisplayID).SendDeleteId(&c.out, uint32(o.guest))
	}
	c.objs.forgetGuest(o)
}
