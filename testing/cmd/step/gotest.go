package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// event is one line of `go test -json` (go doc test2json).
type event struct {
	Action  string
	Package string
	Test    string
	Output  string

	ImportPath string // of build-output, in Package's place
}

// withJSON adds -json to a go test command, which implies -v.
func withJSON(cmd *exec.Cmd) *exec.Cmd {
	if i := slices.Index(cmd.Args, "test"); i >= 0 {
		cmd.Args = slices.Insert(cmd.Args, i+1, "-json")
	}
	return cmd
}

// runTests runs cmd, prints what `go test -v` would, less the lines that only say
// that a test starts, and fills in the step's counts.
func (s *Step) runTests(cmd *exec.Cmd, w io.Writer) error {
	cmd.Stdout = nil
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.readEvents(out, w)
	return cmd.Wait()
}

// readEvents reads events up to the end of r; lines that are none are printed as
// they are.
func (s *Step) readEvents(r io.Reader, w io.Writer) {
	packages := map[string]bool{}
	said := tails{}
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) != nil || e.Action == "" {
				fmt.Fprint(w, line)
			} else {
				said.add(e)
				s.event(e, packages, w)
			}
		}
		if err != nil {
			break
		}
	}
	s.Packages = len(packages)
	s.failures = said.of(s.Failed)
}

func (s *Step) event(e event, packages map[string]bool, w io.Writer) {
	name := e.Package + "." + e.Test
	switch e.Action {
	case "output", "build-output":
		if !starts(e.Output) {
			fmt.Fprint(w, e.Output)
		}
		s.benchmark(e)
	case "pass":
		if e.Test != "" {
			s.Passed++
			packages[e.Package] = true
		}
	case "fail":
		if e.Test != "" {
			packages[e.Package] = true
			s.Failed = append(s.Failed, name)
		} else {
			s.Failed = append(s.Failed, e.Package)
		}
	case "skip":
		if e.Test != "" {
			packages[e.Package] = true
			s.Skipped = append(s.Skipped, name)
		}
	}
}

func starts(line string) bool {
	for _, word := range []string{"=== RUN ", "=== PAUSE ", "=== CONT ", "=== NAME "} {
		if strings.HasPrefix(line, word) {
			return true
		}
	}
	return false
}

// benchmark reads a result line: "BenchmarkX-2  100  12.5 ns/op  0 allocs/op".
// The name and the numbers may come as two events; only the numbers are looked at.
func (s *Step) benchmark(e event) {
	if !strings.HasPrefix(e.Test, "Benchmark") || !strings.Contains(e.Output, "/op") {
		return
	}
	fields := strings.Fields(e.Output)
	metrics := Metrics{}
	for i := 1; i < len(fields); i++ {
		value, err := strconv.ParseFloat(fields[i-1], 64)
		if err == nil && strings.Contains(fields[i], "/") {
			metrics[fields[i]] = value
		}
	}
	if len(metrics) == 0 {
		return
	}
	if s.Benchmarks == nil {
		s.Benchmarks = map[string]Metrics{}
	}
	s.Benchmarks[e.Package+"."+e.Test] = metrics
}
