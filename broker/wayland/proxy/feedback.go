package proxy

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// dmabufOffer returns the version of zwp_linux_dmabuf_v1 that the guest sees, 0 for
// none. It does not depend on the compositor's: what that does not take is copied.
func (c *client) dmabufOffer() uint32 {
	if c.p.cfg.Resources == nil || len(c.offered()) == 0 {
		return 0
	}
	limit := c.p.policy.version(proto.IZwpLinuxDmabufV1)
	if _, named := c.p.policy.Allow[proto.IZwpLinuxDmabufV1.String()]; !named {
		limit = min(limit, settledDMABuf)
	}
	if len(c.deviceBytes()) == 0 {
		limit = min(limit, 3) // feedback has to name the device
	}
	return limit
}

// settledDMABuf is the version that guests get unless the policy names a higher one.
// Version 6 sends no main_device, without which GTK 4.18 crashes; it binds whatever
// version there is.
const settledDMABuf = 5

// offered returns what the guest may make buffers of, sorted: what guests can draw
// and the compositor takes, in whatever format the export has, or we can copy.
func (c *client) offered() []Format {
	var out []Format
	for _, f := range c.p.cfg.Resources.Formats() {
		if f.Modifier != dmabuf.ModLinear && f.Modifier != dmabuf.ModInvalid {
			continue
		}
		_, ok := converted(f.Fourcc)
		if ok || c.hostTakesAny(f.Fourcc) {
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(a, b Format) int {
		return cmp.Or(cmp.Compare(a.Fourcc, b.Fourcc), cmp.Compare(a.Modifier, b.Modifier))
	})
	return slices.Compact(out)
}

func (c *client) hostTakesAny(f dmabuf.Fourcc) bool {
	for have := range c.host.formats {
		if have.Fourcc == f {
			return true
		}
	}
	return false
}

// offers reports whether the guest was offered a format and modifier.
func (c *client) offers(f Format) bool {
	if f.Modifier != dmabuf.ModLinear && f.Modifier != dmabuf.ModInvalid {
		return false
	}
	return slices.Contains(c.p.cfg.Resources.Formats(), f)
}

// deviceBytes is the dev_t that feedback names: the guest's render node, or the
// host's where the guest's end rewrites it. Empty if neither is known.
func (c *client) deviceBytes() []byte {
	switch {
	case c.dialect.FeedbackRaw:
		return c.host.mainDevice
	case c.dialect.RenderDev != 0:
		return binary.LittleEndian.AppendUint64(nil, c.dialect.RenderDev)
	}
	return nil
}

// announceFormats tells a new zwp_linux_dmabuf_v1 of the guest what it may use.
func (c *client) announceFormats(o *object) {
	if o.version >= 4 {
		return // feedback does
	}
	d, last := proto.ZwpLinuxDmabufV1(o.guest), dmabuf.Fourcc(0)
	for _, f := range c.offered() {
		if f.Fourcc != last {
			d.SendFormat(&c.out, uint32(f.Fourcc))
			last = f.Fourcc
		}
		if o.version >= 3 {
			d.SendModifier(&c.out, uint32(f.Fourcc), uint32(f.Modifier>>32), uint32(f.Modifier))
		}
	}
}

// getFeedback makes default and surface feedback; they say the same, because the
// guest has one device and no layouts to choose from.
func getFeedback(c *client, m *message) error {
	o := m.refs[0]
	c.feedbacks = append(c.feedbacks, o)
	c.sendFeedback(o)
	return nil
}

func destroyFeedback(c *client, m *message) error {
	c.feedbacks = slices.DeleteFunc(c.feedbacks, func(o *object) bool { return o == m.obj })
	return nil
}

// sendFeedback describes the formats in one tranche of the guest's device.
func (c *client) sendFeedback(o *object) {
	var table, indices []byte
	for i, f := range c.offered() {
		table = binary.LittleEndian.AppendUint32(table, uint32(f.Fourcc))
		table = append(table, 0, 0, 0, 0)
		table = binary.LittleEndian.AppendUint64(table, uint64(f.Modifier))
		indices = binary.LittleEndian.AppendUint16(indices, uint16(i))
	}
	out, f, dev := &c.out, proto.ZwpLinuxDmabufFeedbackV1(o.guest), c.deviceBytes()
	out.Begin(o.guest, proto.EvZwpLinuxDmabufFeedbackV1FormatTable)
	out.Uint(uint32(len(table)))
	out.End()
	c.items = append(c.items, Item{Kind: ItemBytes, Bytes: table})
	if o.version < 6 {
		f.SendMainDevice(out, dev)
	}
	f.SendTrancheTargetDevice(out, dev)
	f.SendTrancheFlags(out, 0)
	f.SendTrancheFormats(out, indices)
	f.SendTrancheDone(out)
	f.SendDone(out)
}
