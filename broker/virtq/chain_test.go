package virtq

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/guestmem"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// TestChain checks the parts of a good chain: direct descriptors first, then an
// indirect table that lies across two regions of memory.
func TestChain(t *testing.T) {
	d := newDriver(t, 8, 0, true, true)
	table := tableAt + tableSize - 8 // not aligned to anything but 8
	d.desc(descAt, 7, bufAt, 10, descNext, 3)
	d.desc(descAt, 3, uint64(table), 3*descSize, descIndirect|descWrite, 0)
	d.desc(table, 0, bufAt+100, 20, descNext, 2)
	d.desc(table, 2, bufAt+200, 30, descNext|descWrite, 1)
	d.desc(table, 1, bufAt+300, 40, descWrite, 0)
	for i := range 40 {
		d.mem[bufAt+i] = 'a'
		d.mem[bufAt+100+i] = 'b'
	}
	d.push(7)
	var c Chain
	if ok, err := d.q.Next(&c); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if c.Head != 7 || c.ReadLen() != 30 || c.WriteLen() != 70 || len(c.Readable) != 2 || len(c.Writable) != 2 {
		t.Fatalf("head %d, %d readable in %d, %d writable in %d", c.Head, c.ReadLen(), len(c.Readable), c.WriteLen(), len(c.Writable))
	}
	buf := make([]byte, 100)
	if n, err := c.ReadAt(buf, 5); err != nil || string(buf[:n]) != strings.Repeat("a", 5)+strings.Repeat("b", 20) {
		t.Errorf("ReadAt: %q, %v", buf[:n], err)
	}
	for _, p := range []string{strings.Repeat("x", 25), strings.Repeat("y", 30), strings.Repeat("z", 30)} {
		if _, err := c.Write([]byte(p)); err != nil {
			t.Fatal(err)
		}
	}
	if c.Written() != 70 {
		t.Errorf("%d bytes written, want 70", c.Written())
	}
	want := strings.Repeat("x", 25) + strings.Repeat("y", 5)
	if got := string(d.mem[bufAt+200 : bufAt+230]); got != want {
		t.Errorf("first writable descriptor holds %q", got)
	}
	if got := string(d.mem[bufAt+300 : bufAt+340]); got != strings.Repeat("y", 25)+strings.Repeat("z", 15) {
		t.Errorf("second writable descriptor holds %q", got)
	}
	if d.mem[bufAt+340] != 0 || d.mem[bufAt+230] != 0 {
		t.Error("wrote past a descriptor")
	}
}

// TestTableAcrossRegions reads an indirect table whose descriptors lie across the
// border of two regions of two different files.
func TestTableAcrossRegions(t *testing.T) {
	d := newDriver(t, 8, 0, true, true)
	raw, err := unix.MemfdCreate("second", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(raw, 4096); err != nil {
		t.Fatal(err)
	}
	if err := d.m.Add(guestmem.RegionSpec{GPA: memSize, Size: 4096, UserAddr: memSize, FD: dmabuf.NewFD(raw, "second")}); err != nil {
		t.Fatal(err)
	}
	second, err := d.m.FromUser(memSize, 4096)
	if err != nil {
		t.Fatal(err)
	}
	start := memSize - 24 // the second descriptor is cut after 8 bytes
	tmp := &driver{mem: make([]byte, 48)}
	for i := range 3 {
		flags := uint16(descNext)
		if i == 2 {
			flags = 0
		}
		tmp.desc(0, i, uint64(bufAt+100*i), uint32(10+i), flags, uint16(i+1))
	}
	copy(d.mem[start:], tmp.mem[:24])
	copy(second, tmp.mem[24:])
	d.desc(descAt, 0, uint64(start), 48, descIndirect, 0)
	d.push(0)
	var c Chain
	if ok, err := d.q.Next(&c); !ok || err != nil || c.ReadLen() != 33 {
		t.Fatalf("%t, %v, %d bytes", ok, err, c.ReadLen())
	}
}

// TestChainSurvives keeps a chain while its memory is taken away and comes back
// at another place.
func TestChainSurvives(t *testing.T) {
	d := newDriver(t, 8, 0, true, true)
	spec := func(off uint64) guestmem.RegionSpec {
		raw, err := unix.MemfdCreate("moved", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Ftruncate(raw, 8192); err != nil {
			t.Fatal(err)
		}
		return guestmem.RegionSpec{GPA: 1 << 30, Size: 4096, UserAddr: 1 << 30, MmapOffset: off, FD: dmabuf.NewFD(raw, "moved")}
	}
	if err := d.m.Add(spec(0)); err != nil {
		t.Fatal(err)
	}
	d.desc(descAt, 0, 1<<30, 8, descNext, 1)
	d.desc(descAt, 1, 1<<30+64, 8, descWrite, 0)
	d.push(0)
	var c Chain
	if ok, err := d.q.Next(&c); !ok || err != nil {
		t.Fatal(ok, err)
	}
	gone := spec(0)
	if err := d.m.Remove(gone); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Write([]byte("lost")); !errors.Is(err, guestmem.ErrUnmapped) || n != 0 {
		t.Errorf("write to memory that is gone: %d, %v", n, err)
	}
	if _, err := c.ReadAt(make([]byte, 4), 0); !errors.Is(err, guestmem.ErrUnmapped) {
		t.Errorf("read of memory that is gone: %v", err)
	}
	if err := d.m.Add(spec(4096)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Write([]byte("here")); err != nil || n != 4 || c.Written() != 4 {
		t.Errorf("write after the memory came back: %d, %v", n, err)
	}
	mem, err := d.m.FromUser(1<<30+64, 4)
	if err != nil || string(mem) != "here" {
		t.Errorf("%q, %v", mem, err)
	}
}

// TestFault loses the pages of the rings and of a table.
func TestFault(t *testing.T) {
	raw, err := unix.MemfdCreate("short", unix.MFD_CLOEXEC) // sealed against sealing: no MFD_ALLOW_SEALING
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(raw, memSize); err != nil {
		t.Fatal(err)
	}
	fd := dmabuf.NewFD(raw, "short")
	m := guestmem.New()
	defer m.Close()
	if err := m.Add(guestmem.RegionSpec{GPA: 0, Size: memSize, FD: fd}); err != nil {
		t.Fatal(err)
	}
	mem, err := m.FromUser(0, memSize)
	if err != nil {
		t.Fatal(err)
	}
	d := &driver{mem: mem, m: m, size: 8, indirect: true}
	d.queue(t, 0)
	d.desc(descAt, 0, tableAt, 32, descIndirect, 0)
	d.push(0)
	if err := unix.Ftruncate(raw, tableAt); err != nil {
		t.Fatal(err)
	}
	var c Chain
	if ok, err := d.q.Next(&c); !ok || !errors.Is(err, guestmem.ErrFault) {
		t.Errorf("table gone: %t, %v", ok, err)
	}
	if err := unix.Ftruncate(raw, 0); err != nil {
		t.Fatal(err)
	}
	if ok, err := d.q.Next(&c); ok || !errors.Is(err, guestmem.ErrFault) {
		t.Errorf("ring gone: %t, %v", ok, err)
	}
	if err := d.q.Push(0, 0); !errors.Is(err, guestmem.ErrFault) {
		t.Errorf("push: %v", err)
	}
	if err := d.q.Notify(); !errors.Is(err, guestmem.ErrFault) {
		t.Errorf("notify: %v", err)
	}
	if _, err := d.q.EnableKicks(); !errors.Is(err, guestmem.ErrFault) {
		t.Errorf("enable kicks: %v", err)
	}
	if err := d.q.DisableKicks(); !errors.Is(err, guestmem.ErrFault) {
		t.Errorf("disable kicks: %v", err)
	}
}

func TestIndirectNotNegotiated(t *testing.T) {
	d := newDriver(t, 8, 0, true, false)
	d.desc(tableAt, 0, bufAt, 16, 0, 0)
	d.desc(descAt, 0, tableAt, 16, descIndirect, 0)
	d.push(0)
	var c Chain
	if ok, err := d.q.Next(&c); !ok || !errors.Is(err, ErrChain) || c.Head != 0 || c.ReadLen() != 0 {
		t.Errorf("%t, %v", ok, err)
	}
}

// TestIndirectLimit takes the longest chain there may be, and refuses the next.
func TestIndirectLimit(t *testing.T) {
	d := newDriver(t, 8, 0, true, true)
	const table = 0x60000 // room for 8192 descriptors
	for n, want := range map[int]bool{MaxIndirect: true, MaxIndirect + 1: false} {
		for i := range n {
			d.desc(table, i, bufAt, 1, descNext, uint16(i+1))
		}
		d.desc(table, n-1, bufAt, 1, 0, 0)
		d.desc(descAt, 0, table, uint32(n*descSize), descIndirect, 0)
		d.push(0)
		var c Chain
		ok, err := d.q.Next(&c)
		if !ok || (err == nil) != want || want && c.ReadLen() != uint64(n) {
			t.Errorf("%d descriptors: %t, %v, %d bytes", n, ok, err, c.ReadLen())
		}
	}
}
