package proxy

import (
	"slices"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
)

// global is one of the compositor's globals, or one of the proxy's own.
type global struct {
	name  uint32
	iface proto.InterfaceID
	host  uint32 // the compositor's version
	offer uint32 // the guest's version; 0: hidden
	own   bool   // there is none such in the compositor that guests use
	gone  bool   // removed; late binds are still sent on
}

// maxGlobals bounds what a compositor may announce; real ones have 20 to 60.
const maxGlobals = 1024

// dmabufGlobal is the name of our own zwp_linux_dmabuf_v1. Compositors count from 1.
const dmabufGlobal = 0xffff0000

// registryEvent keeps the list of globals and tells the guest of changes.
func registryEvent(c *client, m *message) error {
	name := m.uint(0)
	if m.opcode() == proto.EvWlRegistryGlobalRemove {
		for i := range c.globals {
			if g := &c.globals[i]; g.name == name && !g.gone {
				g.gone = true
				c.tellRegistries(g)
			}
		}
		return nil
	}
	iface := proto.Lookup(string(m.bytes(1)))
	if iface == 0 {
		return nil
	}
	if len(c.globals) >= maxGlobals {
		c.globals = slices.DeleteFunc(c.globals, func(g global) bool { return g.gone })
	}
	if len(c.globals) >= maxGlobals {
		return hostFault("more than %d globals", maxGlobals)
	}
	g := global{name: name, iface: iface, host: m.uint(2)}
	if c.host.learned {
		g.offer = c.offerOf(&g)
	}
	c.globals = append(c.globals, g)
	c.tellRegistries(&g)
	return nil
}

// offerGlobals decides what the guest sees, once the compositor's abilities are known.
func (c *client) offerGlobals() {
	for i := range c.globals {
		c.globals[i].offer = c.offerOf(&c.globals[i])
	}
	if v := c.dmabufOffer(); v > 0 {
		c.globals = append(c.globals, global{name: dmabufGlobal, iface: proto.IZwpLinuxDmabufV1, offer: v, own: true})
	}
}

// offerOf returns the version in which the guest sees a global, 0 for not at all.
func (c *client) offerOf(g *global) uint32 {
	switch g.iface {
	case proto.IZwpLinuxDmabufV1:
		return 0 // ours stands for it
	case proto.IWpPresentation:
		if !c.dialect.HasClock {
			return 0
		}
	case proto.IWpCommitTimingManagerV1:
		if !c.dialect.HasClock || c.host.presentation == nil {
			return 0
		}
	}
	return min(g.host, c.p.policy.version(g.iface))
}

// tellRegistries says to every registry of the guest what became of a global.
func (c *client) tellRegistries(g *global) {
	if g.offer == 0 {
		return
	}
	for _, o := range c.registries {
		if g.gone {
			proto.WlRegistry(o.guest).SendGlobalRemove(&c.out, g.name)
		} else {
			proto.WlRegistry(o.guest).SendGlobal(&c.out, g.name, g.iface.String(), g.offer)
		}
	}
}

// getRegistry makes a registry of the guest, which the compositor does not know.
func getRegistry(c *client, m *message) error {
	o := m.refs[m.slot]
	c.registries = append(c.registries, o)
	for i := range c.globals {
		if g := &c.globals[i]; g.offer > 0 && !g.gone {
			proto.WlRegistry(o.guest).SendGlobal(&c.out, g.name, g.iface.String(), g.offer)
		}
	}
	return nil
}

// bind binds a global that the guest was offered, in a version that it was offered.
func bind(c *client, m *message) error {
	var a proto.WlRegistryBindRequest
	if err := a.Decode(m.raw); err != nil {
		return fault(m.obj.guest, codeMethod, "%w", err)
	}
	o := m.refs[m.slot]
	i := slices.IndexFunc(c.globals, func(g global) bool { return g.name == a.Name && g.offer > 0 })
	if i < 0 {
		return fault(m.obj.guest, codeObject, "wl_registry.bind: no global %d", a.Name)
	}
	g := &c.globals[i]
	if g.iface.String() != a.Iface || a.Version == 0 || a.Version > g.offer {
		return fault(m.obj.guest, codeObject, "wl_registry.bind: global %d is %v up to version %d, not %.64q version %d", a.Name, g.iface, g.offer, a.Iface, a.Version)
	}
	o.iface, o.version = g.iface, a.Version
	if g.own {
		c.announceFormats(o)
		return nil
	}
	proto.WlRegistry(c.host.registry.host).Bind(&c.conn.Out, g.name, a.Iface, a.Version, c.objs.allot(o))
	return nil
}

// destroyRegistry ends a registry of the guest (wl_fixes).
func destroyRegistry(c *client, m *message) error {
	o := m.refs[0]
	c.registries = slices.DeleteFunc(c.registries, func(r *object) bool { return r == o })
	c.destroyed(o)
	m.refs[0] = nil
	return nil
}
