package virtiogpu

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/gpubroker/gpubroker/dmabuf"
)

func TestHeaderLayout(t *testing.T) {
	p := []byte{
		0x04, 0x01, 0, 0, // RESOURCE_FLUSH
		3, 0, 0, 0,
		8, 7, 6, 5, 4, 3, 2, 1,
		0x0d, 0x0c, 0x0b, 0x0a,
		9, 0xff, 0xff, 0xff, // padding is ignored
	}
	var h CtrlHdr
	if err := h.Decode(p); err != nil {
		t.Fatal(err)
	}
	want := CtrlHdr{CmdResourceFlush, FlagFence | FlagInfoRingIdx, 0x0102030405060708, 0x0a0b0c0d, 9}
	if h != want {
		t.Fatalf("got %+v, want %+v", h, want)
	}
	r := h.Reply(RespErrInvalidScanoutID)
	if r != (CtrlHdr{RespErrInvalidScanoutID, 3, h.FenceID, h.CtxID, 9}) {
		t.Errorf("reply %+v does not carry the fence", r)
	}
	h.Flags = FlagInfoRingIdx
	if r := h.Reply(RespOKNoData); r != (CtrlHdr{Type: RespOKNoData}) {
		t.Errorf("reply without a fence: %+v", r)
	}
}

// TestFieldOrder fills every struct with counting bytes and looks at fields whose
// place is easy to get wrong.
func TestFieldOrder(t *testing.T) {
	p := make([]byte, 1100)
	for i := range p {
		p[i] = byte(i)
	}
	at := func(i int) uint32 {
		return uint32(p[i]) | uint32(p[i+1])<<8 | uint32(p[i+2])<<16 | uint32(p[i+3])<<24
	}
	var (
		sb  SetScanoutBlob
		cb  ResourceCreateBlob
		t2  TransferToHost2D
		t3  TransferHost3D
		c3  ResourceCreate3D
		cur UpdateCursor
		mb  ResourceMapBlob
		cc  CtxCreate
	)
	for _, w := range []wire{&sb, &cb, &t2, &t3, &c3, &cur, &mb, &cc} {
		if err := w.Decode(p); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name      string
		got, want uint32
	}{
		{"scanout blob format", uint32(sb.Format), at(56)},
		{"scanout blob stride 0", sb.Strides[0], at(64)},
		{"scanout blob offset 3", sb.Offsets[3], at(92)},
		{"create blob mem", cb.BlobMem, at(28)},
		{"create blob entries", cb.NrEntries, at(36)},
		{"create blob size", uint32(cb.Size), at(48)},
		{"transfer 2d offset", uint32(t2.Offset), at(40)},
		{"transfer 2d resource", t2.ResourceID, at(48)},
		{"transfer 3d depth", t3.Box.D, at(44)},
		{"transfer 3d offset", uint32(t3.Offset), at(48)},
		{"transfer 3d layer stride", t3.LayerStride, at(68)},
		{"create 3d flags", c3.Flags, at(64)},
		{"cursor resource", cur.ResourceID, at(40)},
		{"cursor hot y", cur.HotY, at(48)},
		{"map offset", uint32(mb.Offset), at(32)},
		{"context init", cc.ContextInit, at(28)},
	} {
		if c.got != c.want {
			t.Errorf("%s: %#x, want %#x", c.name, c.got, c.want)
		}
	}
}

func TestDebugName(t *testing.T) {
	c := CtxCreate{NLen: 4}
	copy(c.Name[:], "glxgears")
	if got := c.DebugName(); got != "glxg" {
		t.Errorf("name %q", got)
	}
	c.NLen = 0xffffffff
	if got := c.DebugName(); got != "glxgears" {
		t.Errorf("name with an absurd length: %q", got)
	}
}

func TestEntries(t *testing.T) {
	c := ResourceAttachBacking{ResourceID: 1, NrEntries: 2}
	p := c.Append(nil)
	p = MemEntry{0x1122334455667788, 4096}.Append(p)
	p = MemEntry{1, 0xffffffff}.Append(p)
	m, err := c.Entries(p)
	if err != nil {
		t.Fatal(err)
	}
	if m.Len() != 2 || m.At(0) != (MemEntry{0x1122334455667788, 4096}) || m.Bytes() != 4096+0xffffffff {
		t.Errorf("entries %d, first %+v, bytes %d", m.Len(), m.At(0), m.Bytes())
	}
	for _, n := range []uint32{3, MaxMemEntries, MaxMemEntries + 1, 0x10000000, 0xffffffff} {
		c.NrEntries = n
		if _, err := c.Entries(p); !errors.Is(err, ErrInvalidParameter) || !strings.Contains(err.Error(), "nr_entries") {
			t.Errorf("%d entries in %d bytes: %v", n, len(p), err)
		}
	}
	b := ResourceCreateBlob{NrEntries: 0}
	if m, err := b.Entries(b.Append(nil)); err != nil || m.Len() != 0 || m.Bytes() != 0 {
		t.Errorf("no entries: %d, %v", m.Len(), err)
	}
}

func TestStream(t *testing.T) {
	c := Submit3D{Size: 8}
	p := append(c.Append(nil), 1, 2, 3, 4, 5, 6, 7, 8, 9)
	s, err := c.Stream(p)
	if err != nil || !bytes.Equal(s, []byte{1, 2, 3, 4, 5, 6, 7, 8}) {
		t.Errorf("stream %v, %v", s, err)
	}
	for _, n := range []uint32{10, 0xffffffff} {
		c.Size = n
		if _, err := c.Stream(p); !errors.Is(err, ErrInvalidParameter) {
			t.Errorf("size %d: %v", n, err)
		}
	}
	if _, err := c.Stream(p[:5]); !errors.Is(err, ErrInvalidParameter) {
		t.Errorf("short: %v", err)
	}
}

func TestRectInside(t *testing.T) {
	for _, c := range []struct {
		r    Rect
		want bool
	}{
		{Rect{0, 0, 10, 5}, true},
		{Rect{9, 4, 1, 1}, true},
		{Rect{10, 5, 0, 0}, true},
		{Rect{0, 0, 11, 5}, false},
		{Rect{1, 0, 10, 5}, false},
		{Rect{0xffffffff, 0, 2, 1}, false},
		{Rect{5, 0, 0xfffffffe, 1}, false},
		{Rect{0, 6, 0, 0}, false},
	} {
		if got := c.r.Inside(10, 5); got != c.want {
			t.Errorf("%+v inside 10x5: %v", c.r, got)
		}
	}
}

// TestFormats checks the layout byte by byte: the virtio name lists memory
// order, the DRM name a little-endian word from its top.
func TestFormats(t *testing.T) {
	for _, f := range Formats {
		c, ok := f.Fourcc()
		if !ok || !f.Valid() || f.BytesPerPixel() != 4 || c.BytesPerPixel() != 4 {
			t.Fatalf("%v: %v %v", f, c, ok)
		}
		var v, d [4]byte
		for i := range 4 {
			v[i] = f.String()[2*i]
			d[3-i] = c.String()[i]
		}
		if v != d {
			t.Errorf("%v is %q in memory, %v is %q", f, v, c, d)
		}
		if back, ok := FormatOf(c); !ok || back != f {
			t.Errorf("FormatOf(%v) = %v", c, back)
		}
	}
	if _, ok := FormatOf(dmabuf.NV12); ok {
		t.Error("NV12 has a virtio format")
	}
	if _, ok := Format(5).Fourcc(); ok || Format(5).BytesPerPixel() != 0 || Format(5).String() != "format(5)" {
		t.Error("format 5 is known")
	}
}

func TestEDIDSize(t *testing.T) {
	r := EDID{Size: 256}
	p := r.Append(nil)
	if err := r.Decode(p); err != nil || len(r.Bytes()) != 256 {
		t.Fatalf("%v, %d bytes", err, len(r.Bytes()))
	}
	p[24], p[25] = 1, 4 // 1025
	if err := r.Decode(p); !errors.Is(err, ErrInvalidParameter) {
		t.Errorf("size 1025: %v", err)
	}
}

func TestNoAllocs(t *testing.T) {
	p := make([]byte, 2048)
	buf := make([]byte, 0, 2048)
	var (
		h   CtrlHdr
		f   ResourceFlush
		tr  TransferToHost2D
		t3  TransferHost3D
		sub Submit3D
		ed  EDID
		att ResourceAttachBacking
	)
	n := testing.AllocsPerRun(100, func() {
		if h.Decode(p) != nil || f.Decode(p) != nil || tr.Decode(p) != nil || t3.Decode(p) != nil || sub.Decode(p) != nil {
			t.Fail()
		}
		if ed.Decode(p) != nil || att.Decode(p) != nil {
			t.Fail()
		}
		att.NrEntries = 100
		m, err := att.Entries(p)
		if err != nil || m.Bytes() != 0 {
			t.Fail()
		}
		r := h.Reply(RespOKNoData)
		buf = r.Append(buf[:0])
		buf = ed.Append(buf[:0])
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkDecodeFlush(b *testing.B) {
	p := (&ResourceFlush{R: Rect{1, 2, 3, 4}, ResourceID: 5}).Append(nil)
	var f ResourceFlush
	b.ReportAllocs()
	for b.Loop() {
		if err := f.Decode(p); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzDecode decodes arbitrary bytes as every struct: no panic, an error only
// for want of bytes or for a bad size field, and what was decoded survives being
// encoded and decoded again.
func FuzzDecode(f *testing.F) {
	for i, s := range structs {
		p := s.mk().Append(nil)
		f.Add(uint8(i), p)
		for j := range p {
			p[j] = byte(j*7 + i)
		}
		f.Add(uint8(i), p)
		f.Add(uint8(i), p[:len(p)-1])
	}
	att := ResourceAttachBacking{ResourceID: 1, NrEntries: 2}
	f.Add(uint8(7), MemEntry{2, 0xffffffff}.Append(MemEntry{4096, 4096}.Append(att.Append(nil))))
	f.Fuzz(func(t *testing.T, which uint8, p []byte) {
		s := structs[int(which)%len(structs)]
		a, b := s.mk(), s.mk()
		err := a.Decode(p)
		if err != nil {
			if !errors.Is(err, ErrInvalidParameter) {
				t.Fatalf("%s: error %v has no sentinel", s.name, err)
			}
			if _, edid := a.(*EDID); len(p) >= s.size && !edid {
				t.Fatalf("%s: %v for %d bytes", s.name, err, len(p))
			}
			return
		}
		if len(p) < s.size {
			t.Fatalf("%s decoded from %d bytes", s.name, len(p))
		}
		q := a.Append(nil)
		if len(q) != s.size {
			t.Fatalf("%s encodes to %d bytes", s.name, len(q))
		}
		if err := b.Decode(q); err != nil {
			t.Fatalf("%s: decode of own encoding: %v", s.name, err)
		}
		if !reflect.DeepEqual(a, b) {
			t.Fatalf("%s: %+v became %+v", s.name, a, b)
		}
		tail(t, a, p)
	})
}

// tail walks what follows the fixed struct.
func tail(t *testing.T, a wire, p []byte) {
	var m MemEntries
	var err error
	switch c := a.(type) {
	case *ResourceAttachBacking:
		m, err = c.Entries(p)
	case *ResourceCreateBlob:
		m, err = c.Entries(p)
	case *Submit3D:
		s, serr := c.Stream(p)
		if serr == nil && len(s) != int(c.Size) {
			t.Fatalf("stream of %d bytes, size %d", len(s), c.Size)
		}
		return
	case *CtxCreate:
		if n := len(c.DebugName()); n > 64 || n > int(c.NLen) {
			t.Fatalf("name of %d bytes", n)
		}
		return
	}
	if err != nil {
		return
	}
	var out []byte
	for i := range m.Len() {
		out = m.At(i).Append(out)
	}
	if m.Len()*SizeMemEntry != len(out) || m.Len() > MaxMemEntries {
		t.Fatalf("%d entries", m.Len())
	}
}
