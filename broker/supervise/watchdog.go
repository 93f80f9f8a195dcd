package supervise

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// A software renderer that draws for long looks like a GPU that hangs, but for the
// time that it computes. So a command that computes has computeFactor times as long.
const (
	computeFactor = 10
	computeShare  = 20 // it computes if it used the processor for one part in this many
)

// watch kills the worker if its render thread does not come around.
func (s *Supervisor) watch(w *worker, stop <-chan struct{}) {
	if s.cfg.Watchdog <= 0 {
		return
	}
	period := max(s.cfg.Watchdog/8, 10*time.Millisecond)
	tick := time.NewTicker(period)
	defer tick.Stop()
	d := dog{limit: s.cfg.Watchdog, beat: s.page.Doing().Beat}
	at, used := time.Now(), time.Duration(0)
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		// Whoever stopped this process (a debugger, a freezer) has stopped the worker, too.
		passed := min(time.Since(at), 2*period)
		at = time.Now()
		before := used
		used, _ = CPUTime(w.cmd.Process.Pid) // a worker that is gone computes nothing
		now := s.page.Doing()
		if d.look(now.Beat, now.Idle, passed, used-before) {
			w.hung.Store(true)
			_ = w.cmd.Process.Kill()
			return
		}
	}
}

// dog adds up for how long a render thread has not come around.
type dog struct {
	limit time.Duration
	beat  uint64
	stuck time.Duration // with a part only of the time in which it computed
}

// look hears what the thread did while time passed, of which the process computed for
// used, and reports whether that was too long.
func (d *dog) look(beat uint64, idle bool, passed, used time.Duration) bool {
	if idle || beat != d.beat || beat == 0 {
		d.beat, d.stuck = beat, 0
		return false
	}
	if used >= passed/computeShare {
		passed /= computeFactor
	}
	d.stuck += passed
	return d.stuck > d.limit
}

// CPUTime is what a process, all its threads, has computed, in user and kernel mode,
// those threads included that have ended.
func CPUTime(pid int) (time.Duration, error) {
	const sched = 2 // CPUCLOCK_SCHED, of linux/posix-timers.h
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|sched), &t); err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}
