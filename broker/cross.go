package broker

import (
	"errors"
	"fmt"
	"slices"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/crossdomain"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
	"github.com/gpubroker/gpubroker/virgl"
)

// crossCapset describes the capability set of cross-domain contexts.
var crossCapset = virgl.CapsetInfo{ID: crossdomain.CapsetID, MaxVersion: 0, MaxSize: crossdomain.SizeCapset}

// offerCapsets lists the sets that the guest can ask for.
func (d *Device) offerCapsets() []virgl.CapsetInfo {
	sets := slices.Clone(d.info.Capsets)
	if d.cfg.Apps != nil {
		sets = append(sets, crossCapset)
	}
	return sets
}

// smallQueue is a control queue that many clients of cross-domain contexts fill up.
const smallQueue = 256

// createCross makes a cross-domain context. The renderer does not know it.
func (d *Device) createCross(id uint32, name string) {
	c := &guestContext{id: id, init: crossdomain.CapsetID, name: name, idle: true}
	c.cross = crossdomain.New(crossdomain.Config{
		ID: id, Name: name, Device: &crossDevice{d, c}, Channels: *d.cfg.Apps, Running: &d.running, Log: d.log.Named("cross-domain"),
	})
	d.contexts[id] = c
	if d.ctrl.q != nil && d.ctrl.q.Size() < smallQueue && !d.warnedSmall {
		d.warnedSmall = true
		d.log.Warn("each client of a cross-domain context takes an entry of the control queue; it has few (vq_size)",
			zap.Int("entries", d.ctrl.q.Size()), zap.Int("advised", smallQueue))
	}
}

// submitCross runs a SUBMIT_3D of a cross-domain context and says what its fence
// waits for.
func (d *Device) submitCross(r *request, ctx *guestContext, stream []byte) error {
	err := ctx.cross.Submit(stream)
	if err == nil && r.hdr.Fenced() && r.hdr.Flags&virtiogpu.FlagInfoRingIdx != 0 {
		d.lastHold++
		switch r.hdr.RingIdx {
		case crossdomain.RingQuery:
			if ctx.cross.Hold(d.lastHold) {
				r.hold = d.lastHold
			}
		case crossdomain.RingChannel:
			if err = ctx.cross.Poll(d.lastHold); err == nil {
				r.hold = d.lastHold
			}
		default:
			err = fmt.Errorf("ring %d, limit %d", r.hdr.RingIdx, crossdomain.RingChannel)
		}
	}
	if err != nil {
		return fmt.Errorf("%w: context %d (%s): %w", virtiogpu.ErrInvalidParameter, ctx.id, ctx.name, err)
	}
	return nil
}

// released completes a fence that a cross-domain context held.
func (d *Device) released(ctx uint32, hold uint64) {
	for ring := range uint8(crossdomain.RingChannel + 1) {
		t := d.rings[ringKey{ctx, ring}]
		if t != nil && t.release(hold) {
			if d.completeLine(d.ctrl.q, t) {
				d.ringOK(d.ctrl.q.Notify())
			}
			return
		}
	}
}

// crossDevice is the device as one of its cross-domain contexts sees it.
type crossDevice struct {
	d   *Device
	ctx *guestContext
}

var _ crossdomain.Device = (*crossDevice)(nil)

// Pin implements crossdomain.Device.
func (x *crossDevice) Pin(id uint32) error { return x.d.pin(x.ctx, id) }

// Release implements crossdomain.Device.
func (x *crossDevice) Release(hold uint64) {
	x.d.cfg.Loop.Post(func() { x.d.released(x.ctx.id, hold) })
}

// Ring implements crossdomain.Device. The ring keeps its memory when the guest gives
// the resource up.
func (x *crossDevice) Ring(id uint32) (crossdomain.Ring, error) {
	res := x.d.resources[id]
	switch {
	case res == nil:
		return crossdomain.Ring{}, fmt.Errorf("no resource %d", id)
	case !slices.Contains(res.ctxs, x.ctx.id):
		return crossdomain.Ring{}, fmt.Errorf("resource %d is not attached to context %d", id, x.ctx.id)
	case res.backing == nil || res.blob == nil:
		return crossdomain.Ring{}, fmt.Errorf("resource %d is no blob in guest memory", id)
	}
	h := x.d.hold(res)
	return crossdomain.Ring{Segs: res.backing.Segs, Close: func() { _ = h.Close() }}, nil
}

// Image implements crossdomain.Device: a buffer of the GPU's allocator where there is
// one, else shared memory.
func (x *crossDevice) Image(w, h uint32, f dmabuf.Fourcc, alloc bool) (crossdomain.Image, error) {
	if err := checkSize(w, h); err != nil {
		return crossdomain.Image{}, err
	}
	if gbm := x.d.cfg.Alloc2D; gbm != nil {
		return gbmImage(gbm, w, h, f, alloc)
	}
	bpp := f.BytesPerPixel()
	if bpp == 0 || f == dmabuf.NV12 {
		return crossdomain.Image{}, fmt.Errorf("format %v has no single plane of known pixels", f)
	}
	im := crossdomain.Image{MapInfo: virtiogpu.MapCacheCached}
	im.Strides[0] = shmfallback.Stride(w, bpp)
	im.Size = uint64(dmabuf.PageAlign(int64(im.Strides[0]) * int64(h)))
	if im.Size > x.d.cfg.HostMem {
		return crossdomain.Image{}, fmt.Errorf("%d bytes, the window has %d", im.Size, x.d.cfg.HostMem)
	}
	if !alloc {
		return im, nil
	}
	var err error
	im.FD, err = dmabuf.NewMemfd(fmt.Sprintf("image of context %d", x.ctx.id), int64(im.Size))
	return im, err
}

func gbmImage(gbm Allocator, w, h uint32, f dmabuf.Fourcc, alloc bool) (crossdomain.Image, error) {
	buf, err := gbm.Alloc2D(w, h, f)
	if err != nil {
		return crossdomain.Image{}, err
	}
	defer buf.Release()
	if buf.Kind != dmabuf.KindDMABuf || len(buf.Planes) != 1 {
		return crossdomain.Image{}, errors.New("the allocator gave no dma-buf of one plane")
	}
	p := buf.Planes[0]
	size, err := unix.Seek(p.FD.Int(), 0, unix.SEEK_END)
	if err != nil {
		return crossdomain.Image{}, fmt.Errorf("size of a dma-buf: %w", err)
	}
	im := crossdomain.Image{Size: uint64(dmabuf.PageAlign(size)), Modifier: buf.Modifier, MapInfo: virtiogpu.MapCacheWC}
	im.Strides[0], im.Offsets[0] = p.Stride, p.Offset
	if alloc {
		im.FD, err = p.FD.Dup()
	}
	return im, err
}

// crossBlob makes a resource of what a cross-domain context calls blob_id.
func (d *Device) crossBlob(res *resource, c *virtiogpu.ResourceCreateBlob, ctx *guestContext) error {
	got, err := ctx.cross.Blob(c.BlobID, c.Size)
	if err != nil {
		return fmt.Errorf("%w: %w", virtiogpu.ErrInvalidParameter, err)
	}
	b := res.blob
	b.host, b.exported, b.mapInfo, b.readOnly = got.FD, true, got.MapInfo, got.ReadOnly
	b.memfd = !isDMABuf(got.FD)
	return nil
}
