package broker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
)

// handle is a resource that somebody opened. The resource's memory stays until its
// last handle is closed, whatever the guest does.
type handle struct {
	d      *Device
	res    *resource
	epoch  uint64 // Device.epoch when it was opened
	closed atomic.Bool
}

var _ proxy.Resource = (*handle)(nil)

// late serialises the handles that are closed after the render thread ended.
var late sync.Mutex

// hold opens a resource. Render thread.
func (d *Device) hold(res *resource) *handle {
	res.handles++
	return &handle{d: d, res: res, epoch: d.epoch}
}

// release ends the handle. Render thread.
func (h *handle) release() {
	if h.closed.Swap(true) {
		return
	}
	if h.res.handles--; h.res.handles == 0 && h.res.gone != nil {
		delete(h.d.lingering, h.res)
		h.res.freeMemory()
	}
}

// Close implements proxy.Resource.
func (h *handle) Close() error {
	if h.d.cfg.Loop.Post(h.release) {
		return nil
	}
	<-h.d.cfg.Loop.done
	late.Lock()
	defer late.Unlock()
	h.release()
	return nil
}

// hop runs f on the render thread and waits for it.
func (h *handle) hop(f func()) error {
	ran := false
	h.d.cfg.Loop.Call(func() { f(); ran = true })
	if !ran {
		return proxy.ErrGone
	}
	return nil
}

// ID implements proxy.Resource.
func (h *handle) ID() uint32 { return h.res.id }

// Texture implements proxy.Resource.
func (h *handle) Texture() (w, height uint32, f dmabuf.Fourcc, ok bool) {
	if h.res.blob != nil {
		return 0, 0, 0, false
	}
	return h.res.args.Width, h.res.args.Height, h.res.fourcc, true
}

// Size implements proxy.Resource.
func (h *handle) Size() uint64 {
	if h.res.blob == nil {
		return 0
	}
	return h.res.blob.size
}

// Buffer implements proxy.Resource.
func (h *handle) Buffer(context.Context) (buf *dmabuf.Buffer, err error) {
	if hopErr := h.hop(func() { buf, err = h.d.exported(h.res) }); hopErr != nil {
		return nil, hopErr
	}
	return buf, err
}

// exported returns the dma-buf of what the renderer draws, retained.
func (d *Device) exported(res *resource) (*dmabuf.Buffer, error) {
	buf, err := res.kept, res.gone
	if buf == nil && err == nil {
		buf, err = d.export(res)
	}
	switch {
	case buf == nil && err == nil:
		err = errNoPicture
	case buf != nil && buf.Kind != dmabuf.KindDMABuf:
		err = errors.New("its pixels are in shared memory")
	case buf != nil:
		return buf.Retain(), nil
	}
	return nil, fmt.Errorf("%w: %w", proxy.ErrNotExportable, err)
}

var errNoPicture = errors.New("it is memory, which the renderer does not draw")

// export makes, once, the buffer that shares a resource's pixels. It is the table's:
// a scanout shows the same one.
func (d *Device) export(res *resource) (*dmabuf.Buffer, error) {
	if res.blob != nil {
		if !res.blob.drawn {
			return nil, errNoPicture
		}
		return d.blobTexture(res)
	}
	p := d.picture(res, res.layout())
	if !p.tried {
		p.tried = true
		p.buf, p.err = d.makeBuffer(p)
	}
	return p.buf, p.err
}

// Memory implements proxy.Resource.
func (h *handle) Memory(context.Context) (fd *dmabuf.FD, isDMABuf bool, err error) {
	if hopErr := h.hop(func() { fd, isDMABuf, err = h.d.memory(h.res) }); hopErr != nil {
		return nil, false, hopErr
	}
	return fd, isDMABuf, err
}

func (d *Device) memory(res *resource) (*dmabuf.FD, bool, error) {
	fd, isDMABuf, err := d.findMemory(res)
	if err == nil {
		if fd, err = fd.Dup(); err == nil {
			return fd, isDMABuf, nil
		}
	}
	return nil, false, fmt.Errorf("%w: %w", proxy.ErrNotExportable, err)
}

func (d *Device) findMemory(res *resource) (*dmabuf.FD, bool, error) {
	switch b := res.blob; {
	case b == nil:
		return nil, false, errors.New("a texture's memory has no layout of its own")
	case b.memfd:
		return b.host, false, nil
	case b.mem == virtiogpu.BlobMemHost3D:
		fd, err := d.hostMemory(res)
		return fd, err == nil && isDMABuf(fd), err
	default:
		err := d.blobPages(res)
		return b.pages, true, err
	}
}

// isDMABuf asks the kernel what a descriptor is.
func isDMABuf(fd *dmabuf.FD) bool {
	link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd.Int()))
	return err == nil && strings.HasPrefix(link, "/dmabuf:")
}

// Drawn implements proxy.Resource.
func (h *handle) Drawn(ctx context.Context) error {
	w := &drawWait{done: make(chan error, 1)}
	if err := h.hop(func() { h.d.startDrawWait(h, w) }); err != nil {
		return err
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		h.d.cfg.Loop.Post(func() { h.d.endDrawWait(w) })
		return ctx.Err()
	case <-h.d.cfg.Loop.done:
		return proxy.ErrGone
	}
}

// Read implements proxy.Resource.
func (h *handle) Read(ctx context.Context, as proxy.Layout, rect display.Rect, dst *dmabuf.Buffer) (uint64, error) {
	if dst.Kind != dmabuf.KindShm || dst.Mem == nil {
		return 0, fmt.Errorf("%w: read into a buffer that is not shared memory", virtiogpu.ErrInvalidParameter)
	}
	rect = rect.Intersect(display.Rect{W: dst.Width, H: dst.Height})
	if rect.Empty() {
		return 0, nil
	}
	if err := h.Drawn(ctx); err != nil {
		return 0, err
	}
	var err error
	if h.res.blob != nil && !h.res.blob.drawn {
		err = h.readMemory(as, rect, dst)
	} else if hopErr := h.hop(func() { err = h.readPixels(rect, dst) }); hopErr != nil {
		return 0, hopErr
	}
	if err != nil {
		return 0, err
	}
	return uint64(rect.W) * uint64(rect.H) * uint64(dst.Fourcc.BytesPerPixel()), nil
}

// readPixels reads what the renderer drew. Render thread.
func (h *handle) readPixels(rect display.Rect, dst *dmabuf.Buffer) error {
	res := h.res
	if res.gone != nil {
		return fmt.Errorf("%w: its pixels went with it", res.gone)
	}
	l := res.layout()
	if res.blob != nil { // the renderer knows its size
		buf, err := h.d.blobTexture(res)
		if err != nil {
			return fmt.Errorf("%w: %w", proxy.ErrNotExportable, err)
		}
		l = layout{w: buf.Width, h: buf.Height, fourcc: dst.Fourcc}
	}
	if rect.X+rect.W > l.w || rect.Y+rect.H > l.h {
		return fmt.Errorf("%w: rectangle %dx%d at %d,%d of a texture of %dx%d", virtiogpu.ErrInvalidParameter, rect.W, rect.H, rect.X, rect.Y, l.w, l.h)
	}
	if l.fourcc == 0 {
		return fmt.Errorf("%w: virgl format %d has no conversion", proxy.ErrNotExportable, res.args.Format)
	}
	return h.d.copyInto(&picture{res: res, layout: l}, dst, rect)
}

// readMemory copies from a blob's memory, on the caller's goroutine: the handle
// keeps it.
func (h *handle) readMemory(as proxy.Layout, rect display.Rect, dst *dmabuf.Buffer) error {
	bpp := as.Fourcc.BytesPerPixel()
	conv, err := shmfallback.ConvertFor(as.Fourcc, dst.Fourcc)
	if err != nil || bpp == 0 || bpp != dst.Fourcc.BytesPerPixel() {
		return fmt.Errorf("%w: no conversion from %v to %v", virtiogpu.ErrInvalidParameter, as.Fourcc, dst.Fourcc)
	}
	var segs [][]byte
	if hopErr := h.hop(func() { segs, err = h.res.segments() }); hopErr != nil {
		return hopErr
	}
	if err != nil {
		return err
	}
	return h.d.meter.CopyRect(&shmfallback.Copy{
		Dst: dst.Mem, DstStride: dst.Planes[0].Stride, DstX: rect.X, DstY: rect.Y,
		Src: segs, SrcStride: as.Stride, Convert: conv, W: rect.W, H: rect.H, BytesPerPixel: bpp,
		SrcOffset: uint64(as.Offset) + uint64(rect.Y)*uint64(as.Stride) + uint64(rect.X)*uint64(bpp),
	})
}
