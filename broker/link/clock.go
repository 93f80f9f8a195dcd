package link

import (
	"math"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Now returns CLOCK_MONOTONIC in nanoseconds.
func Now() uint64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0
	}
	return uint64(ts.Nano())
}

// samples is how many answers are remembered. The one that took the shortest time is
// the best; old ones are forgotten because the clocks drift.
const samples = 8

// clock estimates the difference of two clocks.
type clock struct {
	mu     sync.Mutex
	cookie uint64 // of the last ping
	sent   uint64 // when it was sent, ns; 0: it was answered
	n      int    // answers so far
	last   [samples]sample
}

type sample struct {
	offset int64
	rtt    uint64
}

// ping returns the ping to send, and false while one is unanswered.
func (k *clock) ping(now uint64) (Ping, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.sent != 0 {
		return Ping{}, false
	}
	k.cookie++
	k.sent = now
	return Ping{Cookie: k.cookie, Clock: now}, true
}

// pong takes an answer. One that nobody waits for is ignored.
func (k *clock) pong(g Ping, now uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.sent == 0 || g.Cookie != k.cookie {
		return
	}
	rtt := now - k.sent
	k.last[k.n%samples] = sample{offset: int64(g.Clock - (k.sent + rtt/2)), rtt: rtt}
	k.n++
	k.sent = 0
}

func (k *clock) get() (int64, time.Duration, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	best := sample{rtt: math.MaxInt64}
	for _, s := range k.last[:min(k.n, samples)] {
		if s.rtt < best.rtt {
			best = s
		}
	}
	return best.offset, time.Duration(best.rtt), k.n > 0
}

// answered reports whether every ping was answered.
func (k *clock) answered() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sent == 0
}
