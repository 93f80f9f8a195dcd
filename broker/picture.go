package broker

import (
	"fmt"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
)

// copyBuffers is how many shared-memory buffers the copy tier uses for a
// picture: one that the display shows, one that it was just given, one to fill.
const copyBuffers = 3

// maxPictures is how many layouts of one blob are kept: a blob can be shown by
// every head, and some guests put several framebuffers into one.
const maxPictures = display.MaxHeads + 4

// layout says how a picture lies in a resource's memory. Classic resources have
// one, without strides and offsets; a blob gets one with each SET_SCANOUT_BLOB.
type layout struct {
	w, h    uint32 // pixels
	fourcc  dmabuf.Fourcc
	strides [dmabuf.MaxPlanes]uint32 // bytes
	offsets [dmabuf.MaxPlanes]uint32 // bytes
}

// picture is a resource in a shape that can be presented. Render thread only.
type picture struct {
	res    *resource
	layout layout
	heads  uint32 // bit set of the scanouts that show it

	// buf is what can be shown without a copy by us: the resource's own memory.
	// tried says that making it was tried; err why there is none.
	buf   *dmabuf.Buffer
	tried bool
	err   error

	// frames is the copy tier: shared memory that pixels are copied into.
	frames *shmfallback.Swapchain

	tier tier // how it went out last
}

// tier is a way for a picture's pixels to reach the display.
type tier uint8

// The tiers, best first; the zero value is none yet.
const (
	tierDMABuf  tier = iota + 1 // the renderer's memory, or what TRANSFER_TO_HOST_2D copied to, as a dma-buf
	tierUDMABuf                 // the guest's or our own pages as a dma-buf, not copied
	tierShared                  // our pages, which the guest has mapped, as wl_shm, not copied
	tierShm                     // the shared memory that TRANSFER_TO_HOST_2D copied to
	tierCopy                    // copied into shared memory for each frame
	numTiers
)

var tierNames = [numTiers]string{"", "dmabuf", "udmabuf", "shared", "shm", "copy"}

func (t tier) String() string { return tierNames[t] }

// picture finds or makes the resource's picture of this layout.
func (d *Device) picture(res *resource, l layout) *picture {
	for _, p := range res.pics {
		if p.layout == l {
			return p
		}
	}
	if len(res.pics) >= maxPictures {
		for i, p := range res.pics {
			if p.heads == 0 {
				d.dropPicture(p)
				res.pics = append(res.pics[:i], res.pics[i+1:]...)
				break
			}
		}
	}
	p := &picture{res: res, layout: l}
	res.pics = append(res.pics, p)
	return p
}

// source finds what to present: the picture's own buffer if the sink takes it,
// else the copy tier's frames (copied true). The tier is logged when it changes.
func (d *Device) source(p *picture) (buf *dmabuf.Buffer, copied bool) {
	if !p.tried {
		p.tried = true
		p.buf, p.err = d.makeBuffer(p)
	}
	switch {
	case p.buf == nil:
	case p.buf.Kind == dmabuf.KindShm && p.res.kind == kind2D:
		d.logTier(p, tierShm)
		return p.buf, false
	case p.buf.Kind == dmabuf.KindShm:
		d.logTier(p, tierShared)
		return p.buf, false
	case d.sink.Accepts(p.buf.Fourcc, p.buf.Modifier):
		tier := tierDMABuf
		if p.buf.Origin == "udmabuf" {
			tier = tierUDMABuf
		}
		d.logTier(p, tier)
		return p.buf, false
	}
	if p.frames == nil {
		frames, err := shmfallback.AllocSwapchain(copyBuffers, p.layout.w, p.layout.h, dmabuf.XRGB8888, fmt.Sprintf("frame of resource %d", p.res.id))
		if err != nil {
			d.quiet.warn(d.log, "no memory for shared frames", zap.Uint32("resource", p.res.id), zap.Error(err))
			return nil, false
		}
		p.frames = frames
		frames.OnIdle(d.onIdle)
	}
	d.logTier(p, tierCopy)
	return nil, true
}

// makeBuffer makes the buffer that shares the picture's memory.
func (d *Device) makeBuffer(p *picture) (*dmabuf.Buffer, error) {
	switch p.res.kind {
	case kind2D:
		return p.res.buf.Retain(), nil
	case kind3D:
		b, err := d.rend.Export(p.res.id)
		if err == nil {
			d.stats.Exports.Add(1)
		}
		return b, err
	default:
		return d.blobBuffer(p)
	}
}

// logTier logs how a picture goes out when that changes, and why not better.
func (d *Device) logTier(p *picture, tier tier) {
	if p.tier == tier {
		return
	}
	p.tier = tier
	why := ""
	switch {
	case tier == tierShm:
		why = "classic 2D resource: the guest's pixels are copied once, into what the display reads"
	case tier == tierDMABuf && p.res.kind == kind2D:
		why = "classic 2D resource: the guest's pixels are copied once, into what the display reads"
	case tier == tierShared && p.err != nil:
		why = "no dma-buf: " + p.err.Error()
	case tier == tierCopy && p.buf == nil:
		why = "no dma-buf: " + p.err.Error()
	case tier == tierCopy:
		why = "the display does not take " + p.buf.Fourcc.String() + " with modifier " + p.buf.Modifier.String()
	}
	d.log.Info("presenting", zap.Uint32("resource", p.res.id), zap.Stringer("tier", tier), zap.String("why", why),
		zap.Uint32("width", p.layout.w), zap.Uint32("height", p.layout.h))
}

// dropPicture lets go of everything that could be presented for it.
func (d *Device) dropPicture(p *picture) {
	if p.frames != nil {
		p.frames.OnIdle(nil)
		for _, b := range p.frames.Buffers() {
			d.sink.Drop(b)
		}
		p.frames.Close()
		p.frames = nil
	}
	if p.buf != nil {
		d.sink.Drop(p.buf)
		p.buf.Release()
		p.buf = nil
	}
	p.tried, p.err = false, nil
}

// dropPictures drops all of a resource's.
func (d *Device) dropPictures(res *resource) {
	for _, p := range res.pics {
		d.dropPicture(p)
	}
	if res.heads == 0 {
		res.pics = nil
	}
}
