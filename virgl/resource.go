package virgl

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/gpubroker/gpubroker/virgl/dl"
)

// Offsets in the call buffers. A call uses them from its start to its return.
const (
	scratchBox = 0  // struct virgl_box, 24 bytes
	scratchIOV = 64 // one struct iovec
	iovecSize  = 16 // struct iovec on 64-bit machines
	maxSegs    = 1 << 20
)

// CreateResource implements Renderer.
func (r *renderer) CreateResource(a *ResourceArgs) error {
	r.check()
	if _, ok := r.resources[a.ID]; ok || a.ID == 0 {
		return resErr("create", a.ID, fmt.Errorf("%w: id in use", ErrInvalid))
	}
	r.leaveAlways()
	for i, v := range [...]uint32{
		a.ID, a.Target, a.Format, a.Bind, a.Width, a.Height, a.Depth, a.ArraySize, a.LastLevel, a.Samples, a.Flags,
	} {
		binary.NativeEndian.PutUint32(r.scratch[4*i:], v)
	}
	if err := result(r.call(r.lib.resourceCreate, dl.Addr(r.scratch), 0, 0)); err != nil {
		return resErr("create", a.ID, err)
	}
	r.resources[a.ID] = &resource{args: *a}
	return nil
}

// UnrefResource implements Renderer.
func (r *renderer) UnrefResource(res uint32) {
	r.check()
	if _, ok := r.resources[res]; !ok {
		return
	}
	r.leaveAlways()
	r.DetachBacking(res)
	r.call(r.lib.resourceUnref, uintptr(res))
	delete(r.resources, res)
}

// AttachBacking implements Renderer. The library keeps the array of segments by
// reference, so it is C memory that lives until DetachBacking.
func (r *renderer) AttachBacking(res uint32, segs [][]byte) error {
	r.check()
	e := r.resources[res]
	if e == nil {
		return resErr("attach backing to", res, fmt.Errorf("%w: no such resource", ErrInvalid))
	}
	if e.iov != 0 {
		return resErr("attach backing to", res, fmt.Errorf("%w: it has backing", ErrInvalid))
	}
	if len(segs) == 0 || len(segs) > maxSegs {
		return resErr("attach backing to", res, fmt.Errorf("%w: %d segments, limit %d", ErrInvalid, len(segs), maxSegs))
	}
	e.attach(segs)
	if err := result(r.call(r.lib.resourceAttachIOV, uintptr(res), e.iov, uintptr(len(segs)))); err != nil {
		e.detach()
		return resErr("attach backing to", res, err)
	}
	return nil
}

// attach makes the array of segments that the library keeps; C memory.
func (e *resource) attach(segs [][]byte) {
	e.iov = dl.Malloc(len(segs) * iovecSize)
	array := dl.Bytes(e.iov, len(segs)*iovecSize)
	for i, s := range segs {
		putIOVec(array[i*iovecSize:], s)
		e.size += uint64(len(s))
	}
	e.segs = append(e.segs[:0], segs...)
}

// detach frees it.
func (e *resource) detach() {
	dl.Free(e.iov)
	clear(e.segs)
	e.iov, e.size, e.segs = 0, 0, e.segs[:0]
}

func putIOVec(dst []byte, s []byte) {
	binary.NativeEndian.PutUint64(dst, uint64(dl.Addr(s)))
	binary.NativeEndian.PutUint64(dst[8:], uint64(len(s)))
}

// DetachBacking implements Renderer. A resource that the library keeps in system
// memory is written back to the backing here, so the backing must still be mapped.
func (r *renderer) DetachBacking(res uint32) {
	r.check()
	e := r.resources[res]
	if e == nil || e.iov == 0 {
		return
	}
	r.call(r.lib.resourceDetachIOV, uintptr(res), 0, 0)
	e.detach()
}

// TransferToHost implements Renderer.
func (r *renderer) TransferToHost(t *Transfer) error {
	r.check()
	if err := r.checkTransfer(t); err != nil {
		return resErr("transfer to", t.Resource, err)
	}
	r.leave(t.Ctx)
	iov, n := r.resources[t.Resource].blobPages()
	rc := r.transfer(r.lib.transferWriteIOV, t, iov, n)
	r.worked(t.Ctx)
	if rc != 0 {
		return resErr("transfer to", t.Resource, result(rc))
	}
	return nil
}

// TransferFromHost implements Renderer. The bytes are in the backing when it
// returns; work of other contexts that has not signalled its fence may be missing.
func (r *renderer) TransferFromHost(t *Transfer) error {
	r.check()
	if err := r.checkTransfer(t); err != nil {
		return resErr("transfer from", t.Resource, err)
	}
	r.leave(t.Ctx)
	iov, n := r.resources[t.Resource].blobPages()
	if rc := r.transfer(r.lib.transferReadIOV, t, iov, n); rc != 0 {
		return resErr("transfer from", t.Resource, result(rc))
	}
	return nil
}

// blobPages is what a transfer of a blob has to name: the library remembers the
// pages that a blob was made with, but does not look there (up to 1.3).
func (e *resource) blobPages() (iov, n uintptr) {
	if e.blob == 0 {
		return 0, 0
	}
	return e.iov, uintptr(len(e.segs))
}

// transfer calls virgl_renderer_transfer_read_iov or _write_iov, whose arguments
// are the same. With iov 0 it uses the resource's backing.
func (r *renderer) transfer(fn uintptr, t *Transfer, iov, n uintptr) int32 {
	box := r.scratch[scratchBox:]
	for i, v := range [...]uint32{t.Box.X, t.Box.Y, t.Box.Z, t.Box.W, t.Box.H, t.Box.D} {
		binary.NativeEndian.PutUint32(box[4*i:], v)
	}
	return r.call(fn, uintptr(t.Resource), uintptr(t.Ctx), uintptr(t.Level), uintptr(t.Stride),
		uintptr(t.LayerStride), dl.Addr(box), uintptr(t.Offset), iov, n)
}

// checkTransfer refuses what the library checks too late or with arithmetic that
// wraps (check_transfer_bounds and check_iov_bounds, 0.10.4): negative box
// positions in z, and strides whose product passes 32 bits.
func (r *renderer) checkTransfer(t *Transfer) error {
	e := r.resources[t.Resource]
	if e == nil {
		return fmt.Errorf("%w: no such resource", ErrInvalid)
	}
	if t.Level > e.args.LastLevel {
		return fmt.Errorf("%w: level %d, limit %d", ErrInvalid, t.Level, e.args.LastLevel)
	}
	b := &t.Box
	if !inside(b.X, b.W, minify(e.args.Width, t.Level)) || !inside(b.Y, b.H, minify(e.args.Height, t.Level)) ||
		!inside(b.Z, b.D, max(e.args.Depth, e.args.ArraySize, 1)) {
		return fmt.Errorf("%w: box %d,%d,%d size %dx%dx%d at level %d of %dx%dx%d", ErrInvalid,
			b.X, b.Y, b.Z, b.W, b.H, b.D, t.Level, e.args.Width, e.args.Height, max(e.args.Depth, e.args.ArraySize))
	}
	if uint64(t.Stride)*uint64(b.H) > math.MaxInt32 || uint64(t.LayerStride)*uint64(b.D) > math.MaxInt32 {
		return fmt.Errorf("%w: stride %d × %d rows, layer stride %d × %d, limit %d", ErrInvalid,
			t.Stride, b.H, t.LayerStride, b.D, math.MaxInt32)
	}
	return nil
}

func inside(pos, size, limit uint32) bool {
	return uint64(pos)+uint64(size) <= uint64(limit)
}

func minify(size, level uint32) uint32 { return max(size>>min(level, 31), 1) }

// ReadPixels implements Renderer. It first waits for all work submitted so far,
// which takes no time once the fence of that work has signalled. Rows are counted
// as the guest counts them: the library turns a resource with [FlagY0Top] over on
// its way in and out, so that only an exported buffer is upside down.
func (r *renderer) ReadPixels(res uint32, x, y, w, h, stride uint32, dst []byte) error {
	r.check()
	t := Transfer{Resource: res, Stride: stride, Box: Box{X: x, Y: y, W: w, H: h, D: 1}}
	if err := r.checkTransfer(&t); err != nil {
		return resErr("read", res, err)
	}
	if w == 0 || h == 0 {
		return nil
	}
	if len(dst) == 0 {
		return resErr("read", res, fmt.Errorf("%w: 0 bytes for %dx%d texels", ErrInvalid, w, h))
	}
	r.settle()
	r.leave(0)
	r.pin.Pin(&dst[0])
	putIOVec(r.scratch[scratchIOV:], dst)
	rc := r.transfer(r.lib.transferReadIOV, &t, dl.Addr(r.scratch)+scratchIOV, 1)
	r.pin.Unpin()
	if rc != 0 {
		return resErr("read", res, result(rc))
	}
	return nil
}
