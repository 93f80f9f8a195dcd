package vtest

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// Limits of a client's syncs.
const (
	maxQueues     = 64   // sync queues, as in virgl_test_server
	maxSyncsHeld  = 4096 // syncs at a time
	maxWaits      = 256  // waits at a time: a descriptor each
	maxWorkQueued = 4096 // batches whose work is unfinished
)

// syncs are a client's syncs: numbers that only grow by what they are told, and who waits
// for them. They are the client's alone, so their ids need not be unique among clients.
type syncs struct {
	values map[uint32]uint64
	lastID uint32
	waits  []*syncWait
	work   []syncWork
}

// syncWait is an eventfd that a client polls.
type syncWait struct {
	fd    *dmabuf.FD
	any   bool
	left  []SyncValue
	until time.Time // zero: for ever
}

// syncWork sets syncs when a fence has signalled.
type syncWork struct {
	fence uint32
	set   []SyncValue
}

func (s *syncs) close() {
	for _, w := range s.waits {
		_ = w.fd.Close()
	}
	*s = syncs{}
}

func (s *syncs) value(id uint32) (uint64, error) {
	if v, ok := s.values[id]; ok {
		return v, nil
	}
	return 0, fmt.Errorf("sync %d: %w", id, ErrNotOwned)
}

// set gives a sync a value and wakes who waited for it. One that is gone needs nothing.
func (s *syncs) set(v SyncValue) {
	if _, ok := s.values[v.ID]; !ok {
		return
	}
	s.values[v.ID] = v.Value
	s.expire()
	s.waits = slices.DeleteFunc(s.waits, func(w *syncWait) bool {
		before := len(w.left)
		w.left = slices.DeleteFunc(w.left, func(l SyncValue) bool { return l.ID == v.ID && l.Value <= v.Value })
		if len(w.left) == 0 || w.any && len(w.left) < before {
			w.wake()
			_ = w.fd.Close()
			return true
		}
		return false
	})
}

// expire forgets the waits whose time is over.
func (s *syncs) expire() {
	now := time.Now()
	s.waits = slices.DeleteFunc(s.waits, func(w *syncWait) bool {
		over := !w.until.IsZero() && w.until.Before(now)
		if over {
			_ = w.fd.Close()
		}
		return over
	})
}

func (w *syncWait) wake() {
	one := [8]byte{1}
	_, _ = unix.Write(w.fd.Int(), one[:])
}

// signalled sets the syncs of work up to a fence.
func (s *syncs) signalled(fence uint32) {
	for len(s.work) > 0 && int32(s.work[0].fence-fence) <= 0 {
		set := s.work[0].set
		s.work = slices.Delete(s.work, 0, 1)
		for _, v := range set {
			s.set(v)
		}
	}
}

func (c *client) syncCreate(m *message) error {
	s := &c.syncs
	if len(s.values) >= maxSyncsHeld {
		return fmt.Errorf("%d syncs: %w %d", len(s.values), ErrLimit, maxSyncsHeld)
	}
	if s.values == nil {
		s.values = map[uint32]uint64{}
	}
	for {
		s.lastID++
		if _, used := s.values[s.lastID]; !used && s.lastID != 0 {
			break
		}
	}
	s.values[s.lastID] = wide(m.body, 0)
	c.answer(SyncCreate, s.lastID)
	return nil
}

func (c *client) syncUnref(m *message) error {
	id := word(m.body, 0)
	if _, err := c.syncs.value(id); err != nil {
		return err
	}
	delete(c.syncs.values, id)
	return nil
}

func (c *client) syncRead(m *message) error {
	v, err := c.syncs.value(word(m.body, 0))
	if err != nil {
		return err
	}
	c.answer(SyncRead, uint32(v), uint32(v>>32))
	return nil
}

func (c *client) syncWrite(m *message) error {
	v := syncAt(m.body, 0)
	if _, err := c.syncs.value(v.ID); err != nil {
		return err
	}
	c.syncs.set(v)
	return nil
}

// syncWait answers with an eventfd that becomes readable when the syncs have their values.
// The timeout, in milliseconds, only says when it may be forgotten: the client polls.
func (c *client) syncWait(m *message) error {
	flags, timeout := word(m.body, 0), word(m.body, 1)
	list := m.body[8:]
	if len(list)%(4*syncWords) != 0 {
		return protocol("length %d words, want 2 and %d for each sync", m.Length, syncWords)
	}
	w := &syncWait{any: flags&SyncWaitFlagAny != 0}
	n := len(list) / (4 * syncWords)
	for i := range n {
		want := syncAt(list, i)
		have, err := c.syncs.value(want.ID)
		if err != nil {
			return err
		}
		if have < want.Value {
			w.left = append(w.left, want)
		}
	}
	c.syncs.expire()
	ready := len(w.left) == 0 || w.any && len(w.left) < n
	if !ready && timeout > 0 && len(c.syncs.waits) >= maxWaits {
		return fmt.Errorf("%d waits: %w %d", len(c.syncs.waits), ErrLimit, maxWaits)
	}
	raw, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	w.fd = dmabuf.NewFD(raw, "vtest sync wait")
	if ready {
		w.wake()
	}
	c.answer(SyncWait)
	if ready || timeout == 0 {
		c.out.replyFD(w.fd)
		return nil
	}
	theirs, err := w.fd.Dup()
	if err != nil {
		_ = w.fd.Close()
		return err
	}
	if timeout <= 1<<31-1 { // INT32_MAX; what is more means for ever
		w.until = time.Now().Add(time.Duration(timeout) * time.Millisecond)
	}
	c.syncs.waits = append(c.syncs.waits, w)
	c.out.replyFD(theirs)
	return nil
}

// submitCmd2 runs batches of commands, each of which may set syncs: at once, or when its
// work is done.
func (c *client) submitCmd2(m *message) error {
	n, words := uint64(word(m.body, 0)), uint64(m.Length)
	if 1+batchWords*n > words {
		return protocol("batch_count %d in %d words", n, words)
	}
	for i := range int(n) {
		var q batch
		q.decode(m.body[4*(1+batchWords*i):])
		if uint64(q.cmdOffset)+uint64(q.cmdSize) > words || uint64(q.syncOffset)+syncWords*uint64(q.syncs) > words {
			return protocol("batch %d: commands %d+%d, syncs %d+%d×%d, in %d words", i, q.cmdOffset, q.cmdSize, q.syncOffset, q.syncs, syncWords, words)
		}
		if q.queueIndex >= maxQueues {
			return protocol("batch %d: sync queue %d, limit %d", i, q.queueIndex, maxQueues-1)
		}
		if q.cmdSize > 0 {
			if err := c.submit(m.body[4*q.cmdOffset : 4*(q.cmdOffset+q.cmdSize)]); err != nil {
				return fmt.Errorf("batch %d: %w", i, err)
			}
		}
		if err := c.batchSyncs(m.body, &q); err != nil {
			return fmt.Errorf("batch %d: %w", i, err)
		}
	}
	return nil
}

func (c *client) batchSyncs(body []byte, q *batch) error {
	var set []SyncValue
	for i := range int(q.syncs) {
		v := syncAt(body[4*q.syncOffset:], i)
		if _, err := c.syncs.value(v.ID); err != nil {
			return err
		}
		set = append(set, v)
	}
	if len(set) == 0 {
		return nil
	}
	if q.flags&Submit2FlagSyncQueue != 0 {
		fence, done, err := c.ctx.Fence()
		if err != nil {
			return err
		}
		if !done {
			if len(c.syncs.work) >= maxWorkQueued {
				return fmt.Errorf("%d unfinished batches: %w %d", len(c.syncs.work), ErrLimit, maxWorkQueued)
			}
			c.syncs.work = append(c.syncs.work, syncWork{fence, set})
			return nil
		}
	}
	for _, v := range set {
		c.syncs.set(v)
	}
	return nil
}
