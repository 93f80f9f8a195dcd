package broker

import (
	"fmt"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
)

// present is a RESOURCE_FLUSH on its way to the sink. It waits for the fence
// behind the drawing: a dma-buf of a software renderer has no implicit fences,
// and without the wait the compositor could read a half-drawn picture. The
// control queue goes on meanwhile.
type present struct {
	res       *resource // nil: its resource went away
	damage    display.Rect
	flushedAt int64
	ctx, id   uint32 // renderer fence, unless done
	done      bool
}

// maxPresents is how many flushes may wait for their fences.
const maxPresents = 8

// presentQueue keeps flushes in order.
type presentQueue struct {
	q [maxPresents]present
	n int
}

// push adds a flush; false when the queue is full. A flush of a resource that
// is already the newest waiting one merges with it: the later fence covers
// both. The oldest never merges, so a guest that flushes faster than the GPU
// draws still sees frames.
func (p *presentQueue) push(f present) bool {
	if p.n > 1 {
		if last := &p.q[p.n-1]; last.res == f.res && !last.done && last.ctx == f.ctx {
			f.damage = f.damage.Union(last.damage)
			f.flushedAt = last.flushedAt
			*last = f
			return true
		}
	}
	if p.n == maxPresents {
		return false
	}
	p.q[p.n] = f
	p.n++
	return true
}

// expire ends the oldest flush's wait.
func (p *presentQueue) expire() {
	if p.n > 0 {
		p.q[0].done = true
	}
}

func (p *presentQueue) signal(ctx, id uint32) {
	for i := range p.n {
		f := &p.q[i]
		if !f.done && f.ctx == ctx && int32(f.id-id) <= 0 {
			f.done = true
		}
	}
}

func (p *presentQueue) pop() (present, bool) {
	if p.n == 0 || !p.q[0].done {
		return present{}, false
	}
	f := p.q[0]
	copy(p.q[:], p.q[1:p.n])
	p.n--
	p.q[p.n] = present{}
	return f, true
}

func (p *presentQueue) forget(res *resource) {
	for i := range p.n {
		if p.q[i].res == res {
			p.q[i].res, p.q[i].done = nil, true
		}
	}
}

func (p *presentQueue) clear() { *p = presentQueue{} }

// fencePresent decides what the frame waits for: the newest fence of the context
// that drew last among those that hold the resource.
func (d *Device) fencePresent(p *present) {
	drew := d.lastDrawer(p.res)
	if drew == nil || drew.idle {
		p.done = true
		return
	}
	p.ctx, p.id = drew.id, drew.fence
	if drew.dirty {
		id, err := d.newFence(drew.id)
		if err != nil {
			d.quiet.warn(d.log, "no fence before a frame; it may be shown half drawn", zap.Uint32("ctx", drew.id), zap.Error(err))
			p.done = true
			return
		}
		p.id = id
	}
	p.done = drew.idle // signalled while it was made
}

// fillFrame copies the damaged part of a picture into a shared buffer that
// nobody looks at. It returns nil when the display holds them all.
func (d *Device) fillFrame(p *picture) *dmabuf.Buffer {
	buf, damage := p.frames.Acquire()
	if buf == nil {
		return nil
	}
	if err := d.copyInto(p, buf, display.Rect(damage)); err != nil {
		d.quiet.warn(d.log, "frame not copied", zap.Uint32("resource", p.res.id), zap.Error(err))
		p.frames.Undrawn(buf)
	}
	return buf
}

// copyInto copies a rectangle of the picture into a shared buffer of the same
// size, converting to its format.
func (d *Device) copyInto(p *picture, dst *dmabuf.Buffer, rect display.Rect) error {
	res := p.res
	stride := dst.Planes[0].Stride
	c := shmfallback.Copy{
		Dst: dst.Mem, DstStride: stride, DstX: rect.X, DstY: rect.Y,
		W: rect.W, H: rect.H, BytesPerPixel: 4,
	}
	switch {
	case res.kind == kind2D:
		return d.copyBuffer(&d.meter, &c, res.buf, rect, dst.Fourcc)
	case res.kind == kindBlob && !res.blob.drawn:
		return d.copyBlob(&d.meter, &c, p, rect, dst.Fourcc)
	}
	bytes := uint64(rect.W) * uint64(rect.H) * 4
	fourcc := p.layout.fourcc
	if fourcc.Opaque() == dst.Fourcc.Opaque() {
		at := uint64(rect.Y)*uint64(stride) + uint64(rect.X)*4
		return d.meter.Fill(bytes, func() error {
			return d.rend.ReadPixels(res.id, rect.X, rect.Y, rect.W, rect.H, stride, dst.Mem[at:])
		})
	}
	// Rare formats go through a packed scratch picture and are converted there.
	pixels, err := d.readScratch(&d.meter, res, rect)
	if err != nil {
		return err
	}
	d.seg[0] = pixels
	c.Src, c.SrcStride = d.seg[:], rect.W*4
	if c.Convert, err = shmfallback.ConvertFor(fourcc, dst.Fourcc); err != nil {
		return err
	}
	return d.meter.CopyRect(&c)
}

// copyBuffer completes c, a copy from a rectangle of src, and runs it.
func (d *Device) copyBuffer(m *shmfallback.Meter, c *shmfallback.Copy, src *dmabuf.Buffer, rect display.Rect, to dmabuf.Fourcc) error {
	conv, err := shmfallback.ConvertFor(src.Fourcc, to)
	if err != nil {
		return err
	}
	if src.Kind == dmabuf.KindDMABuf {
		if err := src.BeginCPU(false); err != nil {
			return err
		}
		defer func() { _ = src.EndCPU(false) }()
	}
	d.seg[0] = src.Mem
	c.Src, c.SrcStride, c.Convert = d.seg[:], src.Planes[0].Stride, conv
	c.SrcOffset = uint64(rect.Y)*uint64(c.SrcStride) + uint64(rect.X)*4
	return m.CopyRect(c)
}

// readScratch reads a rectangle of a 3D resource, packed, into a buffer that is
// valid until the next call.
func (d *Device) readScratch(m *shmfallback.Meter, res *resource, rect display.Rect) ([]byte, error) {
	bytes := uint64(rect.W) * uint64(rect.H) * 4
	if uint64(cap(d.scratch)) < bytes {
		d.scratch = make([]byte, bytes)
	}
	pixels := d.scratch[:bytes]
	err := m.Fill(bytes, func() error {
		return d.rend.ReadPixels(res.id, rect.X, rect.Y, rect.W, rect.H, rect.W*4, pixels)
	})
	if err != nil {
		return nil, fmt.Errorf("read back: %w", err)
	}
	return pixels, nil
}
