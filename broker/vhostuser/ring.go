package vhostuser

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/guestmem"
	"github.com/gpubroker/gpubroker/broker/virtq"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// ring is what the front-end said about one ring, and the queue while it runs.
// The parts come in any order: QEMU 7.2, 10 and 11 differ.
type ring struct {
	size    uint32 // 0: not known yet
	addr    VringAddr
	hasAddr bool
	base    uint16
	hasBase bool
	newBase bool // SET_VRING_BASE came since the ring last ran
	kick    *dmabuf.FD
	enabled bool

	call *dmabuf.FD
	err  *dmabuf.FD

	q       *virtq.Queue // nil unless running
	ledger  *virtq.Ledger
	resume  bool // the next start is where the ledger says
	wrapped bool // when it last stopped, both indices stood at 0 although it had run
}

func (r *ring) close() {
	for _, fd := range []**dmabuf.FD{&r.kick, &r.call, &r.err} {
		_ = (*fd).Close()
		*fd = nil
	}
}

func (s *session) ring(index uint32) (*ring, error) {
	if index >= uint32(len(s.rings)) {
		return nil, fmt.Errorf("%w: ring %d, there are %d", ErrMessage, index, len(s.rings))
	}
	return &s.rings[index], nil
}

// ringOf decodes a VringState and finds its ring.
func (s *session) ringOf(m *Message) (*ring, VringState, error) {
	st, err := DecodeVringState(m.Payload)
	if err != nil {
		return nil, st, err
	}
	r, err := s.ring(st.Index)
	return r, st, err
}

func setVringNum(s *session, m *Message, out []byte) ([]byte, error) {
	r, st, err := s.ringOf(m)
	switch {
	case err != nil:
		return out, err
	case st.Num == 0 || st.Num > virtq.MaxSize || st.Num&(st.Num-1) != 0:
		return out, fmt.Errorf("%w: ring %d with %d entries, must be a power of two up to %d", ErrMessage, st.Index, st.Num, virtq.MaxSize)
	case r.q != nil && r.size != st.Num:
		return out, fmt.Errorf("%w: ring %d runs with %d entries, cannot become %d", ErrState, st.Index, r.size, st.Num)
	}
	r.size = st.Num
	return out, s.updateRing(int(st.Index))
}

func setVringBase(s *session, m *Message, out []byte) ([]byte, error) {
	r, st, err := s.ringOf(m)
	switch {
	case err != nil:
		return out, err
	case st.Num > math.MaxUint16:
		return out, fmt.Errorf("%w: ring %d with base %d, limit %d", ErrMessage, st.Index, st.Num, math.MaxUint16)
	case r.q != nil:
		return out, fmt.Errorf("%w: ring %d is running", ErrState, st.Index)
	}
	r.base, r.hasBase, r.newBase = uint16(st.Num), true, true
	if s.resuming == 0 {
		r.resume = false
		r.ledger.Rebase()
	}
	return out, s.updateRing(int(st.Index))
}

func setVringAddr(s *session, m *Message, out []byte) ([]byte, error) {
	addr, err := DecodeVringAddr(m.Payload)
	if err != nil {
		return out, err
	}
	r, err := s.ring(addr.Index)
	if err != nil {
		return out, err
	}
	before := r.addr
	r.addr, r.hasAddr = addr, true
	if r.q == nil {
		return out, s.updateRing(int(addr.Index))
	}
	if err := s.remap(r); err != nil {
		r.addr = before
		return out, err
	}
	return out, nil
}

// getVringBase stops the ring. The kick goes too: the next start brings another.
func getVringBase(s *session, m *Message, out []byte) ([]byte, error) {
	r, st, err := s.ringOf(m)
	if err != nil {
		return out, err
	}
	s.stopRing(int(st.Index))
	_ = r.kick.Close()
	r.kick = nil
	return VringState{Index: st.Index, Num: uint32(r.base)}.Append(out), nil
}

// vringFD decodes the payload and takes the descriptor; it is nil if the NOFD
// bit says so.
func (s *session) vringFD(m *Message) (index int, r *ring, fd *dmabuf.FD, err error) {
	v, err := DecodeVringFD(m.Payload)
	if err != nil {
		return 0, nil, nil, err
	}
	if r, err = s.ring(uint32(v.Index)); err != nil {
		return 0, nil, nil, err
	}
	if v.NoFD != (len(m.FDs) == 0) {
		return 0, nil, nil, fmt.Errorf("%w: ring %d: %d descriptors, no-descriptor bit %t", ErrMessage, v.Index, len(m.FDs), v.NoFD)
	}
	if len(m.FDs) == 1 {
		if err := checkEvent(m.FDs[0]); err != nil {
			return 0, nil, nil, fmt.Errorf("ring %d: %w", v.Index, err)
		}
	}
	return int(v.Index), r, m.TakeFD(0), nil
}

// checkEvent refuses what the render thread cannot read or write without waiting:
// all but eventfds that do not block, as every front-end makes them. (Their flags
// are the front-end's, too, so they cannot be set here.)
func checkEvent(fd *dmabuf.FD) error {
	flags, err := unix.FcntlInt(uintptr(fd.Int()), unix.F_GETFL, 0)
	if err != nil {
		return fmt.Errorf("F_GETFL: %w", err)
	}
	if flags&unix.O_NONBLOCK == 0 {
		return fmt.Errorf("%w: a descriptor that blocks, must be an eventfd with EFD_NONBLOCK", ErrMessage)
	}
	link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd.Int()))
	if err == nil && link != "anon_inode:[eventfd]" {
		return fmt.Errorf("%w: descriptor %q, must be an eventfd", ErrMessage, link)
	}
	return nil
}

func setVringKick(s *session, m *Message, out []byte) ([]byte, error) {
	i, r, fd, err := s.vringFD(m)
	if err != nil {
		return out, err
	}
	if fd == nil {
		if fd, err = pollTimer(); err != nil {
			return out, err
		}
	}
	s.stopRing(i) // a running ring goes on with the new kick
	_ = r.kick.Close()
	r.kick = fd
	return out, s.updateRing(i)
}

// pollInterval is how often a ring without kicks is looked at.
const pollInterval = 2e6 // nanoseconds

// pollTimer stands in for a kick when the front-end cannot kick and asks us to
// poll: a timerfd becomes readable, and is read, like an eventfd.
func pollTimer() (*dmabuf.FD, error) {
	raw, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("timerfd_create: %w", err)
	}
	fd := dmabuf.NewFD(raw, "kick timer")
	tick := unix.NsecToTimespec(pollInterval)
	if err := unix.TimerfdSettime(raw, 0, &unix.ItimerSpec{Interval: tick, Value: tick}, nil); err != nil {
		_ = fd.Close()
		return nil, fmt.Errorf("timerfd_settime: %w", err)
	}
	return fd, nil
}

func setVringCall(s *session, m *Message, out []byte) ([]byte, error) {
	_, r, fd, err := s.vringFD(m)
	if err != nil {
		return out, err
	}
	old := r.call
	r.call = fd
	if r.q != nil {
		r.q.SetCall(fd)
		// An interrupt may have gone to the old eventfd after the front-end last
		// looked at it; one too many does no harm.
		err = r.q.Interrupt()
	}
	_ = old.Close()
	return out, err
}

func setVringErr(s *session, m *Message, out []byte) ([]byte, error) {
	_, r, fd, err := s.vringFD(m)
	if err != nil {
		return out, err
	}
	if r.q != nil {
		r.q.SetErr(fd)
	}
	_ = r.err.Close()
	r.err = fd
	return out, nil
}

func setVringEnable(s *session, m *Message, out []byte) ([]byte, error) {
	r, st, err := s.ringOf(m)
	if err != nil {
		return out, err
	}
	switch st.Num {
	case 0:
		r.enabled = false
		s.stopRing(int(st.Index))
		return out, nil
	case 1:
		r.enabled = true
		return out, s.updateRing(int(st.Index))
	}
	return out, fmt.Errorf("%w: ring %d enabled with %d, must be 0 or 1", ErrMessage, st.Index, st.Num)
}

// ready reports whether everything that a start needs has come.
func (s *session) ready(r *ring) bool {
	// Without protocol features there is no SET_VRING_ENABLE.
	enabled := r.enabled || s.features&FProtocolFeatures == 0
	return s.hasFeatures && enabled && r.size != 0 && r.hasAddr && r.hasBase && r.kick != nil
}

func (s *session) updateRings() error {
	var errs []error
	for i := range s.rings {
		errs = append(errs, s.updateRing(i))
	}
	return errors.Join(errs...)
}

// updateRing starts the ring if it is ready and does not run yet.
func (s *session) updateRing(i int) error {
	r := &s.rings[i]
	if r.q != nil || s.resuming > 0 || !s.ready(r) {
		return nil
	}
	desc, avail, used, err := s.ringMemory(r)
	if err != nil {
		return err
	}
	q, err := virtq.New(virtq.Config{
		Index: i, Size: int(r.size), Desc: desc, Avail: avail, Used: used, LastAvail: r.base,
		EventIdx: s.features&FEventIdx != 0, Indirect: s.features&FIndirectDesc != 0,
		Mem: s.mem, Call: r.call, Err: r.err, Ledger: r.ledger, Resume: r.resume,
	})
	if err != nil {
		return err
	}
	kick, err := r.kick.Dup()
	if err != nil {
		return err
	}
	fresh := !r.resume && r.fresh(q, used)
	if fresh {
		q.Fresh()
	}
	r.q, r.newBase, r.wrapped, r.resume = q, false, false, false
	s.log.Debug("ring starts", zap.Int("ring", i), zap.Uint32("size", r.size), zap.Uint16("base", r.base), zap.Bool("fresh", fresh))
	s.channel.setGate(true)
	s.dev.QueueStart(i, q, kick, fresh)
	return nil
}

// fresh tells a start after a device reset from one after vm stop and cont: the
// front-end sends the same messages. A reset begins with both indices at 0. So
// does, once in 65536, a ring that was stopped just as both had wrapped; then
// the used ring is not empty.
func (r *ring) fresh(q *virtq.Queue, used []byte) bool {
	if !r.newBase || r.base != 0 || q.UsedIdx() != 0 {
		return false
	}
	if !r.wrapped {
		return true
	}
	elems := make([]byte, virtq.UsedBytes(q.Size())-2-4)
	if _, err := guestmem.Copy(elems, used[4:]); err != nil {
		return true
	}
	return !slices.ContainsFunc(elems, func(b byte) bool { return b != 0 })
}

// stopRing takes the queue from the device and keeps its position.
func (s *session) stopRing(i int) {
	r := &s.rings[i]
	if r.q == nil {
		return
	}
	s.dev.QueueStop(i)
	ran := r.q.Taken() > 0
	r.base = r.q.LastAvail()
	r.wrapped = ran && r.base == 0 && r.q.UsedIdx() == 0
	r.q = nil
	r.ledger.Stop()
	s.log.Debug("ring stops", zap.Int("ring", i), zap.Uint16("base", r.base))
}

func (s *session) anyRunning() bool {
	return slices.ContainsFunc(s.rings, func(r ring) bool { return r.q != nil })
}

func (s *session) ringMemory(r *ring) (desc, avail, used []byte, err error) {
	n := int(r.size)
	if desc, err = s.mem.FromUser(r.addr.Desc, uint64(virtq.DescBytes(n))); err != nil {
		return nil, nil, nil, fmt.Errorf("descriptor table: %w", err)
	}
	if avail, err = s.mem.FromUser(r.addr.Avail, uint64(virtq.AvailBytes(n))); err != nil {
		return nil, nil, nil, fmt.Errorf("available ring: %w", err)
	}
	if used, err = s.mem.FromUser(r.addr.Used, uint64(virtq.UsedBytes(n))); err != nil {
		return nil, nil, nil, fmt.Errorf("used ring: %w", err)
	}
	return desc, avail, used, nil
}

func (s *session) remap(r *ring) error {
	desc, avail, used, err := s.ringMemory(r)
	if err != nil {
		return err
	}
	return r.q.SetRing(desc, avail, used)
}

// remapRings follows a change of the memory table. A ring whose memory is gone
// stops; it goes on when the memory is back, as after REM_MEM_REG and ADD_MEM_REG
// of a region that moved.
func (s *session) remapRings() {
	for i := range s.rings {
		r := &s.rings[i]
		if r.q == nil {
			if err := s.updateRing(i); err != nil {
				s.log.Debug("ring cannot start yet", zap.Int("ring", i), zap.Error(err))
			}
			continue
		}
		if err := s.remap(r); err != nil {
			s.log.Warn("ring lost its memory", zap.Int("ring", i), zap.Error(err))
			s.stopRing(i)
		}
	}
}
