package virgltest

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/virgl"
)

// bytesPerTexel is that of every format whose pixels are kept.
const bytesPerTexel = 4

// formats are the virgl formats (virgl_hw.h) whose pixels are kept.
var formats = map[uint32]dmabuf.Fourcc{
	1:   dmabuf.ARGB8888, // B8G8R8A8
	2:   dmabuf.XRGB8888, // B8G8R8X8
	3:   dmabuf.BGRA8888, // A8R8G8B8
	4:   dmabuf.BGRX8888, // X8R8G8B8
	67:  dmabuf.ABGR8888, // R8G8B8A8
	68:  dmabuf.RGBX8888, // X8B8G8R8
	121: dmabuf.RGBA8888, // A8B8G8R8
	134: dmabuf.XBGR8888, // R8G8B8X8
}

// maxPixels limits what a resource may hold, as a GPU's memory does, in bytes.
const maxPixels = 1 << 30

// resource holds the pixels of level 0 in memory order: with FlagY0Top the last row
// comes first, as in libvirglrenderer.
type resource struct {
	args   virgl.ResourceArgs
	fourcc dmabuf.Fourcc // 0: no pixels
	pixels []byte
	fd     *dmabuf.FD // once exported: the memfd that pixels maps
	segs   [][]byte   // backing
	blob   uint64     // size of a blob in bytes; 0: it is none
}

func (r *resource) stride() int { return int(r.args.Width) * bytesPerTexel }

// row returns row y as the guest counts.
func (r *resource) row(y uint32) []byte {
	if r.args.Flags&virgl.FlagY0Top != 0 {
		y = r.args.Height - 1 - y
	}
	return r.pixels[int(y)*r.stride():][:r.stride()]
}

func (r *resource) free() {
	if r.fd == nil {
		return
	}
	if r.pixels != nil {
		_ = unix.Munmap(r.pixels)
	}
	_ = r.fd.Close()
	r.fd, r.pixels = nil, nil
}

// CreateResource implements virgl.Renderer.
func (f *Fake) CreateResource(a *virgl.ResourceArgs) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enter(OpCreateResource); err != nil {
		return err
	}
	if f.cfg.NoGL {
		return &virgl.OpError{Op: string(OpCreateResource), Err: virgl.ErrNotSupported}
	}
	if a.ID == 0 || f.resources[a.ID] != nil {
		return f.bad(OpCreateResource, "resource %d exists", a.ID)
	}
	r := &resource{args: *a}
	if fourcc, ok := formats[a.Format]; ok && a.Target == 2 {
		size := uint64(a.Width) * uint64(a.Height) * bytesPerTexel
		if size == 0 || a.Width > dmabuf.MaxDimension || a.Height > dmabuf.MaxDimension || size > maxPixels {
			return f.bad(OpCreateResource, "size %dx%d", a.Width, a.Height)
		}
		r.fourcc, r.pixels = fourcc, make([]byte, size)
	}
	f.resources[a.ID] = r
	return nil
}

// UnrefResource implements virgl.Renderer.
func (f *Fake) UnrefResource(res uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = f.enter(OpUnrefResource)
	r := f.resources[res]
	if r == nil {
		f.report("UnrefResource: resource %d does not exist", res)
		return
	}
	r.free()
	delete(f.resources, res)
	for _, c := range f.contexts {
		delete(c.resources, res)
	}
}

// AttachBacking implements virgl.Renderer.
func (f *Fake) AttachBacking(res uint32, segs [][]byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enter(OpAttachBacking); err != nil {
		return err
	}
	r := f.resources[res]
	if r == nil {
		return f.bad(OpAttachBacking, "resource %d does not exist", res)
	}
	if r.segs != nil || len(segs) == 0 {
		return f.bad(OpAttachBacking, "resource %d: %d segments, has %d", res, len(segs), len(r.segs))
	}
	r.segs = slices.Clone(segs)
	return nil
}

// DetachBacking implements virgl.Renderer.
func (f *Fake) DetachBacking(res uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = f.enter(OpDetachBacking)
	r := f.resources[res]
	if r == nil {
		f.report("DetachBacking: resource %d does not exist", res)
		return
	}
	r.segs = nil
}

// Backing returns a resource's backing segments, nil if it has none.
func (f *Fake) Backing(res uint32) [][]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r := f.resources[res]; r != nil {
		return slices.Clone(r.segs)
	}
	return nil
}

// TransferToHost implements virgl.Renderer.
func (f *Fake) TransferToHost(t *virgl.Transfer) error {
	return f.transfer(OpTransferToHost, t, nil, readSegs)
}

// TransferFromHost implements virgl.Renderer.
func (f *Fake) TransferFromHost(t *virgl.Transfer) error {
	return f.transfer(OpTransferFromHost, t, nil, writeSegs)
}

// WriteBytes implements virgl.ByteTransferrer. It counts, and fails, as OpTransferToHost.
func (f *Fake) WriteBytes(t *virgl.Transfer, data []byte) error {
	return f.transfer(OpTransferToHost, t, [][]byte{data}, readSegs)
}

// ReadBytes implements virgl.ByteTransferrer. It counts, and fails, as OpTransferFromHost.
func (f *Fake) ReadBytes(t *virgl.Transfer, data []byte) error {
	return f.transfer(OpTransferFromHost, t, [][]byte{data}, writeSegs)
}

// transfer moves texels between a resource and segs, or its backing if segs is nil.
func (f *Fake) transfer(op Op, t *virgl.Transfer, segs [][]byte, move func(segs [][]byte, off uint64, row []byte) bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enter(op); err != nil {
		return err
	}
	r := f.resources[t.Resource]
	if r == nil {
		return f.bad(op, "resource %d does not exist", t.Resource)
	}
	if c := f.contexts[t.Ctx]; t.Ctx != 0 && (c == nil || !c.resources[t.Resource]) {
		return f.bad(op, "resource %d is not attached to context %d", t.Resource, t.Ctx)
	}
	if segs == nil {
		segs = r.segs
	}
	if segs == nil {
		return f.bad(op, "resource %d has no backing", t.Resource)
	}
	if r.pixels == nil || t.Level != 0 {
		return nil // of formats and levels that are not kept
	}
	b := t.Box
	if !r.inside(b.X, b.Y, b.W, b.H) || uint64(b.Z)+uint64(b.D) > 1 {
		return f.bad(op, "resource %d: box %+v outside %dx%d", t.Resource, b, r.args.Width, r.args.Height)
	}
	stride := uint64(t.Stride)
	if stride == 0 {
		stride = uint64(r.stride())
	}
	for y := range b.H {
		row := r.row(b.Y + y)[b.X*bytesPerTexel:][:b.W*bytesPerTexel]
		if !move(segs, t.Offset+uint64(y)*stride, row) {
			return f.bad(op, "resource %d: offset %d, stride %d: row %d is outside the backing", t.Resource, t.Offset, stride, y)
		}
	}
	return nil
}

func (r *resource) inside(x, y, w, h uint32) bool {
	return uint64(x)+uint64(w) <= uint64(r.args.Width) && uint64(y)+uint64(h) <= uint64(r.args.Height)
}

// readSegs copies from the segments, seen as one run of bytes, at off; false if
// they end too early.
func readSegs(segs [][]byte, off uint64, dst []byte) bool {
	return eachPart(segs, off, len(dst), func(part []byte, at int) { copy(dst[at:], part) })
}

// writeSegs copies src into the segments at off.
func writeSegs(segs [][]byte, off uint64, src []byte) bool {
	return eachPart(segs, off, len(src), func(part []byte, at int) { copy(part, src[at:]) })
}

func eachPart(segs [][]byte, off uint64, n int, do func(part []byte, at int)) bool {
	at := 0
	for _, s := range segs {
		if at == n {
			break
		}
		if off >= uint64(len(s)) {
			off -= uint64(len(s))
			continue
		}
		part := s[off:min(uint64(len(s)), off+uint64(n-at))]
		do(part, at)
		at += len(part)
		off = 0
	}
	return at == n
}

// ReadPixels implements virgl.Renderer.
func (f *Fake) ReadPixels(res uint32, x, y, w, h, stride uint32, dst []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enter(OpReadPixels); err != nil {
		return err
	}
	r := f.resources[res]
	if r == nil {
		return f.bad(OpReadPixels, "resource %d does not exist", res)
	}
	if r.pixels == nil {
		return &virgl.OpError{Op: string(OpReadPixels), Err: virgl.ErrNotSupported}
	}
	if !r.inside(x, y, w, h) {
		return f.bad(OpReadPixels, "resource %d: %dx%d at %d,%d outside %dx%d", res, w, h, x, y, r.args.Width, r.args.Height)
	}
	if w == 0 || h == 0 {
		return nil
	}
	if stride < w*bytesPerTexel || uint64(len(dst)) < uint64(stride)*uint64(h-1)+uint64(w)*bytesPerTexel {
		return f.bad(OpReadPixels, "resource %d: stride %d, %d bytes for %dx%d", res, stride, len(dst), w, h)
	}
	for i := range h {
		copy(dst[i*stride:], r.row(y + i)[x*bytesPerTexel:][:w*bytesPerTexel])
	}
	return nil
}

// Paint changes a resource's pixels as a drawing command would. paint gets the
// texels in memory order, rows of Width*4 bytes; row 0 is the guest's last one if
// the resource has virgl.FlagY0Top.
func (f *Fake) Paint(res uint32, paint func(pixels []byte)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.resources[res]
	if r == nil || r.pixels == nil {
		return f.bad("Paint", "resource %d has no pixels", res)
	}
	paint(r.pixels)
	return nil
}

// Export implements virgl.Renderer. From then on the resource's pixels live in the
// buffer's memory.
func (f *Fake) Export(res uint32) (*dmabuf.Buffer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enter(OpExport); err != nil {
		return nil, err
	}
	r := f.resources[res]
	if r == nil {
		return nil, f.bad(OpExport, "resource %d does not exist", res)
	}
	if f.cfg.Kind == 0 || r.pixels == nil {
		return nil, &virgl.OpError{Op: string(OpExport), Err: virgl.ErrNotSupported}
	}
	b, err := r.export(f.cfg.Kind)
	if err != nil {
		return nil, &virgl.OpError{Op: string(OpExport), Err: err}
	}
	return b, nil
}

func (r *resource) export(kind dmabuf.Kind) (*dmabuf.Buffer, error) {
	if r.fd == nil {
		if err := r.move(); err != nil {
			return nil, err
		}
	}
	fd, err := r.fd.Dup()
	if err != nil {
		return nil, err
	}
	return dmabuf.New(dmabuf.Desc{
		Kind: kind, Width: r.args.Width, Height: r.args.Height, Fourcc: r.fourcc, Modifier: dmabuf.ModLinear,
		Planes:  []dmabuf.Plane{{FD: fd, Stride: uint32(r.stride())}},
		YInvert: r.args.Flags&virgl.FlagY0Top != 0,
		Origin:  "virgltest",
	})
}

// move moves the pixels into a memfd.
func (r *resource) move() error {
	fd, err := dmabuf.NewMemfd("fake resource", int64(len(r.pixels)))
	if err != nil {
		return err
	}
	mem, err := dmabuf.Map(fd, int64(len(r.pixels)), true)
	if err != nil {
		_ = fd.Close()
		return err
	}
	copy(mem, r.pixels)
	r.fd, r.pixels = fd, mem
	return nil
}
