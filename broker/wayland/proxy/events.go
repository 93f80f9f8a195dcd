package proxy

import (
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

// event checks a message of the compositor against the tables and handles it.
func (c *client) event(raw wire.Message) error {
	m := &c.evt
	m.raw = raw
	m.obj = c.objs.findHost(raw.Object)
	if m.obj == nil {
		return hostFault("event %d for object %#x, which does not exist", raw.Opcode, uint32(raw.Object))
	}
	m.desc = m.obj.iface.Event(raw.Opcode)
	if m.desc == nil {
		return hostFault("event %d is not in %v", raw.Opcode, m.obj.iface)
	}
	find := c.objs.findHost
	if raw.Object == wire.DisplayID {
		find = c.findBlamed
	}
	if bad := m.parse(find); bad != nil {
		return hostFault("%s: argument %s %s %d", m.name(), bad.arg, bad.text, bad.num)
	}
	for range m.desc.FDs {
		_ = m.fd.Close()
		if m.fd = raw.FDs.Take(); m.fd == nil {
			return hostFault("%s: the descriptor is missing", m.name())
		}
	}
	if m.made != 0 {
		if err := c.adoptHost(m); err != nil {
			return err
		}
	}
	c.p.stats.Events.Add(1)
	err := c.handleEvent(m)
	_ = m.fd.Close()
	m.fd = nil
	return err
}

func (c *client) handleEvent(m *message) error {
	o := m.obj
	// Some compositors send what a version does not have; libwayland's clients crash.
	if o.dead || m.desc.Since > o.version {
		return nil
	}
	switch h := eventHandlers[o.iface][m.raw.Opcode]; {
	case o.own != nil:
		return o.own(c, m)
	case o.guest == 0:
		return nil
	case h != nil:
		if err := h(c, m); err != nil {
			return err
		}
	default:
		c.relay(m)
	}
	if m.desc.Destructor {
		o.dead = true
	}
	return nil
}

// adoptHost registers the object that an event makes. If the guest does not know the
// sender any more, the object is dead from the start.
func (c *client) adoptHost(m *message) error {
	if m.made < wire.ServerIDs {
		return hostFault("%s: new id %#x, want one from %#x", m.name(), uint32(m.made), uint32(wire.ServerIDs))
	}
	if old := c.objs.server[m.made]; old != nil && !old.dead {
		return hostFault("%s: new id %#x is a living %v", m.name(), uint32(m.made), old.iface)
	}
	if n := c.objs.len(); n >= c.limits.Objects {
		return over(wire.DisplayID, "objects", int64(n+1), int64(c.limits.Objects))
	}
	o := c.objs.make()
	*o = object{iface: m.kind, version: m.obj.version, host: m.made}
	c.objs.server[m.made] = o
	m.refs[m.slot] = o
	if m.obj.dead || m.obj.guest == 0 {
		o.dead = m.obj.dead || m.obj.own == nil
		return nil
	}
	c.objs.announce(o)
	return nil
}

// findBlamed finds what wl_display.error is about, if need be the display itself.
func (c *client) findBlamed(id wire.ID) *object {
	if o := c.objs.findHost(id); o != nil {
		return o
	}
	return c.objs.host[wire.DisplayID]
}

// relay sends an event on with the guest's ids.
func (c *client) relay(m *message) {
	if c.start(m) {
		c.out.End()
	}
}

// start writes an event without ending it. It is false if the event is about
// something that the guest does not know.
func (c *client) start(m *message) bool {
	for i := range m.desc.Args {
		if o := m.refs[i]; o != nil && o.guest == 0 && !m.desc.Args[i].Nullable {
			return false
		}
	}
	out := &c.out
	out.Begin(m.obj.guest, m.raw.Opcode)
	out.Raw(m.raw.Body)
	for i := range m.desc.Args {
		if o := m.refs[i]; o != nil {
			out.Patch(m.at[i], uint32(o.guest))
		}
	}
	return true
}

// displayError passes the compositor's verdict on, which ends the client.
func displayError(c *client, m *message) error {
	var guest wire.ID = wire.DisplayID
	text, code := string(m.bytes(2)), m.uint(1)
	iface := proto.IWlDisplay
	if o := m.refs[0]; o != nil {
		iface = o.iface
		if o.guest != 0 {
			guest = o.guest
		}
		if imp, ok := o.data.(*importing); ok {
			c.p.refuse(imp.format)
		}
	}
	proto.WlDisplay(wire.DisplayID).SendError(&c.out, guest, code, short(text))
	c.told = true
	return hostFault("it reports error %d of %v: %s", code, iface, text)
}

// displayDelete frees an id, on the guest's side too if it knows the object.
func displayDelete(c *client, m *message) error {
	id := wire.ID(m.uint(0))
	o := c.objs.findHost(id)
	if o == nil || id <= wire.DisplayID || id >= wire.ServerIDs {
		return hostFault("delete_id of %#x, which does not exist", uint32(id))
	}
	c.objs.forgetHost(o)
	if o.guest != 0 {
		c.deleteID(o)
	}
	// The compositor may end objects by itself.
	freeData(c, o)
	o.dead = true
	c.objs.recycle(o)
	return nil
}
