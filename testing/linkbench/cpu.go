package linkbench

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

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
		kids, err := children(pid)
		if err != nil {
			return 0, err
		}
		more, err := cpuTime(kids...)
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

// children returns the processes that a process' threads started.
func children(pid int) ([]int, error) {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil, err
	}
	var out []int
	for _, task := range tasks {
		list, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // the thread has ended
		}
		if err != nil {
			return nil, err
		}
		for _, f := range strings.Fields(string(list)) {
			n, err := strconv.Atoi(f)
			if err != nil {
				return nil, err
			}
			out = append(out, n)
		}
	}
	return out, nil
}
