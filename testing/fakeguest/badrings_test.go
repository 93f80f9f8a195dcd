package fakeguest_test

import (
	"errors"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
)

// TestBadRings checks that after each broken chain or ring the next good command
// works.
func TestBadRings(t *testing.T) {
	type ring struct {
		q    *fakeguest.Queue
		page uint64 // a guest page for tables and buffers
		mem  []byte
	}
	one := func(addr uint64, n uint32, flags, next uint16) func(r ring) {
		return func(r ring) {
			if addr == 0 {
				addr = r.page
			}
			r.q.SetDesc(0, addr, n, flags, next)
			r.q.PushAvail(0)
		}
	}
	table := func(n uint32, descs ...[4]uint64) func(r ring) {
		return func(r ring) {
			for i, d := range descs {
				addr := d[0]
				if addr == 0 {
					addr = r.page
				}
				fakeguest.PutDesc(r.mem[16*i:], addr, uint32(d[1]), uint16(d[2]), uint16(d[3]))
			}
			r.q.SetDesc(0, r.page, n, 4, 0)
			r.q.PushAvail(0)
		}
	}
	const (
		next  = 1
		write = 2
		indir = 4
	)
	tests := []struct {
		name   string
		push   bool // a chain that must come back with length 0
		make   func(r ring)
		noPush bool
	}{
		{name: "unmapped address", push: true, make: one(0x7fff_0000_0000, 16, 0, 0)},
		{name: "address overflow", push: true, make: one(^uint64(0)-4, 16, 0, 0)},
		{name: "end of memory", push: true, make: one(64<<20-8, 16, 0, 0)},
		{name: "huge length", push: true, make: one(0, 0xffff_ffff, 0, 0)},
		{name: "loop to itself", push: true, make: one(0, 16, next, 0)},
		{name: "next out of range", push: true, make: one(0, 16, next, 64)},
		{name: "next far out of range", push: true, make: one(0, 16, next, 0xffff)},
		{name: "loop of two", push: true, make: func(r ring) {
			r.q.SetDesc(0, r.page, 16, next, 1)
			r.q.SetDesc(1, r.page, 16, next, 0)
			r.q.PushAvail(0)
		}},
		{name: "readable after writable", push: true, make: func(r ring) {
			r.q.SetDesc(0, r.page, 16, next|write, 1)
			r.q.SetDesc(1, r.page, 16, 0, 0)
			r.q.PushAvail(0)
		}},
		{name: "total above 4 GiB", push: true, make: func(r ring) {
			for i := range 64 {
				f := uint16(next)
				if i == 63 {
					f = 0
				}
				r.q.SetDesc(i, 4096, 64<<20-4096, f, uint16(i+1))
			}
			// The last one goes past 4 GiB: 64 times almost 64 MiB do not, so the
			// table adds another.
			fakeguest.PutDesc(r.mem, 4096, 32<<20, 0, 0)
			r.q.SetDesc(63, r.page, 16, indir, 0)
			fakeguest.PutDesc(r.mem, 4096, 64<<20-4096, next, 1)
			fakeguest.PutDesc(r.mem[16:], 4096, 64<<20-4096, 0, 0)
			r.q.SetDesc(63, r.page, 32, indir, 0)
			r.q.PushAvail(0)
		}},
		{name: "indirect and next", push: true, make: one(0, 16, indir|next, 1)},
		{name: "indirect table empty", push: true, make: table(0)},
		{name: "indirect table odd size", push: true, make: table(17, [4]uint64{0, 16, 0, 0})},
		{name: "indirect table too large", push: true, make: table(0xffff_fff0, [4]uint64{0, 16, 0, 0})},
		{name: "indirect table unmapped", push: true, make: one(0x7fff_0000_0000, 32, indir, 0)},
		{name: "indirect in indirect", push: true, make: table(16, [4]uint64{0, 16, indir, 0})},
		{name: "indirect loop", push: true, make: table(32, [4]uint64{0, 16, next, 1}, [4]uint64{0, 16, next, 0})},
		{name: "indirect next out of range", push: true, make: table(32, [4]uint64{0, 16, next, 2}, [4]uint64{0, 16, 0, 0})},
		{name: "indirect bad address", push: true, make: table(16, [4]uint64{0x7fff_0000_0000, 16, 0, 0})},
		{name: "indirect wrong order", push: true, make: table(32, [4]uint64{0, 16, next | write, 1}, [4]uint64{0, 16, 0, 0})},
		{name: "indirect after a loop of direct ones", push: true, make: func(r ring) {
			r.q.SetDesc(0, r.page, 16, next, 0)
			r.q.PushAvail(0)
		}},
		{name: "head out of range", noPush: true, make: func(r ring) { r.q.PushAvail(64) }},
		{name: "head far out of range", noPush: true, make: func(r ring) { r.q.PushAvail(0xffff) }},
		{name: "index jumps", noPush: true, make: func(r ring) { r.q.SetAvailIdx(r.q.AvailIdx() + 65) }},
		{name: "index jumps far", noPush: true, make: func(r ring) { r.q.SetAvailIdx(r.q.AvailIdx() + 0x8000) }},
		{name: "index goes back", noPush: true, make: func(r ring) { r.q.SetAvailIdx(r.q.AvailIdx() - 1) }},
	}
	m := start(t, fakeguest.Config{Profile: vhostusertest.QEMU11B, QueueSizes: [2]int{64, 64}})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := errors.Join(m.Reset(), m.Boot()); err != nil {
				t.Fatal(err)
			}
			b, err := m.Pages.Contiguous(fakeguest.PageSize)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Free()
			page := b.Entries[0].Addr
			bad := func() (chains, rings int) {
				m.dev.Loop.Call(func() { chains, rings = m.dev.BadChain, m.dev.BadRing })
				return chains, rings
			}
			chains, rings := bad()
			tt.make(ring{m.Ctrl, page, m.RAM.Slice(page, fakeguest.PageSize)})
			if err := m.Ctrl.RingKick(); err != nil {
				t.Fatal(err)
			}
			if tt.push {
				head, n, err := m.Ctrl.WaitUsed(5 * time.Second)
				if err != nil || head != 0 || n != 0 {
					t.Fatalf("used entry: head %d, %d bytes, %v; want 0, 0", head, n, err)
				}
			}
			for range 1000 {
				if c, r := bad(); c > chains || r > rings {
					break
				}
				time.Sleep(time.Millisecond)
			}
			c, r := bad()
			if got, want := c-chains, btoi(tt.push); got != want {
				t.Errorf("%d bad chains counted, want %d", got, want)
			}
			if got, want := r-rings, btoi(tt.noPush); got != want {
				t.Errorf("%d bad ring entries counted, want %d", got, want)
			}
			// The next good command, by hand: the free list does not know.
			copy(m.RAM.Slice(page, 16), "a good command  ")
			m.Ctrl.SetDesc(3, page, 16, next, 5)
			m.Ctrl.SetDesc(5, page+32, 16, write, 0)
			m.Ctrl.PushAvail(3)
			if err := m.Ctrl.RingKick(); err != nil {
				t.Fatal(err)
			}
			head, n, err := m.Ctrl.WaitUsed(5 * time.Second)
			if err != nil || head != 3 || n != 16 {
				t.Fatalf("good command: head %d, %d bytes, %v; want 3, 16", head, n, err)
			}
			if got := m.RAM.Slice(page+32, 16); string(got) != "a good command  " {
				t.Fatalf("good command answered with %q", got)
			}
		})
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
