package broker

import (
	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/broker/virtq"
)

// newFence asks the renderer for a fence behind all work of ctx so far.
func (d *Device) newFence(ctx uint32) (uint32, error) {
	d.lastFence++
	if d.lastFence == 0 {
		d.lastFence = 1 // 0 says "no fence"
	}
	id := d.lastFence
	if c := d.contexts[ctx]; c != nil {
		c.fence, c.signalled, c.dirty = id, false, false
	}
	d.stats.Fences.Add(1)
	if err := d.rend.CreateFence(ctx, id); err != nil {
		return 0, err
	}
	return id, nil
}

// fenceSignalled is the renderer's report: work of ctx up to fence id is done.
// It may come from inside CreateFence or Submit, so it completes nothing whose
// chain is still being served: that one is not on the timeline yet.
func (d *Device) fenceSignalled(ctx, id uint32) {
	if c := d.contexts[ctx]; c != nil {
		if int32(c.fence-id) <= 0 {
			c.signalled = true
			c.idle = !c.dirty
		}
	}
	d.fences.signal(ctx, id)
	for k, t := range d.rings {
		if k.ctx == ctx {
			t.signal(ctx, id)
		}
	}
	d.completeFences()
	d.presents.signal(ctx, id)
	d.showReady()
	d.drawnUpTo(ctx, id)
	if c := d.contexts[ctx]; c != nil && c.onFence != nil {
		c.onFence(id)
	}
}

// signalled reports whether the renderer said so of a fence before its command
// reached the timeline.
func (d *Device) signalled(ctx, id uint32) bool {
	c := d.contexts[ctx]
	return c != nil && c.fence == id && c.signalled
}

// completeFences gives finished commands back to the guest, oldest first.
func (d *Device) completeFences() {
	q := d.ctrl.q
	any := d.completeLine(q, &d.fences)
	for _, t := range d.rings {
		any = d.completeLine(q, t) || any
	}
	if any {
		d.ringOK(q.Notify())
	}
}

// completeLine does that for one timeline and reports whether the guest has
// something to look at.
func (d *Device) completeLine(q *virtq.Queue, t *timeline) (any bool) {
	if q == nil {
		return false // stopped; the chains go into the queue that comes next
	}
	for {
		f, ok := t.pop()
		if !ok {
			return any
		}
		d.ringOK(q.Push(f.head, f.written))
		any = true
	}
}

// ringKey names a timeline of a context (virtio spec 5.7.6.7, ring_idx).
type ringKey struct {
	ctx  uint32
	ring uint8
}

// timelineOf finds the timeline that a fenced command belongs to: its context's
// ring if it names one, else the device's.
func (d *Device) timelineOf(h *virtiogpu.CtrlHdr) *timeline {
	if h.Flags&virtiogpu.FlagInfoRingIdx == 0 || d.features&(1<<virtiogpu.FeatureContextInit) == 0 || d.contexts[h.CtxID] == nil {
		return &d.fences
	}
	k := ringKey{h.CtxID, h.RingIdx}
	t := d.rings[k]
	if t == nil {
		t = &timeline{}
		d.rings[k] = t
	}
	return t
}

// dropRings completes and forgets the timelines of a context that goes away.
func (d *Device) dropRings(ctx uint32) {
	for k, t := range d.rings {
		if k.ctx == ctx {
			t.signalAll()
			if d.completeLine(d.ctrl.q, t) {
				d.ringOK(d.ctrl.q.Notify())
			}
			delete(d.rings, k)
		}
	}
}

// finishFences completes what is pending as the ring stops. Fences are between
// the renderer and us; a guest that continues after vm stop must find each of
// its commands completed once.
func (d *Device) finishFences() {
	d.rend.Poll()
	n := d.fences.signalRest()
	for _, t := range d.rings {
		n += t.signalRest()
	}
	if n > 0 {
		d.log.Debug("completing fenced commands at queue stop", zap.Int("commands", n))
	}
	d.completeFences()
}
