package broker

import "go.uber.org/zap"

// newFence asks the renderer for a fence behind all work of ctx so far.
func (d *Device) newFence(ctx uint32) (uint32, error) {
	d.lastFence++
	if d.lastFence == 0 {
		d.lastFence = 1 // 0 says "no fence"
	}
	id := d.lastFence
	if c := d.contexts[ctx]; c != nil {
		c.fence, c.dirty = id, false
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
		c.signalled = id
		if !c.dirty && int32(c.fence-id) <= 0 {
			c.idle = true
		}
	}
	d.fences.signal(ctx, id)
	d.completeFences()
	d.presents.signal(ctx, id)
	d.showReady()
}

// signalled reports whether the renderer said so of a fence before its command
// reached the timeline.
func (d *Device) signalled(ctx, id uint32) bool {
	c := d.contexts[ctx]
	return c != nil && c.signalled != 0 && int32(id-c.signalled) <= 0
}

// completeFences gives finished commands back to the guest, oldest first.
func (d *Device) completeFences() {
	q := d.ctrl.q
	any := false
	for {
		f, ok := d.fences.pop()
		if !ok {
			break
		}
		if q != nil {
			d.ringOK(q.Push(f.head, f.written))
			any = true
		}
	}
	if any {
		d.ringOK(q.Notify())
	}
}

// finishFences completes what is pending as the ring stops. Fences are between
// the renderer and us; a guest that continues after vm stop must find each of
// its commands completed once.
func (d *Device) finishFences(u *queue) {
	d.rend.Poll()
	if n := d.fences.len(); n > 0 {
		d.log.Debug("completing fenced commands at queue stop", zap.Int("commands", n))
		d.fences.signalAll()
	}
	d.completeFences()
}
