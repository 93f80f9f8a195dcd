package gbm

import (
	"encoding/binary"
	"fmt"

	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/virgl/dl"
)

// BO is a GBM buffer object.
type BO struct {
	Width, Height uint32 // pixels
	Fourcc        dmabuf.Fourcc
	Modifier      dmabuf.Modifier // ModInvalid: the driver does not say

	dev *Device
	bo  uintptr // struct gbm_bo; guarded by dev.mu; 0 once closed
}

func (b *BO) object() string {
	return fmt.Sprintf("%dx%d %v %v on %s", b.Width, b.Height, b.Fourcc, b.Modifier, b.dev.node)
}

// Close destroys the object; buffers that Export made of it stay. A second Close
// does nothing.
func (b *BO) Close() error {
	b.dev.mu.Lock()
	defer b.dev.mu.Unlock()
	if b.bo == 0 {
		return nil
	}
	call(b.dev.lib.boDestroy, b.bo)
	b.bo = 0
	b.dev.bos--
	return b.dev.destroy()
}

// Export makes a buffer of the object's memory, with descriptors of its own and one
// reference, held by the caller.
func (b *BO) Export() (*dmabuf.Buffer, error) {
	d, err := b.describe()
	if err != nil {
		return nil, &OpError{"export", b.object(), err}
	}
	buf, err := dmabuf.New(d)
	if err != nil {
		return nil, &OpError{"export", b.object(), err}
	}
	return buf, nil
}

// describe takes the descriptors out of the object.
func (b *BO) describe() (dmabuf.Desc, error) {
	b.dev.mu.Lock()
	defer b.dev.mu.Unlock()
	if b.bo == 0 {
		return dmabuf.Desc{}, ErrClosed
	}
	l := b.dev.lib
	n := int(int32(call(l.boGetPlaneCount, b.bo)))
	if n < 1 || n > dmabuf.MaxPlanes || n > 1 && l.boGetFDForPlane == 0 {
		return dmabuf.Desc{}, fmt.Errorf("%w: %d planes", ErrNotSupported, n)
	}
	d := dmabuf.Desc{
		Kind: dmabuf.KindDMABuf, Width: b.Width, Height: b.Height, Fourcc: b.Fourcc, Modifier: b.Modifier, Origin: "gbm",
	}
	for i := range n {
		raw, err := b.planeFD(i)
		if err != nil {
			for _, p := range d.Planes {
				_ = p.FD.Close()
			}
			return dmabuf.Desc{}, err
		}
		d.Planes = append(d.Planes, dmabuf.Plane{
			FD:     dmabuf.NewFD(raw, fmt.Sprintf("gbm plane %d", i)),
			Stride: uint32(call(l.boGetStrideForPlane, b.bo, uintptr(i))),
			Offset: uint32(call(l.boGetOffset, b.bo, uintptr(i))),
		})
	}
	return d, nil
}

// planeFD returns a new descriptor of a plane's memory. Called with dev.mu.
func (b *BO) planeFD(i int) (int, error) {
	l := b.dev.lib
	fn, args := l.boGetFDForPlane, []uintptr{b.bo, uintptr(i)}
	if fn == 0 {
		fn, args = l.boGetFD, args[:1]
	}
	r, err := explain(fn, args...)
	if raw := int(int32(r)); raw >= 0 {
		return raw, nil
	}
	return -1, fmt.Errorf("descriptor of plane %d: %w", i, err)
}

// exportMapped turns a linear object into a mapped buffer that owns it.
func (b *BO) exportMapped() (*dmabuf.Buffer, error) {
	d, err := b.describe()
	if err != nil {
		return nil, &OpError{"export", b.object(), err}
	}
	closeAll := func() {
		for _, p := range d.Planes {
			_ = p.FD.Close()
		}
	}
	if len(d.Planes) != 1 || d.Modifier != dmabuf.ModLinear && d.Modifier != dmabuf.ModInvalid {
		closeAll()
		return nil, &OpError{"export", b.object(), fmt.Errorf("%w: %d planes, modifier %v: not linear", ErrNotSupported, len(d.Planes), d.Modifier)}
	}
	d.Modifier = dmabuf.ModLinear // asked for, though some drivers answer INVALID
	p := d.Planes[0]
	if p.Offset != 0 { // Mem starts at the descriptor's start, and users count rows from there
		closeAll()
		return nil, &OpError{"export", b.object(), fmt.Errorf("%w: pixels start at byte %d", ErrNotSupported, p.Offset)}
	}
	size := int64(p.Stride) * int64(d.Height)
	if d.Mem, err = dmabuf.Map(p.FD, size, true); err != nil {
		closeAll()
		return nil, &OpError{"export", b.object(), fmt.Errorf("%w: the driver's dma-buf cannot be mapped: %w", ErrNotSupported, err)}
	}
	mem := d.Mem
	d.Free = func() {
		_ = dmabuf.Unmap(mem)
		_ = b.Close()
	}
	buf, err := dmabuf.New(d)
	if err != nil {
		_ = dmabuf.Unmap(mem)
		return nil, &OpError{"export", b.object(), err}
	}
	return buf, nil
}

// Access says what a mapping is for (enum gbm_bo_transfer_flags).
type Access uint32

// The kinds of access.
const (
	Read      Access = 1
	Write     Access = 2
	ReadWrite Access = 3
)

// Mapping is a rectangle of an object in CPU memory, linear whatever the object's
// layout is. Depending on the driver it is a copy that Unmap writes back.
type Mapping struct {
	Mem    []byte // from the rectangle's first pixel to its last; nil after Unmap
	Stride uint32 // bytes from one row to the next

	bo   *BO
	data uintptr // libgbm's
}

// Map maps a rectangle. The caller calls Unmap, before it closes the object.
func (b *BO) Map(x, y, w, h uint32, access Access) (*Mapping, error) {
	bpp := b.Fourcc.BytesPerPixel()
	if bpp == 0 || b.Fourcc == dmabuf.NV12 {
		return nil, &OpError{"map", b.object(), fmt.Errorf("%w: unknown pixel size", ErrNotSupported)}
	}
	if w == 0 || h == 0 || uint64(x)+uint64(w) > uint64(b.Width) || uint64(y)+uint64(h) > uint64(b.Height) {
		return nil, &OpError{"map", b.object(), fmt.Errorf("%w: %dx%d at %d,%d", ErrInvalid, w, h, x, y)}
	}
	b.dev.mu.Lock()
	defer b.dev.mu.Unlock()
	if b.bo == 0 {
		return nil, &OpError{"map", b.object(), ErrClosed}
	}
	out := dl.Malloc(16) // uint32_t stride, void *map_data
	defer dl.Free(out)
	res := dl.Bytes(out, 16)
	clear(res)
	p, err := explain(b.dev.lib.boMap, b.bo, uintptr(x), uintptr(y), uintptr(w), uintptr(h), uintptr(access), out, out+8)
	if p == 0 || p == ^uintptr(0) {
		return nil, &OpError{"map", b.object(), err}
	}
	stride := binary.NativeEndian.Uint32(res)
	return &Mapping{
		Mem:    dl.Bytes(p, int(stride)*int(h-1)+int(w*bpp)),
		Stride: stride,
		bo:     b,
		data:   uintptr(binary.NativeEndian.Uint64(res[8:])),
	}, nil
}

// Unmap ends a mapping. A second Unmap does nothing.
func (m *Mapping) Unmap() {
	m.bo.dev.mu.Lock()
	defer m.bo.dev.mu.Unlock()
	if m.Mem == nil || m.bo.bo == 0 {
		return
	}
	call(m.bo.dev.lib.boUnmap, m.bo.bo, m.data)
	m.Mem = nil
}

// putModifiers writes uint64_t modifiers[].
func putModifiers(dst []byte, list []dmabuf.Modifier) {
	for i, m := range list {
		binary.NativeEndian.PutUint64(dst[8*i:], uint64(m))
	}
}

// putImport writes struct gbm_import_fd_modifier_data (gbm.h): width, height, format,
// num_fds; fds[4]; strides[4]; offsets[4]; modifier.
func putImport(dst []byte, b *dmabuf.Buffer) {
	clear(dst)
	u32 := func(off int, v uint32) { binary.NativeEndian.PutUint32(dst[off:], v) }
	u32(0, b.Width)
	u32(4, b.Height)
	u32(8, uint32(b.Fourcc))
	u32(12, uint32(len(b.Planes)))
	for i, p := range b.Planes {
		u32(16+4*i, uint32(p.FD.Int()))
		u32(32+4*i, p.Stride)
		u32(48+4*i, p.Offset)
	}
	binary.NativeEndian.PutUint64(dst[64:], uint64(b.Modifier))
}
