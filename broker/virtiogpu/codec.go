package virtiogpu

import "encoding/binary"

// codec walks a struct's fields in wire order, either reading them from p or
// appending them to p. One wire method per struct serves both directions, so
// they cannot disagree. Whoever starts a reading codec has checked the length.
type codec struct {
	p       []byte // what is left to read, or what was written
	writing bool
}

func (x *codec) u8(v *uint8) {
	if x.writing {
		x.p = append(x.p, *v)
		return
	}
	*v = x.p[0]
	x.p = x.p[1:]
}

func (x *codec) u32(v *uint32) {
	if x.writing {
		x.p = binary.LittleEndian.AppendUint32(x.p, *v)
		return
	}
	*v = binary.LittleEndian.Uint32(x.p)
	x.p = x.p[4:]
}

func (x *codec) u64(v *uint64) {
	if x.writing {
		x.p = binary.LittleEndian.AppendUint64(x.p, *v)
		return
	}
	*v = binary.LittleEndian.Uint64(x.p)
	x.p = x.p[8:]
}

func (x *codec) bytes(v []byte) {
	if x.writing {
		x.p = append(x.p, v...)
		return
	}
	copy(v, x.p)
	x.p = x.p[len(v):]
}

var zeros [8]byte

// pad skips n bytes of padding (at most 8); written as zeros, ignored when read.
func (x *codec) pad(n int) {
	if x.writing {
		x.p = append(x.p, zeros[:n]...)
		return
	}
	x.p = x.p[n:]
}

func (x *codec) hdr(h *CtrlHdr) {
	x.u32((*uint32)(&h.Type))
	x.u32(&h.Flags)
	x.u64(&h.FenceID)
	x.u32(&h.CtxID)
	x.u8(&h.RingIdx)
	x.pad(3)
}

func (x *codec) rect(r *Rect) {
	x.u32(&r.X)
	x.u32(&r.Y)
	x.u32(&r.Width)
	x.u32(&r.Height)
}

// resource walks the most common body: a resource id and padding.
func (x *codec) resource(h *CtrlHdr, id *uint32) {
	x.hdr(h)
	x.u32(id)
	x.pad(4)
}

// reader starts decoding p, which must have size bytes. t names the struct in
// the error.
func reader(p []byte, size int, t Type) (codec, error) {
	if len(p) < size {
		return codec{}, shortErr(t, len(p), size)
	}
	return codec{p: p}, nil
}

// writer starts appending to dst. A header without a type gets t.
func writer(dst []byte, h *CtrlHdr, t Type) codec {
	if h.Type == 0 {
		h.Type = t
	}
	return codec{p: dst, writing: true}
}
