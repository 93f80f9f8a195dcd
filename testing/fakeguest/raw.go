package fakeguest

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
)

// Raw access, for rings that no driver would make. A test that uses it does not
// use Submit on the same queue until the next Boot.

// PutDesc encodes a descriptor.
func PutDesc(p []byte, addr uint64, length uint32, flags, next uint16) {
	binary.LittleEndian.PutUint64(p, addr)
	binary.LittleEndian.PutUint32(p[8:], length)
	binary.LittleEndian.PutUint16(p[12:], flags)
	binary.LittleEndian.PutUint16(p[14:], next)
}

// SetDesc writes an entry of the descriptor table.
func (q *Queue) SetDesc(i int, addr uint64, length uint32, flags, next uint16) {
	PutDesc(q.desc[i*descSize:], addr, length, flags, next)
}

// PushAvail puts a head, good or not, into the available ring.
func (q *Queue) PushAvail(head uint16) {
	binary.LittleEndian.PutUint16(q.avail[elemsOff+2*(int(q.availIdx)&(q.size-1)):], head)
	q.availIdx++
	storeHead(q.avail, 0, q.availIdx)
}

// SetAvailIdx sets the index of the available ring to anything.
func (q *Queue) SetAvailIdx(idx uint16) {
	q.availIdx = idx
	storeHead(q.avail, 0, idx)
}

// AvailIdx is the index of the next entry of the available ring.
func (q *Queue) AvailIdx() uint16 { return q.availIdx }

// RingKick kicks whether the device wants it or not.
func (q *Queue) RingKick() error { return q.ring() }

// PopUsed takes the next entry out of the used ring.
func (q *Queue) PopUsed() (head, written uint32, ok bool) {
	_, idx := loadHead(q.usedRing)
	if idx == q.lastUsed {
		return 0, 0, false
	}
	e := q.usedRing[elemsOff+usedElem*(int(q.lastUsed)&(q.size-1)):]
	q.lastUsed++
	return binary.LittleEndian.Uint32(e), binary.LittleEndian.Uint32(e[4:]), true
}

// WaitUsed waits for the next entry of the used ring, without looking at the
// interrupt.
func (q *Queue) WaitUsed(timeout time.Duration) (head, written uint32, err error) {
	for end := time.Now().Add(timeout); ; time.Sleep(50 * time.Microsecond) {
		if head, written, ok := q.PopUsed(); ok {
			return head, written, nil
		}
		if time.Now().After(end) {
			return 0, 0, fmt.Errorf("queue %d: %w", q.index, ErrTimeout)
		}
	}
}

// Layout says where the ring lies in guest memory.
func (q *Queue) Layout() vhostusertest.Layout { return q.layout }

// Heads lists the heads in flight, in order.
func (q *Queue) Heads() []uint16 {
	var out []uint16
	for head, op := range q.inFlight {
		if op != nil {
			out = append(out, uint16(head))
		}
	}
	return slices.Clip(out)
}
