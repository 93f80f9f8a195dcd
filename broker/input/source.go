package input

import (
	"sync"
)

// softBacklog is how many events may wait before movements are added up instead
// of queued one by one.
const softBacklog = 96

// Counters say what became of a device's events. All but Waiting only grow.
type Counters struct {
	Events  uint64 // handed to the guest's driver, SYN_REPORT included
	Merged  uint64 // frames whose movement was added to the next one
	Refused uint64 // presses, and turns of the wheel, that the guest never saw
	Waiting int    // events in the queue
}

// source turns what a display reports into the event stream of one device. Its
// methods may be called on any goroutine; none waits for the guest.
//
// Events of two kinds wait here. Hard ones (keys, buttons, fingers down or up) go
// to the queue at once. Soft ones (positions, wheel) are kept as a state and
// follow when a frame ends or before a hard event, so that they can be added up
// while the guest is behind.
//
// A hard event that presses something is taken only if, after it, there is room
// to release all that is pressed, each in a frame of its own, and for the soft
// events that there may be. So a release always fits, and soft events do as soon
// as the guest has caught up.
type source struct {
	kind Kind
	wake func() // tells the loop that events wait

	mu       sync.Mutex
	live     bool // the guest's driver takes events
	q        queue
	counters Counters
	open     bool // the queue's last frame has no SYN_REPORT yet
	ready    bool // a frame ended whose soft events are still here

	held  [codes]bool // keys and buttons down, as the queue's end has them
	nheld int

	pos    point // where the pointer is
	posOut point // as the queue's end has it
	wheel  [2]wheel

	touch touches
}

// point is a position on the axes; -1 means that the guest knows none.
type point struct{ x, y int32 }

var nowhere = point{-1, -1}

// wheel is one direction of turning.
type wheel struct {
	hiRes, loRes uint16 // codes
	turn         int32  // 120ths of a detent that the queue does not have yet
	rest         int32  // of a detent that is not complete
}

func newSource(kind Kind, size int, wake func()) *source {
	s := &source{kind: kind, wake: wake, q: newQueue(size)}
	s.forget()
	return s
}

// forget is a device that was never used: the guest's driver is new, or gone.
func (s *source) forget() {
	s.q.clear()
	s.open, s.ready = false, false
	s.held, s.nheld = [codes]bool{}, 0
	s.pos, s.posOut = nowhere, nowhere
	s.wheel = [2]wheel{{hiRes: RelWheelHiRes, loRes: RelWheel}, {hiRes: RelHWheelHiRes, loRes: RelHWheel}}
	s.touch.forget()
}

// reset forgets everything, on the loop.
func (s *source) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
}

// setLive says whether the event queue runs. While it does not, presses and
// turns of the wheel are refused: nobody wants a paused guest to be flooded with
// what was typed at its still picture.
func (s *source) setLive(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = on
}

// reserve is the room in events that must stay free.
func (s *source) reserve() int {
	n := 2*s.nheld + touchUpEvents*s.touch.down
	if s.open {
		n++
	}
	return n
}

// softRoom is the most that soft events need, with their SYN_REPORT.
func (s *source) softRoom() int {
	if s.kind == Touch {
		return 3*Slots + 2 + 1
	}
	return 2 + 2*len(s.wheel) + 1
}

// fitsPress reports whether n events that press something, and after, to release
// it, can go to the queue.
func (s *source) fitsPress(n, after int) bool { return s.fits(n + after + s.softRoom()) }

// fits reports whether n events and a SYN_REPORT can go to the queue.
func (s *source) fits(n int) bool { return s.q.free() >= n+1+s.reserve() }

func (s *source) push(typ, code uint16, value int32) {
	s.q.push(Event{Type: typ, Code: code, Value: uint32(value)})
	s.open = true
}

// key is a key or button.
func (s *source) key(code uint16, pressed bool) {
	if int(code) >= codes || !s.kind.has(code) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[code] == pressed {
		return
	}
	if !pressed {
		s.flushSoft()
		s.held[code] = false
		s.nheld--
		s.push(EvKey, code, 0)
		return
	}
	if !s.live || !s.fitsPress(s.softEvents()+1, 2) {
		s.counters.Refused++
		return
	}
	s.flushSoft()
	s.held[code] = true
	s.nheld++
	s.push(EvKey, code, 1)
}

// move is the pointer's new place.
func (s *source) move(p point) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pos = p
}

// scroll turns the wheel: 120ths of a detent, positive down and right.
func (s *source) scroll(vertical, horizontal int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.live {
		s.counters.Refused++
		return
	}
	s.wheel[0].add(-vertical) // evdev counts up and right
	s.wheel[1].add(horizontal)
}

// maxTurn bounds what adds up while the guest takes nothing: 100 detents.
const maxTurn = 100 * 120

func (w *wheel) add(v int32) {
	v = min(max(v, -maxTurn), maxTurn)
	w.turn = min(max(w.turn+v, -maxTurn), maxTurn)
}

// frame ends a group.
func (s *source) frame() {
	s.mu.Lock()
	soft := s.softEvents()
	switch {
	case soft > 0 && s.live && (s.open || s.q.len() < softBacklog) && s.fits(soft):
		s.flushSoft()
	case soft > 0:
		if s.ready {
			s.counters.Merged++
		}
		s.ready = true
	}
	s.endFrame()
	waiting := s.q.len() > 0
	s.mu.Unlock()
	if waiting {
		s.wake()
	}
}

func (s *source) endFrame() {
	if s.open {
		s.push(EvSyn, SynReport, 0)
		s.open = false
	}
}

// softEvents counts what flushSoft would push.
func (s *source) softEvents() (n int) {
	if s.pos.x != s.posOut.x {
		n++
	}
	if s.pos.y != s.posOut.y {
		n++
	}
	for i := range s.wheel {
		if s.wheel[i].turn != 0 {
			n += 2
		}
	}
	return n + s.touch.softEvents()
}

// flushSoft puts the soft events into the queue, if they fit; else they wait on.
func (s *source) flushSoft() {
	n := s.softEvents()
	if n > 0 && !s.fits(n) {
		return
	}
	s.ready = false
	if n == 0 {
		return
	}
	s.pushPoint(AbsX, AbsY, &s.posOut, s.pos)
	for i := range s.wheel {
		s.flushWheel(&s.wheel[i])
	}
	s.flushTouches()
}

// pushPoint pushes what changed: the guest's kernel drops an axis that did not.
func (s *source) pushPoint(x, y uint16, out *point, p point) {
	if p.x != out.x {
		s.push(EvAbs, x, p.x)
	}
	if p.y != out.y {
		s.push(EvAbs, y, p.y)
	}
	*out = p
}

func (s *source) flushWheel(w *wheel) {
	if w.turn == 0 {
		return
	}
	if (w.rest < 0) != (w.turn < 0) {
		w.rest = 0 // turning back starts a new detent
	}
	s.push(EvRel, w.hiRes, w.turn)
	w.rest += w.turn
	if n := w.rest / 120; n != 0 {
		s.push(EvRel, w.loRes, n)
		w.rest -= n * 120
	}
	w.turn = 0
}

// releaseAll lifts every key, button and finger, as the end of the display does.
func (s *source) releaseAll() {
	for code := range s.held {
		s.key(uint16(code), false)
	}
	for slot := range s.touch.slots {
		s.finger(uint8(slot), point{}, false)
	}
	s.frame()
}

// next returns the event that the guest gets next, and leaves it in the queue.
// Movements that waited for the guest to catch up come now.
func (s *source) next() (Event, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ready && !s.open && s.q.len() < softBacklog {
		s.flushSoft()
		s.endFrame()
	}
	return s.q.peek()
}

// taken drops the event that next returned.
func (s *source) taken() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.q.pop()
	s.counters.Events++
}

// waits reports whether a running guest has events to take.
func (s *source) waits() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live && s.q.len() > 0
}

func (s *source) stats() Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.counters
	c.Waiting = s.q.len()
	return c
}
