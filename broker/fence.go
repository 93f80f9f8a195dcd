package broker

// fence is a command whose completion the guest waits for. Its response is in
// guest memory already; only the used-ring entry is held back.
type fence struct {
	ctx, id uint32 // renderer fence, unless done
	head    uint16 // of the descriptor chain
	written uint32
	done    bool

	shown  bool // waits for the display to show a frame, not for the renderer
	screen int  // which head
	serial uint64

	hold uint64 // not 0: waits for a cross-domain context
}

// timeline holds fences in submission order. The guest's driver signals every
// fence older than the one that it sees completed, so a command that needs no
// GPU still waits for those before it.
type timeline struct {
	q     []fence
	first int
}

func (t *timeline) empty() bool { return t.first == len(t.q) }

func (t *timeline) len() int { return len(t.q) - t.first }

func (t *timeline) push(f fence) {
	if t.empty() {
		t.q, t.first = t.q[:0], 0
	} else if t.first > 64 && t.first > len(t.q)/2 {
		n := copy(t.q, t.q[t.first:])
		t.q, t.first = t.q[:n], 0
	}
	t.q = append(t.q, f)
}

// signal marks the fences of ctx up to id. Ids wrap around at 32 bits.
func (t *timeline) signal(ctx, id uint32) {
	for i := t.first; i < len(t.q); i++ {
		f := &t.q[i]
		if !f.done && !f.shown && f.hold == 0 && f.ctx == ctx && int32(f.id-id) <= 0 {
			f.done = true
		}
	}
}

// signalShown marks the fences that wait for a frame of a head up to serial.
func (t *timeline) signalShown(screen int, serial uint64) {
	for i := t.first; i < len(t.q); i++ {
		if f := &t.q[i]; f.shown && f.screen == screen && f.serial <= serial {
			f.done = true
		}
	}
}

// release marks the fence that is held under this number.
func (t *timeline) release(hold uint64) bool {
	for i := t.first; i < len(t.q); i++ {
		if f := &t.q[i]; f.hold == hold {
			f.done = true
			return true
		}
	}
	return false
}

// pop takes the oldest fence if it is done.
func (t *timeline) pop() (fence, bool) {
	if t.empty() || !t.q[t.first].done {
		return fence{}, false
	}
	f := t.q[t.first]
	t.first++
	return f, true
}

// signalRest marks every fence done but those that a cross-domain context holds, and
// returns how many it marked.
func (t *timeline) signalRest() (n int) {
	for i := t.first; i < len(t.q); i++ {
		if f := &t.q[i]; !f.done && f.hold == 0 {
			f.done = true
			n++
		}
	}
	return n
}

// signalAll marks every fence done: its context goes.
func (t *timeline) signalAll() {
	for i := t.first; i < len(t.q); i++ {
		t.q[i].done = true
	}
}

func (t *timeline) clear() { t.q, t.first = t.q[:0], 0 }
