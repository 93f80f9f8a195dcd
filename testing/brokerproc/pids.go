package brokerproc

import (
	"fmt"
	"os"
	"strings"

	"github.com/gpubroker/gpubroker/testing/lab"
)

// name is what the kernel calls the program's processes.
const name = "gpubroker"

// Program returns the process that was started, as seen from here: the supervisor, if
// there is one. 0 once it ended.
func (b *Broker) Program() int {
	pid := b.cmd.Process.Pid
	for { // bubblewrap stands between us and the program
		if called(pid, name) {
			return pid
		}
		kids := lab.Children(pid)
		if len(kids) == 0 {
			return 0
		}
		pid = kids[0]
	}
}

// Worker returns the process id of a supervised broker's worker, as seen from here
// (its status says what it sees itself); 0 while there is none.
func (b *Broker) Worker() int {
	pid := b.Program()
	if pid == 0 {
		return 0
	}
	for _, kid := range lab.Children(pid) {
		if called(kid, name) {
			return kid
		}
	}
	return 0
}

// PID returns the process that serves the guest, as seen from here: the worker, or the
// program itself without a supervisor; 0 once it ended.
func (b *Broker) PID() int {
	if pid := b.Worker(); pid != 0 {
		return pid
	}
	return b.Program()
}

// OpenFDs counts the descriptors of its processes.
func (b *Broker) OpenFDs() (int, error) {
	sum, err := OpenFDs(b.Program())
	if worker := b.Worker(); err == nil && worker != 0 {
		var n int
		n, err = OpenFDs(worker)
		sum += n
	}
	return sum, err
}

// OpenFDs counts the descriptors of a process.
func OpenFDs(pid int) (int, error) {
	ents, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return 0, fmt.Errorf("count gpubroker's descriptors: %w", err)
	}
	return len(ents), nil
}

func called(pid int, name string) bool {
	comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)) // it may have ended
	return strings.TrimSpace(string(comm)) == name
}
