package broker

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/broker/virtq"
)

// errSuspended is what a handler returns when its command is answered later.
var errSuspended = errors.New("answered later")

// suspended is a command that waits for somebody else, such as the front-end
// mapping a blob. Its chain is its own, so that the queue goes on.
type suspended struct {
	hdr    virtiogpu.CtrlHdr
	chain  virtq.Chain
	done   bool   // answered
	again  bool   // as in request
	number uint64 // as in request
	// atStop, if set, makes the answer if the queue stops first.
	atStop func(*virtiogpu.CtrlHdr) []byte
}

// suspend takes the command being served out of the queue's way. Its handler
// returns errSuspended next, and resume is called once, later.
func (d *Device) suspend(r *request) *suspended {
	s := &suspended{hdr: r.hdr, chain: d.chain, number: r.number}
	d.chain = virtq.Chain{}
	d.waiting = append(d.waiting, s)
	return s
}

// resume answers a suspended command, with resp or an error. It does nothing if
// that was done when the queue stopped.
func (d *Device) resume(s *suspended, err error, resp []byte) {
	if s.done {
		return
	}
	s.done = true
	if i := slices.Index(d.waiting, s); i >= 0 {
		d.waiting = slices.Delete(d.waiting, i, i+1)
	}
	q := d.ctrl.q
	if q == nil {
		return
	}
	r := request{hdr: s.hdr, number: s.number}
	d.out = append(d.out[:0], resp...)
	written := d.respond(&r, &s.chain, virtiogpu.ControlQueue, err)
	d.complete(q, &r, s.chain.Head, written)
	d.ringOK(q.Notify())
	if d.rec != nil {
		d.recordIdle()
	}
}

// stopWaiting answers what is suspended as well as it can be, most with an error:
// the ring is about to stop and the front-end may not answer any more.
func (d *Device) stopWaiting() {
	for len(d.waiting) > 0 {
		if s := d.waiting[0]; s.atStop != nil {
			d.resume(s, nil, s.atStop(&s.hdr))
			continue
		}
		d.resume(d.waiting[0], fmt.Errorf("%w: the device was stopped meanwhile", virtiogpu.ErrUnspec), nil)
	}
}
