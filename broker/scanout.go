package broker

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
)

// scanout is one head of the guest's display.
type scanout struct {
	pic  *picture     // nil: off
	rect display.Rect // part of the picture that is shown

	// waiting says that a frame is not copied yet because the display holds every
	// buffer or has not taken the frame before; its damage waits in the swapchain.
	waiting   bool
	damage    display.Rect // what changed since the last frame that went out
	flushedAt int64        // of the newest flush in it

	serial    uint64 // of the newest flush
	presented uint64 // the newest that went to the sink
	shown     uint64 // the newest that the display reported
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
	d.setPicture(head, d.picture(res, res.layout()), display.Rect{X: c.R.X, Y: c.R.Y, W: c.R.Width, H: c.R.Height})
	d.cfg.Page.SetHead(head, r.body)
	return nil
}

// setPicture lets a head show a part of a picture from the next flush on.
func (d *Device) setPicture(head int, p *picture, rect display.Rect) {
	s := &d.scanouts[head]
	if s.pic == p && s.rect == rect {
		return
	}
	resized := s.pic == nil || s.rect.W != rect.W || s.rect.H != rect.H
	d.unlink(head)
	s.pic, s.rect, s.waiting, s.damage = p, rect, false, display.Rect{}
	p.heads |= 1 << head
	p.res.heads |= 1 << head
	if resized {
		d.headsResized()
	}
}

// unlink takes the head's picture away; nothing is shown differently yet.
func (d *Device) unlink(head int) {
	s := &d.scanouts[head]
	if s.pic != nil {
		s.pic.heads &^= 1 << head
		s.pic.res.heads &^= 1 << head
		s.pic = nil
	}
}

func (d *Device) disableHead(head int) {
	if d.scanouts[head].pic == nil {
		return
	}
	d.unlink(head)
	d.cfg.Page.SetHead(head, nil)
	s := &d.scanouts[head]
	*s = scanout{serial: s.serial, presented: s.serial, shown: s.serial}
	d.frameShown(head, s.serial)
	d.sink.Disable(head)
	d.headsResized()
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
	if res.blob == nil && !c.R.Inside(res.args.Width, res.args.Height) {
		return fmt.Errorf("%w: rectangle %dx%d at %d,%d outside of resource %d (%dx%d)", virtiogpu.ErrInvalidParameter,
			c.R.Width, c.R.Height, c.R.X, c.R.Y, res.id, res.args.Width, res.args.Height)
	}
	if res.heads == 0 {
		return nil
	}
	d.stats.Flushes.Add(1)
	p := present{res: res, damage: display.Rect{X: c.R.X, Y: c.R.Y, W: c.R.Width, H: c.R.Height}, flushedAt: monotonic()}
	if len(res.ctxs) > 0 {
		d.fencePresent(&p)
	} else {
		p.done = true
	}
	d.pace(r, res)
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
	s.damage, s.flushedAt = s.damage.Union(damage), flushedAt
	buf, copied := d.source(s.pic)
	if copied {
		s.pic.frames.Damage(shmfallback.Rect(damage))
	}
	d.present(head, buf, copied)
}

// present gives the head's frame to the sink: buf, or if copied is set a copy made
// now. If no copy can be made now, or it would only be superseded, it waits.
func (d *Device) present(head int, buf *dmabuf.Buffer, copied bool) {
	s := &d.scanouts[head]
	s.waiting = false
	if copied {
		if d.behind(head) {
			s.waiting = true
			return
		}
		if buf = d.fillFrame(s.pic); buf == nil {
			s.waiting = true
			d.stats.CopyWaits.Add(1)
			return
		}
	}
	if buf == nil {
		return // source said why
	}
	d.frame = display.Frame{Head: head, Buffer: buf, Source: s.rect, Damage: s.damage, Opaque: true, Serial: s.serial, FlushedAt: s.flushedAt}
	d.stats.Tiers[s.pic.tier].Add(1)
	s.presented, s.damage = s.serial, display.Rect{}
	d.sink.Present(&d.frame)
}

// behind reports whether the display has yet to take the head's last frame.
func (d *Device) behind(head int) bool {
	s := &d.scanouts[head]
	return d.pacer != nil && s.presented > s.shown && d.pacer.Paces(head)
}

// frameIdle hears from the sink, on its goroutine, that a copy-tier buffer is
// free again.
func (d *Device) frameIdle(*dmabuf.Buffer) { d.cfg.Loop.Post(d.onRetry) }

// retryCopies shows the frames that waited for a free buffer.
func (d *Device) retryCopies() {
	for h := range d.cfg.Heads {
		d.retryCopy(h)
	}
}

func (d *Device) retryCopy(head int) {
	s := &d.scanouts[head]
	if s.waiting && s.pic != nil {
		buf, copied := d.source(s.pic)
		d.present(head, buf, copied)
	}
}

// refresh presents every head again, whole. The sink asks for it when its
// display came back or its formats changed.
func (d *Device) refresh() {
	for _, res := range d.resources {
		if res.blob != nil && !res.blob.drawn {
			d.dropPictures(res) // what the display takes now decides anew how they go out
		}
	}
	now := monotonic()
	for h := range d.cfg.Heads {
		if s := &d.scanouts[h]; s.pic != nil {
			s.shown = s.presented // a display that came back may have lost that frame
			d.show(h, s.rect, now)
		}
	}
}
