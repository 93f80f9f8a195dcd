package proxy

import (
	"context"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// hostState is what the proxy knows of the compositor, and its own objects there.
type hostState struct {
	registry   *object
	shm        *object
	shmFormats map[proto.WlShmFormat]struct{}

	dmabuf     *object
	version    uint32 // of dmabuf
	formats    map[Format]struct{}
	table      []byte              // feedback's format table
	tranche    map[Format]struct{} // feedback not done yet
	mainDevice []byte              // dev_t, as the feedback says it
	learned    bool                // the formats are known: from now on guests are told of changes

	presentation *object
	clock        uint32 // of wp_presentation
}

// learn asks the compositor what it has. It runs before the guest is read.
func (c *client) learn() error {
	h := &c.host
	h.shmFormats = map[proto.WlShmFormat]struct{}{}
	h.formats, h.tranche = map[Format]struct{}{}, map[Format]struct{}{}
	h.registry = c.objs.addOwn(proto.IWlRegistry, 1, registryEvent)
	proto.WlDisplay(wire.DisplayID).GetRegistry(&c.conn.Out, proto.WlRegistry(h.registry.host))
	if err := c.roundtrip(); err != nil {
		return err
	}
	for i := range c.globals {
		c.bindOwn(&c.globals[i])
	}
	if h.shm == nil {
		return hostFault("it has no wl_shm")
	}
	if err := c.roundtrip(); err != nil {
		return err
	}
	h.learned = true
	c.offerGlobals()
	return nil
}

// bindOwn binds what the proxy itself uses.
func (c *client) bindOwn(g *global) {
	h := &c.host
	switch g.iface {
	case proto.IWlShm:
		if h.shm == nil {
			h.shm = c.bindHost(g, 1, shmEvent)
		}
	case proto.IZwpLinuxDmabufV1:
		if h.dmabuf != nil {
			return
		}
		h.version = min(g.host, 5)
		h.dmabuf = c.bindHost(g, 5, dmabufEvent)
		if h.version >= 4 {
			f := c.objs.addOwn(proto.IZwpLinuxDmabufFeedbackV1, h.version, feedbackEvent)
			proto.ZwpLinuxDmabufV1(h.dmabuf.host).GetDefaultFeedback(&c.conn.Out, proto.ZwpLinuxDmabufFeedbackV1(f.host))
		}
	case proto.IWpPresentation:
		if h.presentation == nil {
			h.presentation = c.bindHost(g, 1, clockEvent)
		}
	}
}

func (c *client) bindHost(g *global, limit uint32, own func(*client, *message) error) *object {
	o := c.objs.addOwn(g.iface, min(g.host, limit), own)
	proto.WlRegistry(c.host.registry.host).Bind(&c.conn.Out, g.name, g.iface.String(), o.version, o.host)
	return o
}

// roundtrip waits until the compositor has answered everything so far. mu is held,
// but nobody else has work yet.
func (c *client) roundtrip() error {
	done := false
	cb := c.objs.addOwn(proto.IWlCallback, 1, func(*client, *message) error { done = true; return nil })
	proto.WlDisplay(wire.DisplayID).Sync(&c.conn.Out, proto.WlCallback(cb.host))
	for !done {
		if err := c.conn.Flush(); err != nil {
			return err
		}
		events := int16(unix.POLLIN)
		if c.conn.Out.Pending() > 0 {
			events |= unix.POLLOUT
		}
		polls := []unix.PollFd{{Fd: int32(c.conn.FD()), Events: events}, {Fd: int32(c.stopFD.Int()), Events: unix.POLLIN}}
		if _, err := unix.Poll(polls, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return &OpError{Op: "poll", Err: err}
		}
		if c.ctx.Err() != nil {
			return context.Canceled
		}
		if _, err := c.conn.Receive(); err != nil {
			return hostFault("%w", err)
		}
		if _, err := c.dispatch(); err != nil {
			return err
		}
	}
	return nil
}

func shmEvent(c *client, m *message) error {
	if m.opcode() == proto.EvWlShmFormat {
		c.host.shmFormats[proto.WlShmFormat(m.uint(0))] = struct{}{}
	}
	return nil
}

func dmabufEvent(c *client, m *message) error {
	h := &c.host
	switch {
	case m.opcode() == proto.EvZwpLinuxDmabufV1Modifier:
		h.formats[Format{dmabuf.Fourcc(m.uint(0)), dmabuf.Modifier(uint64(m.uint(1))<<32 | uint64(m.uint(2)))}] = struct{}{}
	case h.version < 3: // since version 3 the modifier events say it better
		h.formats[Format{dmabuf.Fourcc(m.uint(0)), dmabuf.ModInvalid}] = struct{}{}
	}
	return nil
}

// tableEntry is the size of an entry of the format table: fourcc, padding, modifier.
const tableEntry = 16

func feedbackEvent(c *client, m *message) error {
	h := &c.host
	switch m.opcode() {
	case proto.EvZwpLinuxDmabufFeedbackV1FormatTable:
		table, err := readFD(m.fd, m.uint(1), tableEntry<<16)
		if err != nil {
			return hostFault("format table: %w", err)
		}
		h.table = table
	case proto.EvZwpLinuxDmabufFeedbackV1MainDevice:
		h.mainDevice = append(h.mainDevice[:0], m.bytes(0)...)
	case proto.EvZwpLinuxDmabufFeedbackV1TrancheFormats:
		for idx := m.bytes(0); len(idx) >= 2; idx = idx[2:] {
			at := int(binary.LittleEndian.Uint16(idx)) * tableEntry
			if at+tableEntry > len(h.table) {
				return hostFault("tranche index %d, the format table has %d entries", at/tableEntry, len(h.table)/tableEntry)
			}
			e := h.table[at:]
			h.tranche[Format{dmabuf.Fourcc(binary.LittleEndian.Uint32(e)), dmabuf.Modifier(binary.LittleEndian.Uint64(e[8:]))}] = struct{}{}
		}
	case proto.EvZwpLinuxDmabufFeedbackV1Done:
		h.formats, h.tranche = h.tranche, map[Format]struct{}{}
		if h.learned {
			for _, f := range c.feedbacks {
				c.sendFeedback(f)
			}
		}
	}
	return nil
}

// clockEvent learns which clock the compositor's times are of.
func clockEvent(c *client, m *message) error {
	c.host.clock = m.uint(0)
	return nil
}

// hostTakes reports whether the compositor imports a format and modifier. Only pairs
// that it lists may be used (linux-dmabuf, invalid_format); INVALID is one like any
// other.
func (c *client) hostTakes(f Format) bool {
	_, ok := c.host.formats[f]
	return ok && c.host.dmabuf != nil && !c.p.isRefused(f)
}
