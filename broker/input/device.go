package input

import (
	"errors"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/guestmem"
	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/broker/virtq"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// The queues (virtio spec 1.3, 5.8.2).
const (
	eventQueue  = 0
	statusQueue = 1
	queues      = 2
)

// turn is how many chains of a queue are served before the others get their turn.
const turn = 256

// device is one virtio-input device: vhostuser.Device, on the loop.
type device struct {
	kind Kind
	loop *loop
	src  *source
	log  *zap.Logger

	sel    atomic.Uint32 // select, and subsel in bits 8 to 15
	leds   atomic.Uint32 // what the guest lit, by bit
	posted atomic.Bool   // serve is on its way to the loop

	serveEvents, serveStatus func() // made once

	// Below: the loop's own.
	rings [queues]ring
	chain virtq.Chain
}

// ring is a queue that runs.
type ring struct {
	q     *virtq.Queue
	kick  *dmabuf.FD
	dead  bool // its memory is gone; it may come back with another start
	noted bool // a bad chain was logged
}

var _ vhostuser.Device = (*device)(nil)

func newDevice(kind Kind, l *loop, log *zap.Logger) *device {
	d := &device{kind: kind, loop: l, log: log}
	d.src = newSource(kind, queueSize, d.wake)
	d.serveEvents = func() {
		d.posted.Store(false)
		d.pump()
	}
	d.serveStatus = d.drain
	return d
}

// wake makes the loop look for events. Any goroutine.
func (d *device) wake() {
	if d.posted.CompareAndSwap(false, true) && !d.loop.post(d.serveEvents) {
		d.posted.Store(false)
	}
}

// Features offers none of its own; the driver needs VERSION_1 only.
func (d *device) Features() uint64 { return 0 }

// ReadConfig shows what the driver selected.
func (d *device) ReadConfig(p []byte) {
	v := d.sel.Load()
	d.kind.readConfig(p, uint8(v), uint8(v>>8))
}

// WriteConfig takes select and subsel. Writes come one after the other.
func (d *device) WriteConfig(off uint32, p []byte) error {
	if err := checkWrite(off, len(p)); err != nil {
		return err
	}
	v := d.sel.Load()
	for i, b := range p {
		switch off + uint32(i) {
		case 0:
			v = v&^0xff | uint32(b)
		case 1:
			v = v&^0xff00 | uint32(b)<<8
		}
	}
	d.sel.Store(v)
	return nil
}

// Attach has nothing to keep: chains know the memory.
func (d *device) Attach(*guestmem.Map) { d.src.reset() }

// SetFeatures has no bits to look at.
func (d *device) SetFeatures(uint64) error { return nil }

// QueueStart takes a ring. A fresh event queue means a driver that has never heard
// of any key.
func (d *device) QueueStart(index int, q *virtq.Queue, kick *dmabuf.FD, fresh bool) {
	if index >= queues {
		_ = kick.Close()
		return
	}
	if err := q.Rewind(); err != nil {
		d.log.Warn("buffers of a ring that was taken over are lost", zap.Stringer("device", d.kind), zap.Error(err))
	}
	d.rings[index] = ring{q: q, kick: kick}
	serve := d.pump
	if index == statusQueue {
		serve = d.drain
	}
	d.loop.watch(kick.Int(), serve)
	if index == eventQueue {
		if fresh {
			d.src.reset()
		}
		d.src.setLive(true)
	}
	serve()
}

// QueueStop gives a ring back.
func (d *device) QueueStop(index int) {
	if index >= queues || d.rings[index].q == nil {
		return
	}
	if index == eventQueue {
		d.src.setLive(false)
	}
	r := &d.rings[index]
	d.loop.unwatch(r.kick.Int())
	_ = r.kick.Close()
	*r = ring{}
}

// DisplaySocket is a message for a GPU.
func (d *device) DisplaySocket(fd *dmabuf.FD) { _ = fd.Close() }

// Reset is a device that was never used.
func (d *device) Reset() {
	d.src.reset()
	d.sel.Store(0)
	d.leds.Store(0)
}

// Detach says that the front-end is gone, and all that was pressed with it.
func (d *device) Detach() { d.Reset() }

// next takes the next good chain of a ring, at most *left bad ones on the way.
func (d *device) next(r *ring, left *int) bool {
	for ; *left > 0; *left-- {
		ok, err := r.q.Next(&d.chain)
		if err == nil {
			return ok
		}
		if !r.noted {
			r.noted = true
			d.log.Warn("the guest's driver broke a ring", zap.Stringer("device", d.kind), zap.Error(err))
		}
		if !ok && errors.Is(err, guestmem.ErrFault) {
			r.dead = true
			return false
		}
		if ok {
			d.push(r, 0)
		}
	}
	return false
}

func (d *device) push(r *ring, written uint32) {
	if err := r.q.Push(d.chain.Head, written); err != nil {
		r.dead = true
	}
}

// finish tells the driver of what was pushed, and asks for a kick if there is
// nothing left to take; else, or if the turn is over, more is to do.
func (d *device) finish(r *ring, kicks bool, left int) (more bool) {
	if r.dead {
		return false
	}
	if err := r.q.Notify(); err != nil && !r.noted {
		r.noted = true
		d.log.Warn("cannot interrupt the guest", zap.Stringer("device", d.kind), zap.Error(err))
	}
	if !kicks {
		_ = r.q.DisableKicks()
		return false
	}
	if left == 0 {
		return true
	}
	more, err := r.q.EnableKicks()
	if err != nil {
		r.dead = true
	}
	return more && !r.dead
}

// pump hands events to the driver as long as it has buffers for them.
func (d *device) pump() {
	r := &d.rings[eventQueue]
	for left := turn; r.q != nil && !r.dead; {
		waits := d.fill(r, &left)
		if !d.finish(r, waits, left) {
			return
		}
		if left == 0 {
			d.wake()
			return
		}
	}
}

// fill writes events until none waits, or no buffer is left: then waits is true.
func (d *device) fill(r *ring, left *int) (waits bool) {
	for {
		e, ok := d.src.next()
		if !ok {
			return false
		}
		if !d.next(r, left) {
			return true
		}
		var wire [EventSize]byte
		e.Put(wire[:])
		n, err := d.chain.Write(wire[:])
		*left--
		if err != nil || n < EventSize {
			// A buffer that holds no event goes back unused; the event waits on.
			d.push(r, 0)
			continue
		}
		d.push(r, EventSize)
		if r.dead {
			return true
		}
		d.src.taken()
	}
}

// drain takes what the driver reports: lights, and the delay and period with which
// the guest's own kernel repeats keys.
func (d *device) drain() {
	r := &d.rings[statusQueue]
	for left := turn; r.q != nil && !r.dead; {
		for d.next(r, &left) {
			left--
			d.status()
			d.push(r, 0)
			if r.dead {
				return
			}
		}
		if !d.finish(r, true, left) {
			return
		}
		if left == 0 {
			d.loop.post(d.serveStatus)
			return
		}
	}
}

func (d *device) status() {
	var wire [EventSize]byte
	n, err := d.chain.ReadAt(wire[:], 0)
	if err != nil {
		return
	}
	e, err := DecodeEvent(wire[:n])
	if err != nil || e.Type != EvLED || e.Code > LEDScroll {
		return
	}
	bit := uint32(1) << e.Code
	if e.Value != 0 {
		d.leds.Or(bit)
	} else {
		d.leds.And(^bit)
	}
}
