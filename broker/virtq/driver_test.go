package virtq

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/guestmem"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Where things lie in the guest's memory of these tests.
const (
	memSize   = 1 << 20
	descAt    = 0x1000
	availAt   = 0x20000
	usedAt    = 0x30000
	tableAt   = 0x50000 // indirect tables, one per head
	tableSize = 0x400
	bufAt     = 0x80000
)

// driver is the other side of a queue, as simple as can be: one thread, no
// barriers, since the tests run both sides in turn.
type driver struct {
	mem      []byte
	m        *guestmem.Map
	size     int
	eventIdx bool
	indirect bool
	q        *Queue
	call     *dmabuf.FD

	availIdx uint16
	lastUsed uint16
}

func newDriver(t testing.TB, size int, start uint16, eventIdx, indirect bool) *driver {
	t.Helper()
	raw, err := unix.MemfdCreate("virtq test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	fd := dmabuf.NewFD(raw, "virtq test ram")
	if err := unix.Ftruncate(raw, memSize); err != nil {
		t.Fatal(err)
	}
	d := &driver{m: guestmem.New(), size: size, eventIdx: eventIdx, indirect: indirect, availIdx: start, lastUsed: start}
	if err := d.m.Add(guestmem.RegionSpec{GPA: 0, Size: memSize, FD: fd}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.m.Close)
	if d.mem, err = d.m.FromUser(0, memSize); err != nil {
		t.Fatal(err)
	}
	raw, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	d.call = dmabuf.NewFD(raw, "call")
	t.Cleanup(func() { _ = d.call.Close() })
	d.put16(availAt+2, start)
	d.put16(usedAt+2, start)
	d.queue(t, start)
	return d
}

// queue makes the device's side anew, as after a stop.
func (d *driver) queue(t testing.TB, lastAvail uint16) {
	t.Helper()
	q, err := New(Config{
		Size: d.size, Desc: d.mem[descAt:availAt], Avail: d.mem[availAt:usedAt], Used: d.mem[usedAt:tableAt],
		LastAvail: lastAvail, EventIdx: d.eventIdx, Indirect: d.indirect, Mem: d.m, Call: d.call,
	})
	if err != nil {
		t.Fatal(err)
	}
	d.q = q
}

func (d *driver) put16(at int, v uint16) { binary.LittleEndian.PutUint16(d.mem[at:], v) }
func (d *driver) get16(at int) uint16    { return binary.LittleEndian.Uint16(d.mem[at:]) }

func (d *driver) desc(table, i int, addr uint64, n uint32, flags, next uint16) {
	p := d.mem[table+descSize*i:]
	binary.LittleEndian.PutUint64(p, addr)
	binary.LittleEndian.PutUint32(p[8:], n)
	binary.LittleEndian.PutUint16(p[12:], flags)
	binary.LittleEndian.PutUint16(p[14:], next)
}

func (d *driver) push(head uint16) {
	d.put16(availAt+availHead+2*(int(d.availIdx)%d.size), head)
	d.availIdx++
	d.put16(availAt+2, d.availIdx)
}

func (d *driver) pop() (head, n uint32, ok bool) {
	if d.get16(usedAt+2) == d.lastUsed {
		return 0, 0, false
	}
	p := d.mem[usedAt+usedHead+usedElemSize*(int(d.lastUsed)%d.size):]
	d.lastUsed++
	return binary.LittleEndian.Uint32(p), binary.LittleEndian.Uint32(p[4:]), true
}

// interrupted reports whether the call eventfd was written since the last time.
func (d *driver) interrupted() bool {
	var b [8]byte
	_, err := unix.Read(d.call.Int(), b[:])
	return err == nil
}

func (d *driver) setUsedEvent(v uint16)  { d.put16(availAt+availHead+2*d.size, v) }
func (d *driver) availEvent() uint16     { return d.get16(usedAt + usedHead + usedElemSize*d.size) }
func (d *driver) setAvailFlags(v uint16) { d.put16(availAt, v) }
func (d *driver) usedFlags() uint16      { return d.get16(usedAt) }
