package broker

import (
	"fmt"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
)

// copyBuffers is how many shared-memory buffers the copy tier uses for a
// resource: one that the display shows, one that it was just given, one to fill.
const copyBuffers = 3

// scanout is one head of the guest's display.
type scanout struct {
	res  *resource    // nil: off
	rect display.Rect // part of the resource that is shown

	// waiting says that a frame could not be copied because the display holds
	// every buffer; its damage waits in the swapchain.
	waiting   bool
	flushedAt int64
}

func (d *Device) setScanout(r *request) error {
	var c virtiogpu.SetScanout
	if err := c.Decode(r.body); err != nil {
		return err
	}
	if c.ScanoutID >= uint32(d.cfg.Heads) {
		return fmt.Errorf("%w: scanout_id %d, limit %d", virtiogpu.ErrInvalidScanout, c.ScanoutID, d.cfg.Heads-1)
	}
	head := int(c.ScanoutID)
	if c.ResourceID == 0 {
		d.disableHead(head)
		return nil
	}
	res, err := d.lookup(c.ResourceID)
	if err != nil {
		return err
	}
	if res.fourcc == 0 {
		return fmt.Errorf("%w: resource %d has format %d and target %d, which no scanout can show", virtiogpu.ErrInvalidParameter,
			res.id, res.args.Format, res.args.Target)
	}
	if c.R.Width == 0 || c.R.Height == 0 || !c.R.Inside(res.args.Width, res.args.Height) {
		return fmt.Errorf("%w: rectangle %dx%d at %d,%d empty or outside of resource %d (%dx%d)", virtiogpu.ErrInvalidParameter,
			c.R.Width, c.R.Height, c.R.X, c.R.Y, res.id, res.args.Width, res.args.Height)
	}
	s := &d.scanouts[head]
	rect := display.Rect{X: c.R.X, Y: c.R.Y, W: c.R.Width, H: c.R.Height}
	if s.res == res && s.rect == rect {
		return nil
	}
	if s.res != nil {
		s.res.heads &^= 1 << head
	}
	s.res, s.rect, s.waiting = res, rect, false
	res.heads |= 1 << head
	return nil
}

func (d *Device) disableHead(head int) {
	s := &d.scanouts[head]
	if s.res == nil {
		return
	}
	s.res.heads &^= 1 << head
	*s = scanout{}
	d.sink.Disable(head)
}

// monotonic returns CLOCK_MONOTONIC in nanoseconds.
func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

func (d *Device) resourceFlush(r *request) error {
	var c virtiogpu.ResourceFlush
	if err := c.Decode(r.body); err != nil {
		return err
	}
	res, err := d.lookup(c.ResourceID)
	if err != nil {
		return err
	}
	if !c.R.Inside(res.args.Width, res.args.Height) {
		return fmt.Errorf("%w: rectangle %dx%d at %d,%d outside of resource %d (%dx%d)", virtiogpu.ErrInvalidParameter,
			c.R.Width, c.R.Height, c.R.X, c.R.Y, res.id, res.args.Width, res.args.Height)
	}
	if res.heads == 0 {
		return nil
	}
	d.stats.Flushes.Add(1)
	p := present{res: res, damage: display.Rect{X: c.R.X, Y: c.R.Y, W: c.R.Width, H: c.R.Height}, flushedAt: monotonic()}
	if res.kind == kind3D {
		d.fencePresent(&p)
	} else {
		p.done = true
	}
	if !d.presents.push(p) {
		d.presents.expire() // show the oldest rather than grow: at worst it is torn
		d.showReady()
		d.presents.push(p)
	}
	d.showReady()
	return nil
}

// showReady hands every frame whose drawing is finished to the sink, in order.
func (d *Device) showReady() {
	for {
		p, ok := d.presents.pop()
		if !ok {
			return
		}
		if p.res == nil {
			continue
		}
		for h := range d.cfg.Heads {
			if p.res.heads&(1<<h) != 0 {
				d.show(h, p.damage, p.flushedAt)
			}
		}
	}
}

// show presents what changed on a head, in the best way that the sink takes.
func (d *Device) show(head int, damage display.Rect, flushedAt int64) {
	s := &d.scanouts[head]
	damage = damage.Intersect(s.rect)
	if damage.Empty() {
		return
	}
	buf, copied := d.pictureOf(s.res)
	if copied {
		s.res.frames.Damage(shmfallback.Rect(damage))
		s.flushedAt = flushedAt
		if buf = d.fillFrame(s.res); buf == nil {
			s.waiting = true
			d.stats.CopyWaits.Add(1)
			return
		}
		s.waiting = false
	}
	if buf == nil {
		return // pictureOf said why
	}
	d.frame = display.Frame{Head: head, Buffer: buf, Source: s.rect, Damage: damage, Opaque: true, FlushedAt: flushedAt}
	d.sink.Present(&d.frame)
}

// pictureOf finds what to present for a resource: its own buffer if the sink
// takes it, else the copy tier's frames (copied true). The tier is logged when
// it changes.
func (d *Device) pictureOf(res *resource) (buf *dmabuf.Buffer, copied bool) {
	d.export(res)
	switch {
	case res.buf == nil:
	case res.buf.Kind == dmabuf.KindShm:
		d.logTier(res, tierShm)
		return res.buf, false
	case d.sink.Accepts(res.buf.Fourcc, res.buf.Modifier):
		d.logTier(res, tierDMABuf)
		return res.buf, false
	}
	if res.frames == nil {
		frames, err := shmfallback.AllocSwapchain(copyBuffers, res.args.Width, res.args.Height, dmabuf.XRGB8888, fmt.Sprintf("frame of resource %d", res.id))
		if err != nil {
			d.quiet.warn(d.log, "no memory for shared frames", zap.Uint32("resource", res.id), zap.Error(err))
			return nil, false
		}
		res.frames = frames
		frames.OnIdle(d.onIdle)
	}
	d.logTier(res, tierCopy)
	return nil, true
}

// The ways that a resource's pixels reach the display.
const (
	tierDMABuf = "dmabuf"   // its own memory, not copied
	tierShm    = "shm"      // the shared memory that it was uploaded to
	tierCopy   = "shm copy" // read back into shared memory for each frame
)

// logTier logs how a resource is presented when that changes, and why not better.
func (d *Device) logTier(res *resource, tier string) {
	if res.tierLogged == tier {
		return
	}
	res.tierLogged = tier
	why := ""
	switch {
	case tier == tierShm:
		why = "classic 2D resource: the guest's pixels are copied once, into what the display reads"
	case tier == tierCopy && res.buf == nil:
		why = "no dma-buf: " + res.exportErr.Error()
	case tier == tierCopy:
		why = "the display does not take " + res.buf.Fourcc.String() + " with modifier " + res.buf.Modifier.String()
	}
	d.log.Info("presenting", zap.Uint32("resource", res.id), zap.String("tier", tier), zap.String("why", why),
		zap.Uint32("width", res.args.Width), zap.Uint32("height", res.args.Height))
}

// export makes the shared buffer of a 3D resource, once.
func (d *Device) export(res *resource) {
	if res.exported || res.kind != kind3D {
		return
	}
	res.exported = true
	res.buf, res.exportErr = d.rend.Export(res.id)
	if res.exportErr == nil {
		d.stats.Exports.Add(1)
	}
}

// frameIdle hears from the sink, on its goroutine, that a copy-tier buffer is
// free again.
func (d *Device) frameIdle(*dmabuf.Buffer) { d.cfg.Loop.Post(d.onRetry) }

// retryCopies shows the frames that waited for a free buffer.
func (d *Device) retryCopies() {
	for h := range d.cfg.Heads {
		s := &d.scanouts[h]
		if s.waiting && s.res != nil {
			s.waiting = false
			d.show(h, s.rect, s.flushedAt)
		}
	}
}

// refresh presents every head again, whole. The sink asks for it when its
// display came back or its formats changed.
func (d *Device) refresh() {
	now := monotonic()
	for h := range d.cfg.Heads {
		if s := &d.scanouts[h]; s.res != nil {
			d.show(h, s.rect, now)
		}
	}
}

// dropBuffers lets go of everything that could be presented for a resource.
func (d *Device) dropBuffers(res *resource) {
	if res.frames != nil {
		res.frames.OnIdle(nil)
		for _, b := range res.frames.Buffers() {
			d.sink.Drop(b)
		}
		res.frames.Close()
		res.frames = nil
	}
	if res.buf != nil {
		d.sink.Drop(res.buf)
		res.buf.Release()
		res.buf = nil
	}
	res.exported, res.exportErr = false, nil
}
