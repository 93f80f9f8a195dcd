package input

// queueSize bounds the events that wait for the guest: a power of two. At the
// four buffers of QEMU's event queue a fast guest is never behind by more than a
// few dozen; this is room for about a minute of typing.
const queueSize = 4096

// queue is a ring of events. The caller locks.
type queue struct {
	events []Event // a power of two of them
	head   uint32  // the next to take
	tail   uint32  // the next free
}

func newQueue(size int) queue { return queue{events: make([]Event, size)} }

func (q *queue) len() int  { return int(q.tail - q.head) }
func (q *queue) free() int { return len(q.events) - q.len() }

func (q *queue) at(i uint32) *Event { return &q.events[int(i)&(len(q.events)-1)] }

// push appends an event; the caller has made sure of the room.
func (q *queue) push(e Event) {
	*q.at(q.tail) = e
	q.tail++
}

// peek returns the oldest event.
func (q *queue) peek() (Event, bool) { return *q.at(q.head), q.len() > 0 }

// pop drops the oldest event.
func (q *queue) pop() { q.head++ }

func (q *queue) clear() { q.head = q.tail }
