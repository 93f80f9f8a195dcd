package qemudisplay

import (
	"bytes"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/edid"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/dmabuf"
)

const (
	// freshLimit is how long Freshen waits for QEMU before it answers with what
	// is known.
	freshLimit = time.Second
	// askInterval is the least time between two questions that Mode causes.
	askInterval = 100 * time.Millisecond
)

// modes is what QEMU said about its heads and who waits for it to say more.
// Preconditions of every method: the sink's mu is held.
type modes struct {
	heads   [display.MaxHeads]headMode
	wanted  bool      // somebody wants QEMU asked
	askedAt time.Time // when Mode last wanted that
	waiting []*waiter // for an answer to a question not asked yet
	asked   []*waiter // for the answer on its way
}

type headMode struct {
	mode display.Mode
	edid []byte // never changed, only replaced
	told bool   // the broker asked for either and may have passed it on
}

// waiter is one call of Freshen. Its timer races with the answer; whoever wins
// calls done.
type waiter struct {
	done  func()
	timer *time.Timer
}

// answer calls done unless the timer has.
func (w *waiter) answer() {
	if w.timer.Stop() {
		w.done()
	}
}

func (m *modes) init(first display.Mode) {
	m.heads[0].mode = first
}

// Mode returns the mode that QEMU wants for the head, as last heard. It also
// makes the sink ask again: QEMU does not tell of changes by itself, but it makes
// the guest ask (events_read). See Freshen.
func (s *Sink) Mode(head int) display.Mode {
	if head < 0 || head >= display.MaxHeads {
		return display.Mode{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h := &s.modes.heads[head]
	h.told = true
	if now := time.Now(); s.cur != nil && now.Sub(s.modes.askedAt) >= askInterval {
		s.modes.askedAt = now
		s.modes.wanted = true
		s.cur.signal()
	}
	return h.mode
}

// EDID returns QEMU's EDID for the head, nil if it has none (before 8.1).
func (s *Sink) EDID(head int) []byte {
	if head < 0 || head >= display.MaxHeads {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h := &s.modes.heads[head]
	h.told = true
	return h.edid
}

// Freshen asks QEMU for its modes and EDIDs and calls done, on any goroutine,
// when Mode and EDID give the answers, or after a second without, or at once if
// there is no display. It never blocks. This is for GET_DISPLAY_INFO and GET_EDID:
// with vhost-user-gpu the device cannot raise the guest's display event itself, so
// the first answer has to be right.
func (s *Sink) Freshen(done func()) {
	s.mu.Lock()
	if s.cur == nil || s.closed {
		s.mu.Unlock()
		done()
		return
	}
	w := &waiter{done: done}
	w.timer = time.AfterFunc(freshLimit, func() { s.expire(w) })
	s.modes.waiting = append(s.modes.waiting, w)
	s.modes.wanted = true
	s.modes.askedAt = time.Now()
	s.cur.signal()
	s.mu.Unlock()
}

// expire ends a wait without an answer.
func (s *Sink) expire(w *waiter) {
	is := func(o *waiter) bool { return o == w }
	s.mu.Lock()
	s.modes.waiting = slices.DeleteFunc(s.modes.waiting, is)
	s.modes.asked = slices.DeleteFunc(s.modes.asked, is)
	s.mu.Unlock()
	w.done()
}

// answerAll calls everybody who waits, because no answer will come.
func (s *Sink) answerAll() {
	s.mu.Lock()
	all := append(s.modes.asked, s.modes.waiting...)
	s.modes.asked, s.modes.waiting = nil, nil
	s.mu.Unlock()
	for _, w := range all {
		w.answer()
	}
}

// beginAsk reports whether QEMU is to be asked now and makes those who wait
// wait for that answer.
func (s *Sink) beginAsk() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.modes.wanted {
		return false
	}
	s.modes.wanted = false
	s.modes.asked = append(s.modes.asked, s.modes.waiting...)
	s.modes.waiting = nil
	return true
}

// publish makes a complete answer known. The guest is told of a change only if
// it had an older answer and is not asking just now.
func (s *Sink) publish(info *virtiogpu.DisplayInfo, edids *[display.MaxHeads][]byte) {
	var changed [display.MaxHeads]bool
	s.mu.Lock()
	asking := len(s.modes.asked)+len(s.modes.waiting) > 0
	for i := range s.modes.heads {
		h := &s.modes.heads[i]
		m := modeOf(&info.Modes[i])
		if h.mode == m && bytes.Equal(h.edid, edids[i]) {
			continue
		}
		h.mode, h.edid = m, edids[i]
		changed[i] = h.told && !asking
		s.log.Debug("mode", zap.Int("head", i), zap.Bool("enabled", m.Enabled), zap.Uint32("width", m.W), zap.Uint32("height", m.H))
	}
	answered := s.modes.asked
	s.modes.asked = nil
	s.mu.Unlock()
	for _, w := range answered {
		w.answer()
	}
	if s.cfg.Events == nil {
		return
	}
	for i, c := range changed {
		if c {
			s.cfg.Events.ModeChanged(i)
		}
	}
}

// modeOf converts QEMU's mode; an impossible size counts as off.
func modeOf(m *virtiogpu.DisplayMode) display.Mode {
	w, h := m.R.Width, m.R.Height
	if m.Enabled == 0 || w == 0 || h == 0 || w > dmabuf.MaxDimension || h > dmabuf.MaxDimension {
		return display.Mode{}
	}
	return display.Mode{Enabled: true, W: w, H: h}
}

// asking is a session's question to QEMU: GET_DISPLAY_INFO, then GET_EDID for
// each head that is on.
type asking struct {
	busy  bool
	info  virtiogpu.DisplayInfo
	edids [display.MaxHeads][]byte
	left  int                   // EDIDs to come
	heads [display.MaxHeads]int // which heads they are of, in the order asked
	n     int                   // how many were asked for
}

// ask starts a question.
func (s *session) ask() error {
	s.asking = asking{busy: true}
	s.out = begin(s.out)
	return s.request(reqGetDisplayInfo)
}

// gotInfo takes the first answer and asks for the rest.
func (s *session) gotInfo(p []byte) error {
	a := &s.asking
	if err := a.info.Decode(p); err != nil {
		return &OpError{"read reply", err}
	}
	if s.features&featureEDID != 0 {
		for i := range a.info.Modes {
			// QEMU never answers for a scanout that the device does not have, and
			// those that are on surely exist.
			if a.info.Modes[i].Enabled == 0 {
				continue
			}
			a.heads[a.n] = i
			a.n++
			s.out = words(begin(s.out), uint32(i))
			if err := s.request(reqGetEDID); err != nil {
				return err
			}
		}
	}
	a.left = a.n
	s.finishAsk()
	return nil
}

// gotEDID takes the answer for the next head that was asked about.
func (s *session) gotEDID(p []byte) error {
	a := &s.asking
	head := a.heads[a.n-a.left]
	a.left--
	var r virtiogpu.EDID
	if err := r.Decode(p); err != nil {
		return &OpError{"read reply", err}
	}
	data := edid.Cut(r.Bytes()) // QEMU says 1024 bytes whatever the EDID has
	if err := edid.Check(data); err != nil {
		s.sink.log.Warn("QEMU's EDID is not used", zap.Int("head", head), zap.Error(err))
	} else {
		a.edids[head] = bytes.Clone(data)
	}
	s.finishAsk()
	return nil
}

func (s *session) finishAsk() {
	if s.asking.left == 0 {
		s.asking.busy = false
		s.sink.publish(&s.asking.info, &s.asking.edids)
	}
}
