package hostile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
)

// Flags of a descriptor.
const (
	next  = 1
	write = 2
	indir = 4
)

// page is a guest page that a broken chain lies in.
type page struct {
	addr uint64
	mem  []byte
}

func newPage(v *VM) (page, func(), error) {
	b, err := v.Pages.Contiguous(fakeguest.PageSize)
	if err != nil {
		return page{}, nil, err
	}
	addr := b.Entries[0].Addr
	return page{addr, v.RAM.Slice(addr, fakeguest.PageSize)}, b.Free, nil
}

// ring is a case that breaks the control queue. pushed: the chain comes back with
// length 0; otherwise the ring itself is wrong and nothing comes back.
func ring(name string, pushed bool, broken func(v *VM, p page)) Case {
	return Case{Group: "ring", Name: name, End: Reloads, Do: func(v *VM) error {
		p, free, err := newPage(v)
		if err != nil {
			return err
		}
		defer free()
		broken(v, p)
		if err := v.Ctrl.RingKick(); err != nil {
			return err
		}
		if !pushed {
			time.Sleep(5 * time.Millisecond)
			return nil
		}
		head, n, err := v.Ctrl.WaitUsed(answerTime)
		if err == nil && (head != 0 || n != 0) {
			err = fmt.Errorf("head %d came back with %d bytes, want 0 with 0", head, n)
		}
		return err
	}}
}

func ringCases() []Case {
	one := func(addr uint64, n uint32, flags, nxt uint16) func(v *VM, p page) {
		return func(v *VM, p page) {
			if addr == 0 {
				addr = p.addr
			}
			v.Ctrl.SetDesc(0, addr, n, flags, nxt)
			v.Ctrl.PushAvail(0)
		}
	}
	table := func(n uint32, descs ...[4]uint64) func(v *VM, p page) {
		return func(v *VM, p page) {
			for i, d := range descs {
				addr := d[0]
				if addr == 0 {
					addr = p.addr
				}
				fakeguest.PutDesc(p.mem[16*i:], addr, uint32(d[1]), uint16(d[2]), uint16(d[3]))
			}
			v.Ctrl.SetDesc(0, p.addr, n, indir, 0)
			v.Ctrl.PushAvail(0)
		}
	}
	chain := func(descs ...[4]uint64) func(v *VM, p page) {
		return func(v *VM, p page) {
			for i, d := range descs {
				v.Ctrl.SetDesc(i, p.addr+d[0], uint32(d[1]), uint16(d[2]), uint16(d[3]))
			}
			v.Ctrl.PushAvail(0)
		}
	}
	out := []Case{
		ring("an address without memory", true, one(0x7fff_0000_0000, 16, 0, 0)),
		ring("an address that wraps", true, one(^uint64(0)-4, 16, 0, 0)),
		ring("an address at the end of memory", true, one(ramSize-8, 16, 0, 0)),
		ring("a length of all ones", true, one(0, 0xffff_ffff, 0, 0)),
		ring("a loop to itself", true, one(0, 16, next, 0)),
		ring("a next out of range", true, one(0, 16, next, 256)),
		ring("a next far out of range", true, one(0, 16, next, 0xffff)),
		ring("a loop of two", true, chain([4]uint64{0, 16, next, 1}, [4]uint64{0, 16, next, 0})),
		ring("readable behind writable", true, chain([4]uint64{0, 16, next | write, 1}, [4]uint64{0, 16, 0, 0})),
		ring("indirect and next", true, one(0, 16, indir|next, 1)),
		ring("indirect and writable", true, one(0, 16, indir|write, 0)),
		ring("an empty table", true, table(0)),
		ring("a table of an odd size", true, table(17, [4]uint64{0, 16, 0, 0})),
		ring("a table of almost 4 GiB", true, table(0xffff_fff0, [4]uint64{0, 16, 0, 0})),
		ring("a table of 65536 descriptors", true, func(v *VM, p page) {
			v.Ctrl.SetDesc(0, 0, 65536*16, indir, 0)
			v.Ctrl.PushAvail(0)
		}),
		ring("a table without memory", true, one(0x7fff_0000_0000, 32, indir, 0)),
		ring("a table that is not aligned", true, func(v *VM, p page) {
			v.Ctrl.SetDesc(0, p.addr+1, 16, indir, 0)
			fakeguest.PutDesc(p.mem[1:], 1<<46, 16, 0, 0)
			v.Ctrl.PushAvail(0)
		}),
		ring("indirect in indirect", true, table(16, [4]uint64{0, 16, indir, 0})),
		ring("a loop in a table", true, table(32, [4]uint64{0, 16, next, 1}, [4]uint64{0, 16, next, 0})),
		ring("a next beyond the table", true, table(32, [4]uint64{0, 16, next, 2}, [4]uint64{0, 16, 0, 0})),
		ring("a bad address in a table", true, table(16, [4]uint64{0x7fff_0000_0000, 16, 0, 0})),
		ring("wrong order in a table", true, table(32, [4]uint64{0, 16, next | write, 1}, [4]uint64{0, 16, 0, 0})),
		ring("a head out of range", false, func(v *VM, _ page) { v.Ctrl.PushAvail(256) }),
		ring("a head far out of range", false, func(v *VM, _ page) { v.Ctrl.PushAvail(0xffff) }),
		ring("an index one too far", false, func(v *VM, _ page) { v.Ctrl.SetAvailIdx(v.Ctrl.AvailIdx() + 257) }),
		ring("an index half way round", false, func(v *VM, _ page) { v.Ctrl.SetAvailIdx(v.Ctrl.AvailIdx() + 0x8000) }),
		ring("an index that goes back", false, func(v *VM, _ page) { v.Ctrl.SetAvailIdx(v.Ctrl.AvailIdx() - 1) }),
		ring("the same head 256 times", false, func(v *VM, p page) {
			copy(p.mem, bare(virtiogpu.CmdGetDisplayInfo, 0))
			v.Ctrl.SetDesc(0, p.addr, virtiogpu.SizeCtrlHdr, next, 1)
			v.Ctrl.SetDesc(1, p.addr+64, 1024, write, 0)
			for range 256 {
				v.Ctrl.PushAvail(0)
			}
		}),
		ring("descriptors of no bytes", false, chain([4]uint64{0, 0, next, 1}, [4]uint64{0, 0, next | write, 2}, [4]uint64{0, 0, write, 0})),
	}
	return append(out,
		Case{Group: "ring", Name: "a response where the command lies", End: Reloads, Do: overlapping},
		Case{Group: "ring", Name: "a response over the used ring", End: Reloads, Do: overRings},
		Case{Group: "ring", Name: "no room for the response", Do: noRoom},
		Case{Group: "ring", Name: "a command in pieces of one byte", Do: onePieces},
		Case{Group: "ring", Name: "a kick storm", Do: kickStorm},
		Case{Group: "ring", Name: "a table of 4096 pieces and one more", End: Reloads, Do: longTables},
		Case{Group: "ring", Name: "the cursor queue broken, the control queue good", End: Reloads, Do: brokenCursor},
		Case{Group: "ring", Name: "used, available and descriptors in one place", End: AnyEnd, Do: oneRing},
	)
}

// used waits for a used entry of the control queue.
func used(v *VM) error {
	if err := v.Ctrl.RingKick(); err != nil {
		return err
	}
	_, _, err := v.Ctrl.WaitUsed(answerTime)
	return err
}

func overlapping(v *VM) error {
	p, free, err := newPage(v)
	if err != nil {
		return err
	}
	defer free()
	for i := range uint64(64) {
		copy(p.mem, bare(virtiogpu.CmdGetDisplayInfo, 0))
		v.Ctrl.SetDesc(0, p.addr, virtiogpu.SizeCtrlHdr, next, 1)
		v.Ctrl.SetDesc(1, p.addr+i%24, 1024, write, 0)
		v.Ctrl.PushAvail(0)
		if err := used(v); err != nil {
			return err
		}
	}
	return nil
}

// overRings makes the device write its response over its own rings.
func overRings(v *VM) error {
	p, free, err := newPage(v)
	if err != nil {
		return err
	}
	defer free()
	l := v.Ctrl.Layout()
	for _, at := range []uint64{l.Used, l.Avail, l.Desc} {
		copy(p.mem, bare(virtiogpu.CmdGetDisplayInfo, 0))
		v.Ctrl.SetDesc(0, p.addr, virtiogpu.SizeCtrlHdr, next, 1)
		v.Ctrl.SetDesc(1, at, 1024, write, 0)
		v.Ctrl.PushAvail(0)
		if err := v.Ctrl.RingKick(); err != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond)
		if err := v.Reload(); err != nil {
			return err
		}
	}
	return nil
}

func noRoom(v *VM) error {
	for _, room := range []int{0, 1, 23} {
		cmd := bare(virtiogpu.CmdGetDisplayInfo, 0)
		op, err := v.Ctrl.Submit(cmd, room)
		if err != nil {
			return err
		}
		if _, err := v.wait(v.Ctrl, op); err != nil {
			return err
		}
	}
	return nil
}

// onePieces gives a command and its response one descriptor a byte.
func onePieces(v *VM) error {
	p, free, err := newPage(v)
	if err != nil {
		return err
	}
	defer free()
	tab, err := v.Pages.Contiguous(2 * fakeguest.PageSize)
	if err != nil {
		return err
	}
	defer tab.Free()
	copy(p.mem, bare(virtiogpu.CmdGetDisplayInfo, 0))
	const n = 24 + 408
	all := make([]byte, 16*n)
	for i := range n {
		f := uint16(next)
		if i >= 24 {
			f |= write
		}
		if i == n-1 {
			f &^= next
		}
		fakeguest.PutDesc(all[16*i:], p.addr+uint64(i), 1, f, uint16(i+1))
	}
	tab.WriteAt(all, 0)
	v.Ctrl.SetDesc(0, tab.Entries[0].Addr, 16*n, indir, 0)
	v.Ctrl.PushAvail(0)
	if err := used(v); err != nil {
		return err
	}
	if typ := virtiogpu.Type(binary.LittleEndian.Uint32(p.mem[24:])); typ != virtiogpu.RespOKDisplayInfo {
		return fmt.Errorf("answered with %v", typ)
	}
	return v.Reload() // the driver's free list does not know
}

func kickStorm(v *VM) error {
	for range 20000 {
		if err := v.Ctrl.RingKick(); err != nil {
			return err
		}
		if err := v.Cursor.RingKick(); err != nil {
			return err
		}
	}
	return v.OK(bare(virtiogpu.CmdGetDisplayInfo, 0))
}

// longTables has as many pieces as a table may, and one more.
func longTables(v *VM) error {
	tab, err := v.Pages.Contiguous(17 * fakeguest.PageSize)
	if err != nil {
		return err
	}
	defer tab.Free()
	p, free, err := newPage(v)
	if err != nil {
		return err
	}
	defer free()
	for _, n := range []int{4096, 4097} {
		all := make([]byte, 16*n)
		for i := range n {
			f := uint16(next)
			if i == n-1 {
				f = 0
			}
			fakeguest.PutDesc(all[16*i:], p.addr, 1, f, uint16(i+1))
		}
		tab.WriteAt(all, 0)
		v.Ctrl.SetDesc(0, tab.Entries[0].Addr, uint32(16*n), indir, 0)
		v.Ctrl.PushAvail(0)
		if err := used(v); err != nil {
			return fmt.Errorf("table of %d: %w", n, err)
		}
	}
	return nil
}

func brokenCursor(v *VM) error {
	v.Cursor.SetAvailIdx(v.Cursor.AvailIdx() + 0x7000)
	return errors.Join(v.Cursor.RingKick(), v.OK(bare(virtiogpu.CmdGetDisplayInfo, 0)))
}

// oneRing starts the device with rings that lie over each other.
func oneRing(v *VM) error {
	if err := v.Reset(); err != nil {
		return err
	}
	l := v.Ctrl.Layout()
	l.Avail, l.Used = l.Desc, l.Desc
	if err := v.FE.Start(v.FE.Offered(), layouts(l, v.Cursor.Layout())); err != nil {
		return nil // refused
	}
	for range 100 {
		v.Ctrl.SetDesc(0, l.Desc, 1024, 0, 0)
		v.Ctrl.PushAvail(0)
		if err := v.Ctrl.RingKick(); err != nil {
			return err
		}
	}
	return nil
}
