package wire_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

// FuzzMessage frames and decodes bytes by the tables of every interface, as an
// event or a request, and checks that what was understood encodes to the same
// bytes again.
func FuzzMessage(f *testing.F) {
	var w wire.Writer
	seed := func(iface proto.InterfaceID, event bool, opcode uint16, args func()) {
		w.Begin(5, opcode)
		args()
		w.End()
		f.Add(uint16(iface), event, rawOf(f, &w))
	}
	seed(proto.IWlRegistry, true, proto.EvWlRegistryGlobal, func() { w.Uint(1); w.String("wl_shm"); w.Uint(2) })
	seed(proto.IWlRegistry, false, proto.OpWlRegistryBind, func() { w.Uint(1); w.String("wl_shm"); w.Uint(2); w.Object(9) })
	seed(proto.IWlSurface, false, proto.OpWlSurfaceAttach, func() { w.Object(0); w.Int(-1); w.Int(2) })
	seed(proto.IXdgToplevel, true, proto.EvXdgToplevelConfigure, func() { w.Int(1); w.Int(2); w.Array([]byte{1, 0, 0, 0, 2}) })
	seed(proto.IWlDisplay, true, proto.EvWlDisplayError, func() { w.Object(3); w.Uint(1); w.String("") })
	seed(proto.IWlDataSource, true, proto.EvWlDataSourceTarget, func() { w.NullString() })
	seed(proto.IWlShm, false, proto.OpWlShmCreatePool, func() { w.Object(3); w.Int(4096) })
	f.Add(uint16(1), true, frame(1, 0, 0))
	f.Add(uint16(1), true, frame(1, 28, 0, 1, 2, 0xffffffff, 0, 0))
	f.Fuzz(func(t *testing.T, iface uint16, event bool, raw []byte) {
		m, n, err := wire.Frame(raw, wire.MaxMessage)
		if err != nil || n == 0 {
			if m.Body != nil {
				t.Fatal("a body without a message")
			}
			return
		}
		if n > len(raw) || len(m.Body) != n-8 {
			t.Fatalf("message of %d bytes out of %d", n, len(raw))
		}
		id := proto.InterfaceID(iface)
		desc := id.Request(m.Opcode)
		if event {
			desc = id.Event(m.Opcode)
		}
		if desc == nil || desc.FDs > 0 {
			return
		}
		var out wire.Writer
		out.Begin(m.Object, m.Opcode)
		if err := recode(m, desc, &out); err != nil {
			return
		}
		out.End()
		if again := rawOf(t, &out); !bytes.Equal(zeroPadding(raw[:n], desc), again) {
			t.Fatalf("%s: %x encodes to %x", desc.Name, raw[:n], again)
		}
	})
}

// recode decodes a message by its table entry and writes what it read.
func recode(m wire.Message, desc *proto.Message, out *wire.Writer) error {
	d := m.Decoder()
	str := func() {
		if s := d.StringBytes(); s != nil {
			out.String(string(s))
		} else {
			out.NullString()
		}
	}
	for _, a := range desc.Args {
		switch a.Type {
		case proto.String:
			str()
		case proto.Array:
			out.Array(d.Array())
		case proto.NewID:
			if a.Interface == 0 {
				str()
				out.Uint(d.Uint())
			}
			out.Object(d.Object())
		case proto.Object:
			out.Object(d.OptObject())
		default:
			out.Uint(d.Uint())
		}
	}
	return d.Done(desc.Name)
}

// zeroPadding returns a copy of a well-formed message whose padding is zero: the
// one thing that decoding forgets.
func zeroPadding(raw []byte, desc *proto.Message) []byte {
	out := bytes.Clone(raw)
	at := 8
	sized := func() {
		n := int(binary.LittleEndian.Uint32(out[at:]))
		clear(out[at+4+n : at+4+(n+3)&^3])
		at += 4 + (n+3)&^3
	}
	for _, a := range desc.Args {
		switch {
		case a.Type == proto.String, a.Type == proto.Array:
			sized()
		case a.Type == proto.NewID && a.Interface == 0:
			sized()
			at += 8
		default:
			at += 4
		}
	}
	return out
}

// rawOf empties a writer and returns what it held.
func rawOf(t testing.TB, w *wire.Writer) []byte {
	t.Helper()
	if w.Err() != nil {
		t.Fatal(w.Err())
	}
	a, b := pair(t, 0)
	a.Out = *w
	*w = wire.Writer{}
	if err := a.Flush(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<16)
	n, err := unix.Read(b.FD(), buf)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = a.Close(), b.Close()
	return buf[:n]
}
