// Package fdtest ends a test run with exit code 99 when a dmabuf.FD, an open
// descriptor of the process or a goroutine is left over.
//
//	func TestMain(m *testing.M) { fdtest.Main(m) }
package fdtest

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// Main runs the tests, then looks for leaks. Options go to goleak, for
// goroutines that a library keeps for ever.
func Main(m *testing.M, opts ...goleak.Option) {
	var lost atomic.Int64
	dmabuf.OnLeak(func(report string) {
		lost.Add(1)
		fmt.Fprintln(os.Stderr, "leaked:", report)
	})
	dmabuf.Trace(true)
	code := m.Run()
	if code == 0 {
		code = check(&lost, opts)
	}
	os.Exit(code)
}

func check(lost *atomic.Int64, opts []goleak.Option) int {
	for range 3 { // finalizers and clean-ups run a cycle late
		runtime.GC()
		time.Sleep(5 * time.Millisecond)
	}
	code := 0
	if open := dmabuf.OpenFDs(); len(open) > 0 {
		fmt.Fprintf(os.Stderr, "%d descriptors left open at the end of the run:\n%s\n", len(open), strings.Join(open, "\n"))
		code = 99
	}
	if lost.Load() > 0 {
		code = 99
	}
	if err := goleak.Find(opts...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 99
	}
	return code
}

// Count returns how many descriptors the process has open now, whoever made
// them. Tests of long loops compare it before and after.
func Count(t testing.TB) int {
	t.Helper()
	ents, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatalf("count descriptors: %v", err)
	}
	return len(ents) - 1 // the one that reads the folder
}
