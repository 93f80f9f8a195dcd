package input

// touchUpEvents is the most that lifting a finger needs: slot, tracking id,
// BTN_TOUCH and SYN_REPORT.
const touchUpEvents = 4

// touches are the fingers, as protocol B wants them (Linux,
// Documentation/input/multi-touch-protocol.rst). BTN_TOUCH and ABS_X, ABS_Y of
// the finger that is down for the longest time come along, for programs that know
// one finger only.
type touches struct {
	slots  [Slots]slot
	down   int
	out    int32 // the slot that the queue's end is at; -1 if unknown
	serial uint32
	single point // ABS_X and ABS_Y as the queue's end has them
}

type slot struct {
	down   bool
	serial uint32 // of the contact; the lowest is the oldest
	pos    point  // where the finger is
	posOut point  // as the queue's end has it
}

func (t *touches) forget() {
	*t = touches{out: -1, single: nowhere}
	for i := range t.slots {
		t.slots[i].pos, t.slots[i].posOut = nowhere, nowhere
	}
}

// oldest is the finger that is down for the longest time, or nil.
func (t *touches) oldest() (first *slot) {
	for i := range t.slots {
		c := &t.slots[i]
		if c.down && (first == nil || int32(c.serial-first.serial) < 0) {
			first = c
		}
	}
	return first
}

func (t *touches) softEvents() (n int) {
	if t.down == 0 {
		return 0
	}
	for i := range t.slots {
		c := &t.slots[i]
		if c.down && c.pos != c.posOut {
			n += 3 // slot, x, y
		}
	}
	if t.oldest().pos != t.single {
		n += 2
	}
	return n
}

// finger is a finger that comes down, moves or is lifted.
func (s *source) finger(n uint8, p point, down bool) {
	if s.kind != Touch || n >= Slots {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.touch.slots[n]
	switch {
	case down && c.down:
		c.pos = p
	case down:
		s.fingerDown(n, p)
	case c.down:
		s.fingerUp(n)
	}
}

func (s *source) fingerDown(n uint8, p point) {
	t := &s.touch
	// slot, tracking id, x, y, BTN_TOUCH
	if !s.live || !s.fitsPress(s.softEvents()+5, touchUpEvents) {
		s.counters.Refused++
		return
	}
	s.flushSoft()
	c := &t.slots[n]
	c.down, c.serial, c.pos = true, t.serial, p
	t.serial++
	t.down++
	s.pushSlot(n)
	s.push(EvAbs, AbsTrackingID, int32(c.serial%(trackMax+1)))
	s.pushPoint(AbsMTX, AbsMTY, &c.posOut, p)
	if t.down == 1 {
		s.push(EvKey, BtnTouch, 1)
	}
}

func (s *source) fingerUp(n uint8) {
	t := &s.touch
	s.flushSoft()
	t.slots[n].down = false
	t.down--
	s.pushSlot(n)
	s.push(EvAbs, AbsTrackingID, -1)
	if t.down == 0 {
		s.push(EvKey, BtnTouch, 0)
	}
}

func (s *source) pushSlot(n uint8) {
	if s.touch.out != int32(n) {
		s.push(EvAbs, AbsSlot, int32(n))
		s.touch.out = int32(n)
	}
}

func (s *source) flushTouches() {
	t := &s.touch
	if t.down == 0 {
		return
	}
	for i := range t.slots {
		c := &t.slots[i]
		if !c.down || c.pos == c.posOut {
			continue
		}
		s.pushSlot(uint8(i))
		s.pushPoint(AbsMTX, AbsMTY, &c.posOut, c.pos)
	}
	s.pushPoint(AbsX, AbsY, &t.single, t.oldest().pos)
}
