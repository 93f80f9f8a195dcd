package fakeguest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/guestmem"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtq"
)

const (
	descSize     = 16
	elemsOff     = 4 // of both rings
	usedElem     = 8
	flagNext     = 1
	flagWrite    = 2
	flagIndirect = 4
	noNotify     = 1
	maxInTable   = PageSize / descSize // an indirect table is one page
	pollMillis   = 1000
	noDesc       = 0xffff
)

// ErrFull says that the ring has no free descriptors: wait for a command.
var ErrFull = errors.New("ring full")

// Op is a command in flight.
type Op struct {
	head     uint16
	used     uint32 // bytes that the device says it wrote
	done     bool
	pages    []uint32 // command, response and table
	resp     []uint32 // the response's part of pages
	respLen  int
	external bool // buffers are the caller's
}

// Queue is the driver's side of one ring.
type Queue struct {
	g         *Guest
	index     int
	size      int
	layout    vhostusertest.Layout
	ringPages int
	desc      []byte
	avail     []byte
	usedRing  []byte

	eventIdx bool
	indirect bool

	freeHead  uint16 // list of free descriptors, linked by next; noDesc at the end
	freeDescs int
	next      []uint16
	availIdx  uint16
	kicked    uint16 // availIdx at the last kick decision
	lastUsed  uint16
	inFlight  []*Op // by head
	pool      []*Op
	poll      [1]unix.PollFd
	word      [8]byte
	outScr    []guestmem.Entry
	inScr     []guestmem.Entry

	// Kicks and Interrupts count for tests.
	Kicks      uint64
	Interrupts uint64
}

func newQueue(g *Guest, index, size, page int) *Queue {
	q := &Queue{g: g, index: index, size: size, next: make([]uint16, size), inFlight: make([]*Op, size)}
	at := func(bytes int) (uint64, []byte) {
		gpa := g.RAM.GPA(uint64(page+q.ringPages) * PageSize)
		q.ringPages += (bytes + 2 + PageSize - 1) / PageSize // 2: padding of the event field
		return gpa, g.RAM.Slice(gpa, bytes+2)
	}
	q.layout.Size = size
	q.layout.Desc, q.desc = at(virtq.DescBytes(size))
	q.layout.Avail, q.avail = at(virtq.AvailBytes(size))
	q.layout.Used, q.usedRing = at(virtq.UsedBytes(size))
	q.clear()
	return q
}

// clear is what a driver does to its rings before DRIVER_OK.
func (q *Queue) clear() {
	clear(q.desc)
	clear(q.avail)
	clear(q.usedRing)
	q.availIdx, q.kicked, q.lastUsed = 0, 0, 0
	for i := range q.next {
		q.next[i] = uint16(i + 1)
	}
	q.next[q.size-1] = noDesc
	q.freeHead, q.freeDescs = 0, q.size
}

// forget drops the commands in flight.
func (q *Queue) forget() {
	for head, op := range q.inFlight {
		if op != nil {
			q.inFlight[head] = nil
			q.recycle(op)
		}
	}
	q.clear()
}

// Size is the number of entries of the ring.
func (q *Queue) Size() int { return q.size }

// InFlight is the number of commands that the device has not answered.
func (q *Queue) InFlight() (n int) {
	for _, op := range q.inFlight {
		if op != nil {
			n++
		}
	}
	return n
}

// Do sends a command, waits for its response and copies it to resp. It returns
// the number of bytes copied: what the device says it wrote, at most len(resp).
func (q *Queue) Do(cmd, resp []byte) (int, error) {
	op, err := q.Submit(cmd, len(resp))
	if err != nil {
		return 0, err
	}
	return q.Wait(op, resp, Timeout)
}

// Submit sends a command and kicks. respLen is the room for the response in
// bytes. Command and response lie in scattered pages, one descriptor each.
func (q *Queue) Submit(cmd []byte, respLen int) (*Op, error) {
	op := q.newOp()
	if err := q.fill(op, cmd, respLen); err != nil {
		q.recycle(op)
		return nil, err
	}
	return op, q.Kick()
}

// SubmitSG sends a command whose buffers the caller laid out in guest memory.
func (q *Queue) SubmitSG(out, in []guestmem.Entry) (*Op, error) {
	op := q.newOp()
	op.external = true
	if err := q.add(op, out, in); err != nil {
		q.recycle(op)
		return nil, err
	}
	return op, q.Kick()
}

func (q *Queue) newOp() *Op {
	if n := len(q.pool); n > 0 {
		op := q.pool[n-1]
		q.pool = q.pool[:n-1]
		return op
	}
	return &Op{}
}

func (q *Queue) recycle(op *Op) {
	for _, page := range op.pages {
		q.g.Pages.push(page)
	}
	*op = Op{pages: op.pages[:0]}
	q.pool = append(q.pool, op)
}

// page takes one page for op.
func (q *Queue) page(op *Op) (uint32, error) {
	page, err := q.g.Pages.pop()
	if err == nil {
		op.pages = append(op.pages, page)
	}
	return page, err
}

func (q *Queue) fill(op *Op, cmd []byte, respLen int) error {
	out, in := q.outScr[:0], q.inScr[:0]
	for len(cmd) > 0 {
		page, err := q.page(op)
		if err != nil {
			return err
		}
		n := copy(q.g.Pages.mem(page), cmd)
		cmd = cmd[n:]
		out = append(out, guestmem.Entry{Addr: q.g.Pages.gpa(page), Len: uint32(n)})
	}
	first := len(op.pages)
	op.respLen = respLen
	for left := respLen; left > 0; {
		page, err := q.page(op)
		if err != nil {
			return err
		}
		n := min(left, PageSize)
		left -= n
		in = append(in, guestmem.Entry{Addr: q.g.Pages.gpa(page), Len: uint32(n)})
	}
	last := len(op.pages)
	q.outScr, q.inScr = out, in
	err := q.add(op, out, in)
	op.resp = op.pages[first:last:last]
	return err
}

// add puts the chain into the ring; the device sees it at once.
func (q *Queue) add(op *Op, out, in []guestmem.Entry) error {
	n := len(out) + len(in)
	if n == 0 {
		return errors.New("fakeguest: a command of no bytes")
	}
	head := q.freeHead
	if q.indirect && n > 1 {
		if err := q.addTable(op, out, in); err != nil {
			return err
		}
	} else if err := q.addDirect(out, in); err != nil {
		return err
	}
	op.head, op.done = head, false
	q.inFlight[head] = op
	q.PushAvail(head)
	return nil
}

func (q *Queue) addDirect(out, in []guestmem.Entry) error {
	n := len(out) + len(in)
	if n > q.size {
		return fmt.Errorf("fakeguest: chain of %d descriptors, ring of %d", n, q.size)
	}
	if n > q.freeDescs {
		return ErrFull
	}
	for i := range n {
		e, flags := pick(out, in, i)
		at := q.freeHead
		q.freeHead = q.next[at]
		next := uint16(0)
		if i < n-1 {
			flags |= flagNext
			next = q.freeHead
		}
		q.SetDesc(int(at), e.Addr, e.Len, flags, next)
	}
	q.freeDescs -= n
	return nil
}

func (q *Queue) addTable(op *Op, out, in []guestmem.Entry) error {
	n := len(out) + len(in)
	if q.freeDescs == 0 {
		return ErrFull
	}
	if n > maxInTable {
		return q.addLongTable(op, out, in)
	}
	page, err := q.page(op)
	if err != nil {
		return err
	}
	writeTable(q.g.Pages.mem(page), out, in)
	q.takeIndirect(q.g.Pages.gpa(page), n)
	return nil
}

// addLongTable is for chains of more than 256 descriptors: the table needs
// several pages in one piece. Big commands are rare, so this may allocate.
func (q *Queue) addLongTable(op *Op, out, in []guestmem.Entry) error {
	n := len(out) + len(in)
	b, err := q.g.Pages.Contiguous(uint64(n * descSize))
	if err != nil {
		return err
	}
	op.pages = append(op.pages, b.list...)
	table := make([]byte, n*descSize)
	writeTable(table, out, in)
	b.WriteAt(table, 0)
	q.takeIndirect(b.Entries[0].Addr, n)
	return nil
}

func (q *Queue) takeIndirect(gpa uint64, n int) {
	at := q.freeHead
	q.freeHead = q.next[at]
	q.freeDescs--
	q.SetDesc(int(at), gpa, uint32(n*descSize), flagIndirect, 0)
}

func writeTable(table []byte, out, in []guestmem.Entry) {
	n := len(out) + len(in)
	for i := range n {
		e, flags := pick(out, in, i)
		if i < n-1 {
			flags |= flagNext
		}
		PutDesc(table[i*descSize:], e.Addr, e.Len, flags, uint16(i+1))
	}
}

func pick(out, in []guestmem.Entry, i int) (guestmem.Entry, uint16) {
	if i < len(out) {
		return out[i], 0
	}
	return in[i-len(out)], flagWrite
}

// Kick tells the device about new chains, if it wants to be told.
func (q *Queue) Kick() error {
	old, now := q.kicked, q.availIdx
	q.kicked = now
	if q.eventIdx {
		event := uint16(loadWord(q.usedRing, elemsOff+usedElem*q.size))
		if now-event-1 >= now-old {
			return nil
		}
	} else if flags, _ := loadHead(q.usedRing); flags&noNotify != 0 {
		return nil
	}
	return q.ring()
}

// ring kicks without asking.
func (q *Queue) ring() error {
	q.Kicks++
	return q.g.FE.Kick(q.index)
}

// Wait waits until the device has answered op and copies the response to resp.
// The op is gone afterwards, unless the error is ErrTimeout.
func (q *Queue) Wait(op *Op, resp []byte, timeout time.Duration) (int, error) {
	if err := q.waitDone(op, timeout); err != nil {
		return 0, err
	}
	n := min(int(op.used), op.respLen, len(resp))
	used, room := op.used, op.respLen
	for i, left := 0, resp[:n]; len(left) > 0; i++ {
		left = left[copy(left, q.g.Pages.mem(op.resp[i])):]
	}
	external := op.external
	q.recycle(op)
	if !external && int(used) > room {
		return n, fmt.Errorf("fakeguest: device says it wrote %d bytes into %d", used, room)
	}
	if external {
		return int(used), nil
	}
	return n, nil
}

// Done reports whether the device has answered op; Wait will not block then.
func (q *Queue) Done(op *Op) (bool, error) {
	if err := q.reap(); err != nil {
		return false, err
	}
	return op.done, nil
}

func (q *Queue) waitDone(op *Op, timeout time.Duration) error {
	if err := q.reap(); err != nil || op.done {
		return err
	}
	end := time.Now().Add(timeout)
	for {
		pending, err := q.armInterrupt()
		if err != nil {
			return err
		}
		if !pending {
			if err := q.sleep(end); err != nil {
				return err
			}
		}
		if err := q.reap(); err != nil || op.done {
			return err
		}
	}
}

// armInterrupt asks for an interrupt at the next used entry. It reports whether
// there is one already.
func (q *Queue) armInterrupt() (bool, error) {
	if q.eventIdx {
		storeWord(q.avail, elemsOff+2*q.size, uint32(q.lastUsed))
	}
	_, idx := loadHead(q.usedRing)
	return idx != q.lastUsed, nil
}

func (q *Queue) sleep(end time.Time) error {
	call := q.g.FE.CallFD(q.index)
	left := time.Until(end)
	if left <= 0 {
		return fmt.Errorf("queue %d: %w", q.index, ErrTimeout)
	}
	q.poll[0] = unix.PollFd{Fd: int32(call.Int()), Events: unix.POLLIN}
	n, err := unix.Poll(q.poll[:], int(min(left/time.Millisecond+1, pollMillis)))
	if errors.Is(err, unix.EINTR) || n == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("poll: %w", err)
	}
	if _, err := unix.Read(call.Int(), q.word[:]); err == nil {
		q.Interrupts++
	}
	return nil
}

// reap takes everything out of the used ring.
func (q *Queue) reap() error {
	for {
		head, n, ok := q.PopUsed()
		if !ok {
			return nil
		}
		if head >= uint32(q.size) || q.inFlight[head] == nil {
			return fmt.Errorf("fakeguest: used entry for head %d, which is not in flight", head)
		}
		op := q.inFlight[head]
		q.inFlight[head] = nil
		q.release(uint16(head))
		op.used, op.done = n, true
	}
}

// release puts a chain's descriptors back on the free list.
func (q *Queue) release(head uint16) {
	for at := head; ; {
		d := q.desc[int(at)*descSize:]
		flags, next := binary.LittleEndian.Uint16(d[12:]), binary.LittleEndian.Uint16(d[14:])
		q.next[at] = q.freeHead
		q.freeHead = at
		q.freeDescs++
		if flags&flagNext == 0 {
			return
		}
		at = next
	}
}
