package wayland

import (
	"encoding/binary"
	"fmt"
	"maps"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// layout is a format with a modifier, as linux-dmabuf counts them.
type layout struct {
	fourcc   dmabuf.Fourcc
	modifier dmabuf.Modifier
}

// formatTable is the set of dma-buf layouts that the compositor takes. It never
// changes once published.
type formatTable struct {
	set map[layout]struct{}
}

// choose returns the format under which a buffer goes out. Only advertised pairs
// may be used (linux-dmabuf invalid_format), and the implied layout is a
// pair like any other: INVALID matches only where the compositor lists INVALID.
// An opaque picture goes out as the twin that ignores alpha if possible.
func (t *formatTable) choose(f dmabuf.Fourcc, m dmabuf.Modifier, opaque bool) (dmabuf.Fourcc, bool) {
	if t == nil {
		return 0, false
	}
	if opaque {
		if _, ok := t.set[layout{f.Opaque(), m}]; ok {
			return f.Opaque(), true
		}
	}
	_, ok := t.set[layout{f, m}]
	return f, ok
}

// dmabufFormats collects what the compositor says of its formats.
type dmabufFormats struct {
	s       *session
	offered map[layout]struct{}

	// Version 4 and up: feedback events build up tranches until done.
	table   []byte // format table: 16-byte entries
	tranche map[layout]struct{}
	built   bool // a done event was seen
}

// Limits of the feedback's format table (linux-dmabuf: 16-byte entries, indices
// of 16 bits).
const (
	tableEntry    = 16
	maxTableBytes = tableEntry << 16
)

func newDMABufFormats(s *session) *dmabufFormats {
	return &dmabufFormats{s: s, offered: map[layout]struct{}{}, tranche: map[layout]struct{}{}}
}

func (d *dmabufFormats) event(_ wire.ID, iface proto.InterfaceID, m wire.Message) error {
	if iface == proto.IZwpLinuxDmabufFeedbackV1 {
		return d.feedback(m)
	}
	switch m.Opcode {
	case proto.EvZwpLinuxDmabufV1Format:
		var ev proto.ZwpLinuxDmabufV1FormatEvent
		if err := ev.Decode(m); err != nil {
			return err
		}
		// Since version 3 the modifier events say it better.
		if d.s.dmabufVersion < 3 {
			d.offered[layout{dmabuf.Fourcc(ev.Format), dmabuf.ModInvalid}] = struct{}{}
		}
	case proto.EvZwpLinuxDmabufV1Modifier:
		var ev proto.ZwpLinuxDmabufV1ModifierEvent
		if err := ev.Decode(m); err != nil {
			return err
		}
		mod := dmabuf.Modifier(uint64(ev.ModifierHi)<<32 | uint64(ev.ModifierLo))
		d.offered[layout{dmabuf.Fourcc(ev.Format), mod}] = struct{}{}
	}
	return nil
}

func (d *dmabufFormats) feedback(m wire.Message) error {
	switch m.Opcode {
	case proto.EvZwpLinuxDmabufFeedbackV1FormatTable:
		return d.readTable(m)
	case proto.EvZwpLinuxDmabufFeedbackV1TrancheFormats:
		var ev proto.ZwpLinuxDmabufFeedbackV1TrancheFormatsEvent
		if err := ev.Decode(m); err != nil {
			return err
		}
		return d.addTranche(ev.Indices)
	case proto.EvZwpLinuxDmabufFeedbackV1Done:
		same := maps.Equal(d.offered, d.tranche)
		changed := d.built && !same
		d.offered, d.tranche = d.tranche, map[layout]struct{}{}
		d.built = true
		if !same {
			d.s.publishFormats()
		}
		if changed {
			d.s.refresh()
		}
	}
	return nil
}

// readTable copies the table instead of mapping it: a few kilobytes, and no
// SIGBUS if the compositor truncates the file.
func (d *dmabufFormats) readTable(m wire.Message) error {
	var ev proto.ZwpLinuxDmabufFeedbackV1FormatTableEvent
	if err := ev.Decode(m); err != nil {
		return err
	}
	defer ev.Fd.Close()
	if ev.Size > maxTableBytes || ev.Size%tableEntry != 0 {
		return fmt.Errorf("%w: format table of %d bytes, want a multiple of %d up to %d", ErrProtocol, ev.Size, tableEntry, maxTableBytes)
	}
	table := make([]byte, ev.Size)
	for got := 0; got < len(table); {
		n, err := unix.Pread(ev.Fd.Int(), table[got:], int64(got))
		if err == nil && n == 0 {
			err = fmt.Errorf("file ends at byte %d", got)
		}
		if err != nil {
			return fmt.Errorf("%w: format table of %d bytes: %w", ErrProtocol, ev.Size, err)
		}
		got += n
	}
	d.table = table
	return nil
}

func (d *dmabufFormats) addTranche(indices []byte) error {
	for ; len(indices) >= 2; indices = indices[2:] {
		at := int(binary.LittleEndian.Uint16(indices)) * tableEntry
		if at+tableEntry > len(d.table) {
			return fmt.Errorf("%w: tranche index %d, format table has %d entries", ErrProtocol, at/tableEntry, len(d.table)/tableEntry)
		}
		e := d.table[at:]
		d.tranche[layout{
			dmabuf.Fourcc(binary.LittleEndian.Uint32(e)),
			dmabuf.Modifier(binary.LittleEndian.Uint64(e[8:])),
		}] = struct{}{}
	}
	return nil
}

// snapshot returns what is offered less what was refused.
func (d *dmabufFormats) snapshot(refused ...map[layout]struct{}) *formatTable {
	t := &formatTable{set: make(map[layout]struct{}, len(d.offered))}
	for l := range d.offered {
		t.set[l] = struct{}{}
	}
	for _, r := range refused {
		for l := range r {
			delete(t.set, l)
		}
	}
	return t
}

// shmCode returns the wl_shm.format of a DRM format: the same number, but for
// the two that wl_shm had first (wl_shm.format in wayland.xml).
func shmCode(f dmabuf.Fourcc) proto.WlShmFormat {
	switch f {
	case dmabuf.ARGB8888:
		return proto.WlShmFormatArgb8888
	case dmabuf.XRGB8888:
		return proto.WlShmFormatXrgb8888
	}
	return proto.WlShmFormat(f)
}

// chooseShm returns the wl_shm format under which a shared-memory buffer goes out.
func (s *session) chooseShm(f dmabuf.Fourcc, opaque bool) (proto.WlShmFormat, bool) {
	if opaque {
		if _, ok := s.shmFormats[shmCode(f.Opaque())]; ok {
			return shmCode(f.Opaque()), true
		}
	}
	_, ok := s.shmFormats[shmCode(f)]
	return shmCode(f), ok
}
