package supervise

import (
	"os"
	"testing"
	"time"
)

// TestDog: a thread that waits gets the limit, one that computes ten times as much, and
// whoever comes around begins anew.
func TestDog(t *testing.T) {
	const step = time.Second
	for _, c := range []struct {
		name  string
		used  func(i int) time.Duration
		beat  func(i int) uint64
		idle  bool
		looks int // until it is too long, 0: never
	}{
		{name: "waits", looks: 31},
		{name: "computes", used: func(int) time.Duration { return step }, looks: 301},
		{name: "computes on a machine with much to do", used: func(int) time.Duration { return step / 20 }, looks: 301},
		{name: "waits, and its other threads do little", used: func(int) time.Duration { return step / 100 }, looks: 31},
		{name: "computes, then waits", used: func(i int) time.Duration { return max(0, time.Duration(101-i)*step) }, looks: 100 + 21},
		{name: "comes around", beat: func(i int) uint64 { return uint64(1 + i/20) }},
		{name: "has nothing to do", idle: true},
		{name: "has not begun", beat: func(int) uint64 { return 0 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := dog{limit: 30 * time.Second, beat: 1}
			got := 0
			for i := 1; i < 1000 && got == 0; i++ {
				beat, used := uint64(1), time.Duration(0)
				if c.beat != nil {
					beat = c.beat(i)
				}
				if c.used != nil {
					used = c.used(i)
				}
				if d.look(beat, c.idle, step, used) {
					got = i
				}
			}
			if got != c.looks {
				t.Errorf("too long after %d looks, want %d", got, c.looks)
			}
		})
	}
}

// TestCPUTime: only what is computed counts.
func TestCPUTime(t *testing.T) {
	used := func() time.Duration {
		d, err := CPUTime(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	before := used()
	for end := time.Now().Add(20 * time.Second); used() < before+50*time.Millisecond; {
		if time.Now().After(end) {
			t.Fatal("computing does not count")
		}
	}
	if _, err := CPUTime(1 << 23); err == nil {
		t.Error("a process that is not there has a CPU time")
	}
}
