package broker

import "time"

// paceCap is how long a fenced RESOURCE_FLUSH waits for the display at most. A
// hidden window gets no frame callbacks and must not stop the guest.
const paceCap = 40 * time.Millisecond

// pace gives the flush a serial on every head that shows the resource, and lets
// its completion wait for the first of them that reports.
func (d *Device) pace(r *request, res *resource) {
	for h := range d.cfg.Heads {
		if res.heads&(1<<h) == 0 {
			continue
		}
		s := &d.scanouts[h]
		s.serial++
		if r.serial != 0 || !r.hdr.Fenced() || d.pacer == nil || !d.pacer.Paces(h) {
			continue
		}
		r.serial, r.screen = s.serial, h
		d.capPace(h)
	}
}

// capPace starts the head's timer unless it runs.
func (d *Device) capPace(head int) {
	c := &d.caps[head]
	if c.running {
		return
	}
	c.running, c.serial = true, d.scanouts[head].serial
	if c.timer == nil {
		expired := func() { d.paceExpired(head) }
		c.timer = time.AfterFunc(paceCap, func() { d.cfg.Loop.Post(expired) })
		return
	}
	c.timer.Reset(paceCap)
}

// paceTimer ends the wait for one head's display.
type paceTimer struct {
	timer   *time.Timer
	running bool
	serial  uint64 // the flush that it was started for
}

func (d *Device) paceExpired(head int) {
	c, s := &d.caps[head], &d.scanouts[head]
	c.running = false
	if s.shown < c.serial {
		d.stats.PaceCaps.Add(1)
		d.frameShown(head, c.serial)
	}
	if s.shown < s.serial && d.pendingShown(head) {
		d.capPace(head)
	}
}

// pendingShown reports whether a command still waits for the head.
func (d *Device) pendingShown(head int) bool {
	for i := d.fences.first; i < len(d.fences.q); i++ {
		if f := &d.fences.q[i]; f.shown && !f.done && f.screen == head {
			return true
		}
	}
	return false
}

// frameShown completes what waited for a head's frames up to serial.
func (d *Device) frameShown(head int, serial uint64) {
	s := &d.scanouts[head]
	s.shown = max(s.shown, serial)
	d.fences.signalShown(head, s.shown)
	for _, t := range d.rings {
		t.signalShown(head, s.shown)
	}
	d.completeFences()
	d.retryCopy(head)
}

// stopPacing ends the timers.
func (d *Device) stopPacing() {
	for h := range d.caps {
		if c := &d.caps[h]; c.timer != nil {
			c.timer.Stop()
			c.running = false
		}
	}
}
