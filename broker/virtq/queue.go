package virtq

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/guestmem"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// MaxSize is the largest ring (virtio 1.2, 2.7: queue size is at most 32768).
const MaxSize = 32768

// Sizes of a ring's parts in bytes (virtio 1.2, 2.7).
const (
	descSize     = 16
	availHead    = 4 // flags, idx
	usedHead     = 4
	usedElemSize = 8 // id, len
)

// Flags in the rings' heads (virtio 1.2, 2.7.6 and 2.7.8).
const (
	availNoInterrupt = 1
	usedNoNotify     = 1
)

// DescBytes, AvailBytes and UsedBytes are the sizes of the parts of a ring with
// size entries, event index fields included.
func DescBytes(size int) int { return descSize * size }

// AvailBytes is the size of the available ring; see [DescBytes].
func AvailBytes(size int) int { return availHead + 2*size + 2 }

// UsedBytes is the size of the used ring; see [DescBytes].
func UsedBytes(size int) int { return usedHead + usedElemSize*size + 2 }

// Config says how to make a queue.
type Config struct {
	Index     int    // number of the queue, for messages
	Size      int    // entries, a power of two
	Desc      []byte // ring memory, at least DescBytes, aligned to 16
	Avail     []byte // at least AvailBytes, aligned to 2
	Used      []byte // at least UsedBytes, aligned to 4
	LastAvail uint16 // index of the next available entry to take

	// Ledger, if set, follows the ring. With Resume the ring goes on where the ledger
	// says, not at LastAvail; see [Queue.Inherited].
	Ledger *Ledger
	Resume bool

	EventIdx bool // VIRTIO_F_EVENT_IDX was negotiated
	Indirect bool // VIRTIO_F_INDIRECT_DESC was negotiated

	Mem  *guestmem.Map
	Call *dmabuf.FD // eventfd to interrupt the guest; borrowed; nil for none
	Err  *dmabuf.FD // eventfd for ring errors; borrowed; nil for none
}

// Queue is one running ring.
type Queue struct {
	index     int
	size      int
	mask      uint16
	desc      []byte
	avail     []byte
	used      []byte
	availIdx  le16
	availFlag le16
	usedHead  head32
	usedEvent le16 // in the available ring, written by the driver
	availEvt  le16 // in the used ring, written by us

	lastAvail uint16
	usedIdx   uint16
	usedFlags uint16
	signalled uint16 // usedIdx at the last interrupt decision
	everRung  bool   // signalled is valid
	taken     uint64 // chains that Next gave out

	eventIdx bool
	indirect bool
	mem      *guestmem.Map
	call     *dmabuf.FD
	err      *dmabuf.FD

	led       *Ledger    // nil: nobody keeps one
	inherited []InFlight // what it said at the start

	table   [][]byte // scratch: the pieces of an indirect table
	scratch [descSize]byte
}

// New makes a queue on ring memory. The index of the used ring goes on from what
// stands in guest memory. Errors are ErrConfig.
func New(c Config) (*Queue, error) {
	q := &Queue{
		index: c.Index, lastAvail: c.LastAvail,
		eventIdx: c.EventIdx, indirect: c.Indirect,
		mem: c.Mem, call: c.Call, err: c.Err,
	}
	if c.Size <= 0 || c.Size > MaxSize || c.Size&(c.Size-1) != 0 {
		return nil, q.fail("new queue", fmt.Errorf("%w: size %d, must be a power of two up to %d", ErrConfig, c.Size, MaxSize))
	}
	if c.Mem == nil {
		return nil, q.fail("new queue", fmt.Errorf("%w: no guest memory", ErrConfig))
	}
	q.size, q.mask = c.Size, uint16(c.Size-1)
	if err := q.SetRing(c.Desc, c.Avail, c.Used); err != nil {
		return nil, err
	}
	if err := q.loadUsed(); err != nil {
		return nil, q.fail("new queue", err)
	}
	if q.led = c.Ledger; c.Resume && q.led.Held() {
		q.lastAvail, q.inherited = q.led.recover(q.usedIdx, q.size)
		q.led.state.store(ledgerRunning)
	} else {
		q.led.start(q.lastAvail)
	}
	return q, nil
}

// Fresh says that this is the ring of a driver that starts from nothing: no chain of
// before is in flight.
func (q *Queue) Fresh() {
	q.led.Clear()
	q.led.start(q.lastAvail)
}

// Inherited are the chains that the process had in flight that served the ring
// before this one. Each must be pushed once, or taken again with Rewind.
func (q *Queue) Inherited() []InFlight { return q.inherited }

// Inherit reads an inherited chain, as Next does.
func (q *Queue) Inherit(c *Chain, head uint16) error {
	c.reset(q.mem, head)
	if err := q.walk(c); err != nil {
		c.clear()
		return q.fail("inherit chain", fmt.Errorf("%w: head %d: %w", ErrChain, head, err))
	}
	return nil
}

// Rewind gives back what was inherited without an answer: Next returns the chain
// that was taken last once more, and every other is pushed as it is. It is for
// devices whose chains are empty buffers.
func (q *Queue) Rewind() error {
	var errs []error
	for _, f := range q.inherited {
		if f.Last && !f.Answered {
			q.lastAvail--
			q.led.pushed(f.Head)
			q.led.skips(q.lastAvail)
			continue
		}
		errs = append(errs, q.Push(f.Head, f.Written))
	}
	q.inherited = nil
	return errors.Join(errs...)
}

// Answered notes, for the ledger, that the response in a taken chain is complete and
// only its Push is held back.
func (q *Queue) Answered(head uint16, written uint32) { q.led.answered(head, written) }

func (q *Queue) loadUsed() (err error) {
	defer guestmem.Recover(debug.SetPanicOnFault(true), &err)
	_, q.usedIdx = q.usedHead.load()
	q.usedHead.store(0, q.usedIdx)
	return nil
}

// SetRing moves the queue to other ring memory with the same contents, as after
// a change of the memory table. On error the queue is as it was.
func (q *Queue) SetRing(desc, avail, used []byte) error {
	for _, p := range []struct {
		name  string
		mem   []byte
		need  int
		align uintptr
	}{
		{"descriptor table", desc, DescBytes(q.size), 16},
		{"available ring", avail, AvailBytes(q.size), 2},
		{"used ring", used, UsedBytes(q.size), 4},
	} {
		if len(p.mem) < p.need {
			return q.fail("set ring", fmt.Errorf("%w: %s has %d bytes, size %d needs %d", ErrConfig, p.name, len(p.mem), q.size, p.need))
		}
		if misaligned(p.mem, p.align) {
			return q.fail("set ring", fmt.Errorf("%w: %s is not aligned to %d", ErrConfig, p.name, p.align))
		}
	}
	q.desc, q.avail, q.used = desc, avail, used
	q.availFlag = at16(avail, 0)
	q.availIdx = at16(avail, 2)
	q.usedEvent = at16(avail, availHead+2*q.size)
	q.usedHead = at32(used)
	q.availEvt = at16(used, usedHead+usedElemSize*q.size)
	return nil
}

func (q *Queue) fail(op string, err error) error { return &OpError{Op: op, Queue: q.index, Err: err} }

// Index returns the queue's number.
func (q *Queue) Index() int { return q.index }

// Size returns the number of entries.
func (q *Queue) Size() int { return q.size }

// LastAvail is the index of the next available entry to take: what
// GET_VRING_BASE answers.
func (q *Queue) LastAvail() uint16 { return q.lastAvail }

// UsedIdx is the index of the next used entry to write.
func (q *Queue) UsedIdx() uint16 { return q.usedIdx }

// Taken is the number of chains that Next gave out, bad ones included.
func (q *Queue) Taken() uint64 { return q.taken }

// SetCall replaces the interrupt eventfd (borrowed, nil for none).
func (q *Queue) SetCall(fd *dmabuf.FD) { q.call = fd }

// SetErr replaces the error eventfd (borrowed, nil for none).
func (q *Queue) SetErr(fd *dmabuf.FD) { q.err = fd }

// Next takes the next available chain into c, whose slices it uses again: in
// steady state nothing is allocated.
//
//	true, nil    c is a good chain
//	true, err    c is bad (ErrChain, or ErrFault of guestmem); c.Head is good:
//	             push it with length 0 and go on
//	false, nil   the ring is empty
//	false, err   the ring is broken at this entry (ErrRing); there is nothing to
//	             push; call Next again
//
// After false with ErrFault of guestmem the ring's own memory is gone: stop
// using the queue until the front-end restarts it.
func (q *Queue) Next(c *Chain) (bool, error) {
	head, ok, err := q.pop()
	if err != nil {
		q.ringError()
		return false, q.fail("next chain", err)
	}
	if !ok {
		return false, nil
	}
	c.reset(q.mem, head)
	if err := q.walk(c); err != nil {
		c.clear()
		if !errors.Is(err, guestmem.ErrFault) {
			err = fmt.Errorf("%w: head %d: %w", ErrChain, head, err)
		}
		q.ringError()
		return true, q.fail("next chain", err)
	}
	return true, nil
}

// pop takes the next entry of the available ring.
func (q *Queue) pop() (head uint16, ok bool, err error) {
	defer guestmem.Recover(debug.SetPanicOnFault(true), &err)
	idx := q.availIdx.load()
	pending := idx - q.lastAvail
	if pending == 0 {
		return 0, false, nil
	}
	if int(pending) > q.size {
		last := q.lastAvail
		q.lastAvail = idx
		q.led.skips(idx)
		return 0, false, fmt.Errorf("%w: idx %d is %d ahead of %d, size %d", ErrRing, idx, pending, last, q.size)
	}
	head = binary.LittleEndian.Uint16(q.avail[availHead+2*int(q.lastAvail&q.mask):])
	q.lastAvail++
	q.taken++
	if int(head) >= q.size {
		q.led.skips(q.lastAvail)
		return 0, false, fmt.Errorf("%w: head %d, size %d", ErrRing, head, q.size)
	}
	q.led.takes(q.lastAvail, head)
	return head, true, nil
}

// Push gives a chain back to the driver: head as Next gave it, written the
// number of bytes written to its writable part. The driver sees it at once but
// is not interrupted: see Notify.
//
// A chain taken from a queue before a stop may be pushed to the queue that came
// after it, if that was not a fresh start. A fault of the ring's memory is
// ErrFault of guestmem.
func (q *Queue) Push(head uint16, written uint32) (err error) {
	defer guestmem.Recover(debug.SetPanicOnFault(true), &err)
	at := usedHead + usedElemSize*int(q.usedIdx&q.mask)
	elem := q.used[at : at+usedElemSize]
	binary.LittleEndian.PutUint32(elem, uint32(head))
	binary.LittleEndian.PutUint32(elem[4:], written)
	q.usedIdx++
	q.led.pushes(q.usedIdx, head)
	q.usedHead.store(q.usedFlags, q.usedIdx)
	q.led.pushed(head)
	return nil
}

// Notify interrupts the driver if something was pushed since the last call and
// the driver wants to hear of it. Call it once for a batch of Push.
func (q *Queue) Notify() error {
	want, err := q.wantsInterrupt()
	if err != nil {
		return q.fail("notify", err)
	}
	if !want || !q.call.Valid() {
		return nil
	}
	if err := signal(q.call); err != nil {
		return q.fail("notify", err)
	}
	return nil
}

// Interrupt interrupts the driver whether it wants to or not.
func (q *Queue) Interrupt() error {
	if !q.call.Valid() {
		return nil
	}
	if err := signal(q.call); err != nil {
		return q.fail("interrupt", err)
	}
	return nil
}

func (q *Queue) wantsInterrupt() (want bool, err error) {
	defer guestmem.Recover(debug.SetPanicOnFault(true), &err)
	now, old, valid := q.usedIdx, q.signalled, q.everRung
	if valid && now == old {
		return false, nil
	}
	// The used index must be visible before the driver's wish is read, or both
	// sides could miss each other (virtio 1.2, 2.7.10).
	q.usedHead.storeFence(q.usedFlags, now)
	q.signalled, q.everRung = now, true
	if !q.eventIdx {
		return q.availFlag.load()&availNoInterrupt == 0, nil
	}
	event := q.usedEvent.load()
	return !valid || now-event-1 < now-old, nil
}

// EnableKicks asks the driver to kick for the next chain. It reports whether
// chains are available already: then the kick for them may never come, and the
// caller must go on taking them.
func (q *Queue) EnableKicks() (pending bool, err error) {
	defer guestmem.Recover(debug.SetPanicOnFault(true), &err)
	if q.eventIdx {
		q.availEvt.storeFence(q.lastAvail)
	} else {
		q.usedFlags = 0
		q.usedHead.storeFence(q.usedFlags, q.usedIdx)
	}
	return q.availIdx.load() != q.lastAvail, nil
}

// DisableKicks tells the driver that kicks are not needed for now. It is a hint.
// With event indices there is nothing to write: an old avail_event is passed
// only once in 65536 chains.
func (q *Queue) DisableKicks() (err error) {
	defer guestmem.Recover(debug.SetPanicOnFault(true), &err)
	if q.eventIdx || q.usedFlags == usedNoNotify {
		return nil
	}
	q.usedFlags = usedNoNotify
	q.usedHead.store(q.usedFlags, q.usedIdx)
	return nil
}

// ringError tells the front-end, which may log it.
func (q *Queue) ringError() {
	if q.err.Valid() {
		_ = signal(q.err)
	}
}

// one is the value written to eventfds, little-endian or not: any non-zero
// number wakes the reader.
var one = [8]byte{1}

func signal(fd *dmabuf.FD) error {
	for {
		_, err := unix.Write(fd.Int(), one[:])
		switch {
		case err == nil, errors.Is(err, unix.EAGAIN): // EAGAIN: the counter is full, the reader is awake
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		}
		return fmt.Errorf("write to eventfd %s: %w", fd.Name(), err)
	}
}
