package virtq

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestModel drives a queue with random chains, completes them in random order,
// stops and restarts it, and compares what comes out on both sides with what was
// put in.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		size := 1 << rapid.IntRange(1, 5).Draw(rt, "log size")
		start := rapid.SampledFrom([]uint16{0, 1, 0xfff0, 0xffff}).Draw(rt, "start")
		m := &model{
			driver: newDriver(t, size, start, rapid.Bool().Draw(rt, "event idx"), rapid.Bool().Draw(rt, "indirect")),
			out:    map[uint16]*request{},
		}
		defer m.m.Close()
		for i := range size {
			m.free = append(m.free, uint16(i))
		}
		rt.Repeat(map[string]func(*rapid.T){
			"send":     m.send,
			"take":     m.take,
			"complete": m.complete,
			"reap":     m.reap,
			"restart":  m.restart,
			"":         m.check,
		})
	})
}

type request struct {
	head  uint16
	descs []uint16 // of the ring, to be freed
	read  []byte
	room  int
	write []byte // what the device answered
	chain Chain
}

type model struct {
	*driver
	free  []uint16
	sent  []*request          // available, not taken
	taken []*request          // taken by the device, not completed
	out   map[uint16]*request // by head: everything that the driver has not got back
	used  []uint16            // heads in the order of completion
}

// send makes a chain of 1 to 5 buffers.
func (m *model) send(rt *rapid.T) {
	reads := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 1, 40), 0, 3).Draw(rt, "read")
	writes := rapid.SliceOfN(rapid.IntRange(1, 40), 0, 3).Draw(rt, "write")
	direct := rapid.IntRange(0, len(reads)).Draw(rt, "direct")
	n := len(reads) + len(writes)
	need := n
	if m.indirect {
		need = direct + 1 // some direct ones, then a table with the rest
		if direct == n {
			need = n
		}
	}
	if n == 0 || need > len(m.free) {
		rt.Skip("no room")
	}
	r := &request{descs: slices.Clone(m.free[:need])}
	m.free = m.free[need:]
	r.head = r.descs[0]
	m.out[r.head] = r
	base := bufAt + int(r.head)*0x200
	for i := range n {
		addr, flags, length := base+i*0x40, uint16(0), 0
		if i < len(reads) {
			length = copy(m.mem[addr:], reads[i])
			r.read = append(r.read, reads[i]...)
		} else {
			length, flags = writes[i-len(reads)], descWrite
			r.room += length
		}
		inTable := m.indirect && i >= need-1 && need <= n && !(direct == n)
		last := i == n-1
		if inTable {
			table := tableAt + int(r.head)*tableSize
			k := i - (need - 1)
			if k == 0 {
				m.desc(descAt, int(r.descs[need-1]), uint64(table), uint32((n-need+1)*descSize), descIndirect, 0)
			}
			m.link(table, k, addr, length, flags, last, uint16(k+1))
			continue
		}
		next := uint16(0)
		if i+1 < need {
			next = r.descs[i+1]
		}
		m.link(descAt, int(r.descs[i]), addr, length, flags, last, next)
	}
	m.push(r.head)
	m.sent = append(m.sent, r)
}

func (m *model) link(table, i, addr, length int, flags uint16, last bool, next uint16) {
	if !last {
		flags |= descNext
	}
	m.desc(table, i, uint64(addr), uint32(length), flags, next)
}

func (m *model) take(rt *rapid.T) {
	c := Chain{}
	ok, err := m.q.Next(&c)
	if err != nil {
		rt.Fatal(err)
	}
	if ok != (len(m.sent) > 0) {
		rt.Fatalf("Next: %t with %d chains available", ok, len(m.sent))
	}
	if !ok {
		return
	}
	r := m.sent[0]
	m.sent = m.sent[1:]
	r.chain = c
	buf := make([]byte, len(r.read)+10)
	n, err := r.chain.ReadAt(buf, 0)
	if err != nil || c.Head != r.head || !bytes.Equal(buf[:n], r.read) || c.ReadLen() != uint64(len(r.read)) || c.WriteLen() != uint64(r.room) {
		rt.Fatalf("head %d: %x in %d, room %d, %v; want head %d, %x, room %d", c.Head, buf[:n], c.ReadLen(), c.WriteLen(), err, r.head, r.read, r.room)
	}
	m.taken = append(m.taken, r)
}

func (m *model) complete(rt *rapid.T) {
	if len(m.taken) == 0 {
		rt.Skip("nothing taken")
	}
	i := rapid.IntRange(0, len(m.taken)-1).Draw(rt, "which")
	r := m.taken[i]
	m.taken = slices.Delete(m.taken, i, i+1)
	answer := rapid.SliceOfN(rapid.Byte(), 0, 130).Draw(rt, "answer")
	n, err := r.chain.Write(answer)
	if err != nil || n != min(len(answer), r.room) {
		rt.Fatalf("wrote %d of %d into %d: %v", n, len(answer), r.room, err)
	}
	r.write = answer[:n]
	old, wanted := m.q.UsedIdx(), m.get16(availAt+availHead+2*m.size)
	_ = m.q.Push(r.head, r.chain.Written())
	m.used = append(m.used, r.head)
	rang := m.q.everRung && m.q.signalled == old
	if err := m.q.Notify(); err != nil {
		rt.Fatal(err)
	}
	got := m.interrupted()
	if want := !m.eventIdx || wanted == old; rang && got != want {
		rt.Fatalf("interrupted %t, want %t (used_event %d, index %d)", got, want, wanted, old)
	}
	if m.eventIdx {
		m.setUsedEvent(rapid.SampledFrom([]uint16{m.q.UsedIdx(), m.q.UsedIdx() + 1, old}).Draw(rt, "used event"))
	}
}

func (m *model) reap(rt *rapid.T) {
	head, n, ok := m.pop()
	if ok != (len(m.used) > 0) {
		rt.Fatalf("used ring gave %t, %d completed", ok, len(m.used))
	}
	if !ok {
		return
	}
	r := m.out[m.used[0]]
	m.used = m.used[1:]
	if uint16(head) != r.head || int(n) != len(r.write) {
		rt.Fatalf("used entry: head %d, %d bytes; want %d, %d", head, n, r.head, len(r.write))
	}
	delete(m.out, r.head)
	m.free = append(m.free, r.descs...)
	got := []byte{}
	for _, s := range r.chain.Writable {
		got = append(got, s...)
	}
	if !bytes.Equal(got[:n], r.write) {
		rt.Fatalf("driver reads %x, device wrote %x", got[:n], r.write)
	}
}

// restart is vm stop and cont: a new queue where the old one stopped. Chains that
// were taken are still to be completed.
func (m *model) restart(*rapid.T) { m.queue(noFail{}, m.q.LastAvail()) }

// noFail turns a failure inside a rapid action into a panic, which rapid reports.
type noFail struct{ testing.TB }

func (noFail) Helper()           {}
func (noFail) Fatal(args ...any) { panic(args) }

func (m *model) check(rt *rapid.T) {
	if got, want := m.q.LastAvail(), m.availIdx-uint16(len(m.sent)); got != want {
		rt.Fatalf("last avail %d, want %d", got, want)
	}
	if got, want := m.q.UsedIdx(), m.lastUsed+uint16(len(m.used)); got != want {
		rt.Fatalf("used index %d, want %d", got, want)
	}
	pending, err := m.q.EnableKicks()
	if err != nil || pending != (len(m.sent) > 0) {
		rt.Fatalf("EnableKicks: %t, %v with %d chains available", pending, err, len(m.sent))
	}
	if m.eventIdx && m.availEvent() != m.q.LastAvail() {
		rt.Fatalf("avail_event %d, want %d", m.availEvent(), m.q.LastAvail())
	}
}

// FuzzChain feeds a queue with any bytes as descriptor table, indirect table and
// available ring.
func FuzzChain(f *testing.F) {
	seed := func(fill func(d *driver)) {
		d := &driver{mem: zeros(), size: 8}
		fill(d)
		f.Add(d.mem[descAt:descAt+8*descSize], d.mem[tableAt:tableAt+8*descSize], uint16(1), []byte{0}, true, true)
	}
	seed(func(d *driver) { d.desc(descAt, 0, bufAt, 16, 0, 0) })
	seed(func(d *driver) {
		d.desc(descAt, 0, bufAt, 16, descNext, 1)
		d.desc(descAt, 1, bufAt, 16, descWrite, 0)
	})
	seed(func(d *driver) {
		d.desc(descAt, 0, bufAt, 16, descNext, 1)
		d.desc(descAt, 1, tableAt, 48, descIndirect, 0)
		d.desc(tableAt, 0, bufAt, 16, descNext, 2)
		d.desc(tableAt, 2, bufAt, 16, descNext|descWrite, 1)
		d.desc(tableAt, 1, bufAt, 16, descWrite, 0)
	})
	seed(func(d *driver) { d.desc(descAt, 0, bufAt, 16, descNext, 0) })
	seed(func(d *driver) { d.desc(descAt, 0, memSize-8, 16, 0, 0) })
	seed(func(d *driver) { d.desc(descAt, 0, tableAt, 17, descIndirect, 0) })
	seed(func(d *driver) {
		d.desc(descAt, 0, tableAt, 0xfffffff0, descIndirect, 0)
		d.desc(tableAt, 0, tableAt, 16, descIndirect, 0)
	})
	f.Add([]byte{}, []byte{}, uint16(9), []byte{0, 1, 2}, true, false)
	f.Add([]byte{}, []byte{}, uint16(0xffff), []byte{8, 0xff}, false, true)

	d := newDriver(f, 8, 0, true, true)
	zero := zeros()
	f.Fuzz(func(t *testing.T, desc, table []byte, idx uint16, ring []byte, eventIdx, indirect bool) {
		copy(d.mem, zero)
		copy(d.mem[descAt:availAt], desc)
		copy(d.mem[tableAt:bufAt], table)
		for i, h := range ring[:min(len(ring), 8)] {
			d.put16(availAt+availHead+2*i, uint16(h))
		}
		d.put16(availAt+2, idx)
		d.eventIdx, d.indirect = eventIdx, indirect
		d.queue(t, 0)
		var c Chain
		for steps := 0; ; steps++ {
			if steps > d.size {
				t.Fatalf("more than %d entries in a ring of that size", d.size)
			}
			ok, err := d.q.Next(&c)
			if !ok && err == nil {
				break
			}
			checkChain(t, d, &c, ok, err)
			if ok {
				_ = d.q.Push(c.Head, 0)
			}
		}
		if d.q.LastAvail() != idx {
			t.Fatalf("stopped at %d, index is %d", d.q.LastAvail(), idx)
		}
	})
}

func zeros() []byte { return make([]byte, memSize) }

func checkChain(t *testing.T, d *driver, c *Chain, ok bool, err error) {
	t.Helper()
	if err != nil {
		want := ErrRing
		if ok {
			want = ErrChain
		}
		if !errors.Is(err, want) {
			t.Fatalf("error %v, want %v", err, want)
		}
	}
	if !ok {
		return
	}
	if int(c.Head) >= d.size {
		t.Fatalf("head %d in a ring of %d", c.Head, d.size)
	}
	var sums [2]uint64
	for i, part := range [][][]byte{c.Readable, c.Writable} {
		for _, s := range part {
			sums[i] += uint64(len(s))
			if len(s) == 0 || cap(s) != len(s) {
				t.Fatalf("segment of %d bytes with capacity %d", len(s), cap(s))
			}
		}
	}
	if sums[0] != c.ReadLen() || sums[1] != c.WriteLen() || sums[0]+sums[1] > 1<<32-1 {
		t.Fatalf("lengths %d and %d, segments hold %d and %d", c.ReadLen(), c.WriteLen(), sums[0], sums[1])
	}
	if err != nil && sums[0]+sums[1] != 0 {
		t.Fatal("a bad chain has contents")
	}
	// Reading only: what a chain may write to includes the rings themselves.
	if n, err := c.ReadAt(make([]byte, 1<<16), 0); err != nil || uint64(n) != min(c.ReadLen(), 1<<16) {
		t.Fatalf("read %d of %d: %v", n, c.ReadLen(), err)
	}
}
