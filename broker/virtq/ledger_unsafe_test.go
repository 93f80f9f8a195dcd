package virtq

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

func newTestLedger(t *testing.T) (*Ledger, []byte) {
	t.Helper()
	words := make([]uint64, LedgerSize/8)
	mem := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), LedgerSize)
	l, err := NewLedger(mem)
	if err != nil {
		t.Fatal(err)
	}
	return l, mem
}

// TestLedgerCut ends a process after each single store of a random life of a ring: what
// the next one recovers is what the driver can tell, every chain in flight once.
func TestLedgerCut(t *testing.T) {
	const size = 8
	for seed := range uint64(12) {
		full := ledgerLife(t, seed, size, -1)
		for cut := range full {
			ledgerLife(t, seed, size, cut)
		}
	}
}

// ledgerLife runs a ring until as many words were stored as cut says, if it is not
// negative, checks what is recovered and returns how many there were.
func ledgerLife(t *testing.T, seed uint64, size, cut int) (stores int) {
	t.Helper()
	l, mem := newTestLedger(t)
	l.start(100)
	rng := rand.New(rand.NewPCG(seed, 1))
	snapshot := slices.Clone(mem)
	lastAvail, used := uint16(100), uint16(50)
	type state struct {
		lastAvail, used uint16
		flight          []uint16 // in the order of taking
		answered        map[uint16]uint32
	}
	s := state{lastAvail, used, nil, map[uint16]uint32{}}
	// step runs f, one public step of the ring, and looks at each word that it stored: with
	// the words before a cut the step has not happened or has, as now says from where on.
	died := false
	step := func(after state, now func(mem []byte) bool, f func()) {
		if died {
			return
		}
		f()
		for _, off := range changed(snapshot, mem, storeOrder) {
			copy(snapshot[off:off+8], mem[off:off+8])
			if now(snapshot) {
				s = after
			}
			if stores == cut {
				died = true
				return
			}
			stores++
		}
		s = after
	}
	for range 30 {
		switch op := rng.IntN(4); {
		case op < 2 && len(s.flight) < size:
			head := uint16(0)
			for slices.Contains(s.flight, head) {
				head++
			}
			next := state{s.lastAvail + 1, s.used, append(slices.Clone(s.flight), head), s.answered}
			step(next, func([]byte) bool { return true }, func() { l.takes(next.lastAvail, head) })
		case op == 2 && len(s.flight) > 0:
			head := s.flight[rng.IntN(len(s.flight))]
			answered := map[uint16]uint32{head: 24}
			for h, n := range s.answered {
				answered[h] = n
			}
			step(state{s.lastAvail, s.used, s.flight, answered}, func([]byte) bool { return true }, func() { l.answered(head, 24) })
		case len(s.flight) > 0:
			i := rng.IntN(len(s.flight))
			head := s.flight[i]
			// The used ring's index is stored between these two.
			step(s, func([]byte) bool { return false }, func() { l.pushes(s.used+1, head) })
			answered := map[uint16]uint32{}
			for h, n := range s.answered {
				if h != head {
					answered[h] = n
				}
			}
			next := state{s.lastAvail, s.used + 1, slices.Delete(slices.Clone(s.flight), i, i+1), answered}
			if !died {
				s = next
			}
			step(next, func([]byte) bool { return true }, func() { l.pushed(head) })
		}
	}
	if cut < 0 {
		return stores
	}
	words := make([]uint64, LedgerSize/8)
	mem2 := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), LedgerSize)
	copy(mem2, snapshot)
	again, err := NewLedger(mem2)
	if err != nil {
		t.Fatal(err)
	}
	gotAvail, list := again.recover(s.used, size)
	if gotAvail != s.lastAvail || len(list) != len(s.flight) {
		t.Fatalf("seed %d cut %d: next %d, %+v; want %d, %v", seed, cut, gotAvail, list, s.lastAvail, s.flight)
	}
	for i, f := range list {
		written, answered := s.answered[f.Head]
		if f.Head != s.flight[i] || f.Answered && (!answered || f.Written != written) {
			t.Fatalf("seed %d cut %d: %+v, want %v answered %v", seed, cut, list, s.flight, s.answered)
		}
	}
	return stores
}

// storeOrder is the order in which one step stores its words.
var storeOrder = []int{0, 8, 16}

// changed lists the offsets of the words that differ, records before heads.
func changed(before, after []byte, first []int) (out []int) {
	for _, off := range first {
		if binary.LittleEndian.Uint64(before[off:]) != binary.LittleEndian.Uint64(after[off:]) {
			out = append(out, off)
		}
	}
	for off := 64; off < 64+8*64; off += 8 {
		if binary.LittleEndian.Uint64(before[off:]) != binary.LittleEndian.Uint64(after[off:]) {
			out = append(out, off)
		}
	}
	return out
}

// TestLedgerStates: what counts as a position to go on from.
func TestLedgerStates(t *testing.T) {
	var none *Ledger
	none.Clear()
	none.Stop()
	none.Rebase()
	if none.Held() {
		t.Error("no ledger holds a position")
	}
	l, mem := newTestLedger(t)
	if l.Held() {
		t.Error("zeros hold a position")
	}
	l.start(5)
	l.takes(6, 2)
	l.Stop()
	if !l.Held() {
		t.Error("a stopped ring has no position")
	}
	l.Rebase()
	if l.Held() {
		t.Error("a ring that starts elsewhere has its old position")
	}
	l.start(6)
	if next, list := l.recover(0, 4); next != 6 || len(list) != 1 || list[0].Head != 2 || list[0].Last {
		t.Errorf("next %d, %+v: want chain 2 of before the stop", next, list)
	}
	l.Clear()
	if !slices.Equal(mem, make([]byte, LedgerSize)) {
		t.Error("Clear leaves something")
	}
	if _, err := NewLedger(mem[:LedgerSize-8]); err == nil {
		t.Error("a ledger in too little memory")
	}
	if _, err := NewLedger(append(mem, make([]byte, 16)...)[1:]); err == nil {
		t.Error("a ledger that is not aligned")
	}
}
