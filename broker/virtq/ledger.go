package virtq

import (
	"cmp"
	"fmt"
	"slices"
)

// A Ledger remembers, in memory that outlives the process, which chains a device has
// taken and not given back: what a process needs that takes a ring over from one
// that died. It does for one device what VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD does for
// a front-end.
//
// Whenever the process dies, what stands there is true or can be told from the used
// ring's index: each step is one store of a whole word, in this order.
//
//	take:  the record of taking (next available index, head), then the head's entry
//	push:  the record of pushing (next used index, head), the used ring, the head's entry
//
// Only the goroutine that serves the ring may call its methods.
type Ledger struct {
	state word
	take  word
	push  word
	heads []word
	seq   uint32 // of the chain taken last
}

// LedgerSize is the memory that a ledger needs, in bytes; it must be aligned to 8.
const LedgerSize = 64 + 8*MaxSize

// Stages of a head's entry, its two highest bits. Below are 30 bits of how much was
// written, and the chain's number.
const (
	stageFree uint64 = iota
	stageTaken
	stageAnswered
)

const (
	maxWritten = 1<<30 - 1
	noHead     = 0xffff // more than any ring has
)

// What ledgerState says.
const (
	ledgerEmpty   = iota
	ledgerStopped // the position is good
	ledgerRunning
)

// NewLedger uses shared memory of LedgerSize bytes as it is; zeros are an empty ledger.
func NewLedger(mem []byte) (*Ledger, error) {
	if len(mem) < LedgerSize || misaligned(mem, 8) {
		return nil, &OpError{Op: "new ledger", Err: fmt.Errorf("%w: %d bytes, need %d aligned to 8", ErrConfig, len(mem), LedgerSize)}
	}
	l := &Ledger{state: wordAt(mem, 0), take: wordAt(mem, 8), push: wordAt(mem, 16), heads: make([]word, MaxSize)}
	for i := range l.heads {
		l.heads[i] = wordAt(mem, 64+8*i)
	}
	l.seq = uint32(l.take.load())
	return l, nil
}

// Held reports whether the ledger knows a ring's position, running or stopped.
func (l *Ledger) Held() bool { return l != nil && l.state.load() != ledgerEmpty }

// Clear forgets everything: the next start says where the ring stands.
func (l *Ledger) Clear() {
	if l == nil || !l.Held() && l.take.load() == 0 {
		return
	}
	l.state.store(ledgerEmpty)
	for _, h := range l.heads {
		if h.load() != 0 {
			h.store(0)
		}
	}
	l.take.store(0)
	l.push.store(0)
	l.seq = 0
}

// Rebase notes that the next start says itself where the ring stands; chains in flight
// stay.
func (l *Ledger) Rebase() {
	if l.Held() {
		l.state.store(ledgerEmpty)
	}
}

// Stop notes that the ring does not run any more; its position stays.
func (l *Ledger) Stop() {
	if l.Held() {
		l.state.store(ledgerStopped)
	}
}

func record(index, head uint16, seq uint32) uint64 {
	return uint64(index)<<48 | uint64(head)<<32 | uint64(seq)
}

func entry(stage uint64, written uint32, seq uint32) uint64 {
	return stage<<62 | uint64(min(written, maxWritten))<<32 | uint64(seq)
}

// start begins to follow a ring at this available index.
func (l *Ledger) start(lastAvail uint16) {
	if l == nil {
		return
	}
	l.take.store(record(lastAvail, noHead, l.seq))
	l.state.store(ledgerRunning)
}

// takes notes that head was taken and lastAvail is the next.
func (l *Ledger) takes(lastAvail, head uint16) {
	if l == nil {
		return
	}
	l.seq++
	l.take.store(record(lastAvail, head, l.seq))
	l.heads[head].store(entry(stageTaken, 0, l.seq))
}

// skips notes that the ring goes on at lastAvail without a chain.
func (l *Ledger) skips(lastAvail uint16) {
	if l != nil {
		l.take.store(record(lastAvail, noHead, l.seq))
	}
}

func (l *Ledger) answered(head uint16, written uint32) {
	if l == nil {
		return
	}
	h := l.heads[head]
	h.store(entry(stageAnswered, written, uint32(h.load())))
}

// pushes notes that usedIdx will be the used ring's index when head is in it.
func (l *Ledger) pushes(usedIdx, head uint16) {
	if l != nil {
		l.push.store(record(usedIdx, head, uint32(l.heads[head].load())))
	}
}

func (l *Ledger) pushed(head uint16) {
	if l != nil {
		l.heads[head].store(entry(stageFree, 0, uint32(l.heads[head].load())))
	}
}

// InFlight is a chain that another process took and did not give back.
type InFlight struct {
	Head uint16
	// Answered says that its response of Written bytes is complete in the guest's
	// memory: it only has to be pushed.
	Answered bool
	Written  uint32
	// Last says that it is the chain that was taken last.
	Last bool
	// Seq numbers the chains of a ring since its driver started.
	Seq uint32
}

// recover completes what the other process was in the middle of. usedIdx is what
// stands in the used ring of size entries. It returns the next available index, and the
// chains in flight in the order in which they were taken.
func (l *Ledger) recover(usedIdx uint16, size int) (lastAvail uint16, list []InFlight) {
	take := l.take.load()
	lastAvail, l.seq = uint16(take>>48), uint32(take)
	last := uint16(take >> 32)
	if int(last) < size && uint32(l.heads[last].load()) != l.seq {
		l.heads[last].store(entry(stageTaken, 0, l.seq))
	}
	if push := l.push.load(); push != 0 && uint16(push>>48) == usedIdx {
		head := uint16(push >> 32)
		if int(head) < size && uint32(l.heads[head].load()) == uint32(push) {
			l.pushed(head)
		}
	}
	for head := range size {
		e := l.heads[head].load()
		if stage := e >> 62; stage != stageFree {
			list = append(list, InFlight{
				Head: uint16(head), Answered: stage == stageAnswered, Written: uint32(e>>32) & maxWritten,
				Last: uint16(head) == last && uint32(e) == l.seq, Seq: uint32(e),
			})
		}
	}
	slices.SortFunc(list, func(a, b InFlight) int { return cmp.Compare(int32(a.Seq-l.seq), int32(b.Seq-l.seq)) })
	return lastAvail, list
}
