package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Report is the JSON file of a make target.
type Report struct {
	OK    bool   `json:"ok"` // all steps so far
	Steps []Step `json:"steps"`
}

// Step is the outcome of one command.
type Step struct {
	Name    string  `json:"name"`
	OK      bool    `json:"ok"`
	Seconds float64 `json:"seconds"`
	// Of a go test only:
	Packages   int                `json:"packages,omitempty"` // with tests that ran
	Passed     int                `json:"passed,omitempty"`   // tests and subtests
	Failed     []string           `json:"failed,omitempty"`
	Skipped    []string           `json:"skipped,omitempty"`
	Benchmarks map[string]Metrics `json:"benchmarks,omitempty"`

	failures []failure
}

// Metrics are a benchmark's numbers by unit: "ns/op", "allocs/op".
type Metrics map[string]float64

// readReport reads a report; a missing file is an empty one.
func readReport(path string) (*Report, error) {
	report := &Report{OK: true}
	body, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return report, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(body, report); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return report, nil
}

// add appends a step and writes the report.
func (r *Report) add(path string, step Step) error {
	r.Steps = append(r.Steps, step)
	r.OK = r.OK && step.OK
	body, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(body, '\n'), 0o644)
}

func (r *Report) print(w io.Writer) {
	for _, s := range r.Steps {
		state := "ok  "
		if !s.OK {
			state = "FAIL"
		}
		fmt.Fprintf(w, "%s  %-8s %6.1f s", state, s.Name, s.Seconds)
		if s.Packages > 0 {
			fmt.Fprintf(w, "  %d packages, %d tests passed, %d failed, %d skipped",
				s.Packages, s.Passed, len(s.Failed), len(s.Skipped))
		}
		fmt.Fprintln(w)
	}
}
