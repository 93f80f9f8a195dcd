package guests_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// footprint is what the broker's process holds.
type footprint struct {
	fds       int
	imports   int64 // buffers that the display knows
	resources int
	contexts  int
	anonKiB   int // memory of its own; the guest's, which it maps, does not count
}

func (f footprint) String() string {
	return fmt.Sprintf("%d descriptors, %d imports, %d resources, %d contexts, %.1f MiB of memory",
		f.fds, f.imports, f.resources, f.contexts, float64(f.anonKiB)/1024)
}

// footprint measures now.
func (r *rig) footprint() footprint {
	r.Helper()
	st := r.status()
	fds := 0
	for range 3 { // the question for the status has a connection of its own for a moment
		time.Sleep(10 * time.Millisecond)
		n, err := r.broker.OpenFDs()
		if err != nil {
			r.Fatal(err)
		}
		if fds == 0 || n < fds {
			fds = n
		}
	}
	return footprint{fds, st.ImportsLive, len(st.Resources), len(st.Contexts), r.memory()}
}

// memory is what the process has for itself, in KiB.
func (r *rig) memory() (kib int) {
	r.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.broker.PID()))
	if err != nil {
		r.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if n, _ := fmt.Sscanf(line, "RssAnon: %d kB", &kib); n == 1 {
			return kib
		}
	}
	r.Fatal("no RssAnon in /proc/PID/status")
	return 0
}

// settlesAt waits until the broker holds no more than before; memory is not counted
// here.
func (r *rig) settlesAt(t *testing.T, when string, want footprint) {
	t.Helper()
	var got footprint
	eventually(t, 10*time.Second, "after "+when+" the broker holds no more than before", func() bool {
		got = r.footprint()
		return got.fds <= want.fds && got.imports <= want.imports && got.resources <= want.resources && got.contexts <= want.contexts
	}, func() string { return fmt.Sprintf("it holds %v, before %v", got, want) })
}

// growth limits what the process may gain over the second half of a loop, in KiB:
// less than a screen, 3 MiB, in each round. In the first half the heaps of Mesa and
// of the Go runtime find their size.
const growth = 12 << 10

func (r *rig) checkGrowth(t *testing.T, what string, before, after footprint) {
	t.Helper()
	t.Logf("%s: before %v, after %v", what, before, after)
	if after.anonKiB-before.anonKiB > growth {
		t.Errorf("%s: memory grew by %d MiB, limit %d", what, (after.anonKiB-before.anonKiB)>>10, growth>>10)
	}
}
