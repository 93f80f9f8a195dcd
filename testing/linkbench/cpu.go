package linkbench

import (
	"fmt"
	"time"

	"github.com/gpubroker/gpubroker/testing/lab"
	"golang.org/x/sys/unix"
)

// cpuTime returns the CPU time, user's and system's, that processes have used, with
// all that they started and that still run.
func cpuTime(roots ...int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range roots {
		t, err := clockOf(pid)
		if err != nil {
			return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
		}
		sum += t
		more, err := cpuTime(lab.Children(pid)...)
		if err != nil {
			return 0, err
		}
		sum += more
	}
	return sum, nil
}

// clockOf reads a process' CPU clock, which counts threads that have ended, too, in
// nanoseconds.
func clockOf(pid int) (time.Duration, error) {
	const sched = 2 // CPUCLOCK_SCHED, of linux/posix-timers.h
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|sched), &t); err != nil {
		return 0, err
	}
	return time.Duration(t.Nano()), nil
}
