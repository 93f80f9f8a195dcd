package virtiogpu

// SizeCtrlHdr is the size of the header that every command and response begins
// with, in bytes.
const SizeCtrlHdr = 24

// CtrlHdr is struct virtio_gpu_ctrl_hdr.
type CtrlHdr struct {
	Type    Type
	Flags   uint32 // FlagFence, FlagInfoRingIdx
	FenceID uint64 // the guest's own number, valid with FlagFence
	CtxID   uint32 // context, for 3D commands
	RingIdx uint8  // timeline of the context, valid with FlagInfoRingIdx
}

// Decode reads the header at the start of p.
func (h *CtrlHdr) Decode(p []byte) error {
	x, err := reader(p, SizeCtrlHdr, 0)
	if err != nil {
		return err
	}
	x.hdr(h)
	return nil
}

// Append appends the header to dst.
func (h *CtrlHdr) Append(dst []byte) []byte {
	x := codec{p: dst, writing: true}
	x.hdr(h)
	return x.p
}

// Fenced reports whether the guest wants the response only when the work is done.
func (h *CtrlHdr) Fenced() bool { return h.Flags&FlagFence != 0 }

// Reply returns the header of the response of type t to h: a fenced command's
// fence, context and ring come back in it (virtio spec 5.7.6.7).
func (h *CtrlHdr) Reply(t Type) CtrlHdr {
	r := CtrlHdr{Type: t}
	if h.Fenced() {
		r.Flags = h.Flags & (FlagFence | FlagInfoRingIdx)
		r.FenceID = h.FenceID
		r.CtxID = h.CtxID
		r.RingIdx = h.RingIdx
	}
	return r
}

// Rect is struct virtio_gpu_rect, in pixels.
type Rect struct{ X, Y, Width, Height uint32 }

// Inside reports whether r lies in a w×h picture, without overflowing. An empty
// rectangle is inside if its corner is.
func (r Rect) Inside(w, h uint32) bool {
	return r.X <= w && r.Y <= h && r.Width <= w-r.X && r.Height <= h-r.Y
}

// Box is struct virtio_gpu_box, in texels.
type Box struct{ X, Y, Z, W, H, D uint32 }
