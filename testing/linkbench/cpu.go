package linkbench

import (
	"time"

	"github.com/gpubroker/gpubroker/broker/supervise"
	"github.com/gpubroker/gpubroker/testing/lab"
)

// cpuTime returns the CPU time, user's and system's, that processes have used, with
// all that they started and that still run.
func cpuTime(roots ...int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range roots {
		t, err := supervise.CPUTime(pid)
		if err != nil {
			return 0, err
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
