package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Children lists the processes that the process' threads have started and that have
// not ended. A process that has ended itself has none.
func Children(pid int) (out []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // the pattern is right
	for _, list := range lists {
		kids, _ := os.ReadFile(list) // a thread that ended has none
		for _, kid := range strings.Fields(string(kids)) {
			if n, err := strconv.Atoi(kid); err == nil {
				out = append(out, n)
			}
		}
	}
	return out
}
