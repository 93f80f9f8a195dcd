package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gpubroker/gpubroker/broker"
)

// Report is report.json.
type Report struct {
	Passed   bool              `json:"passed"` // no test came out differently
	Versions map[string]string `json:"versions"`
	Seconds  float64           `json:"seconds"` // of all tests on both servers
	Limit    float64           `json:"limit"`   // seconds that a test may take
	Count    int               `json:"count"`
	// Reference and Gpubroker are numbers of tests and of their parts by result; Reference is
	// virgl_test_server.
	Reference Totals `json:"virgl_test_server"`
	Gpubroker Totals `json:"gpubroker"`
	// Clients that gpubroker had, and those of them that it ended for an error.
	Clients uint64 `json:"clients"`
	Ended   uint64 `json:"ended"`
	// Different are tests that came out differently twice, Flaky those that did once.
	Different []string     `json:"different"`
	Flaky     []string     `json:"flaky"`
	Tests     []TestReport `json:"tests"`

	connecting bool // every test is known to connect
}

// Totals count tests and their parts by result.
type Totals struct {
	Tests    map[string]int `json:"tests"`
	Subtests map[string]int `json:"subtests"`
	Seconds  float64        `json:"seconds"`
}

// TestReport is one test: its last run, if it was run twice.
type TestReport struct {
	Group       string   `json:"group"`
	Name        string   `json:"name"`
	Reference   Outcome  `json:"virgl_test_server"`
	Gpubroker   Outcome  `json:"gpubroker"`
	Differences []string `json:"differences,omitempty"` // of gpubroker, twice
	Flaky       []string `json:"flaky,omitempty"`       // the first time only
}

// newReport begins one. connecting says that every test that will be added draws; of the
// whole of piglit not each does.
func newReport(versions map[string]string, limit time.Duration, connecting bool) *Report {
	rep := &Report{Versions: versions, Limit: limit.Seconds(), Different: []string{}, Flaky: []string{}, connecting: connecting}
	for _, t := range []*Totals{&rep.Reference, &rep.Gpubroker} {
		*t = Totals{Tests: map[string]int{}, Subtests: map[string]int{}}
	}
	return rep
}

func (r *Report) add(t TestReport) {
	r.Tests = append(r.Tests, t)
	r.Reference.add(t.Reference)
	r.Gpubroker.add(t.Gpubroker)
	switch {
	case len(t.Differences) > 0:
		r.Different = append(r.Different, t.Name)
	case len(t.Flaky) > 0:
		r.Flaky = append(r.Flaky, t.Name)
	}
}

func (t *Totals) add(o Outcome) {
	t.Tests[o.Result]++
	for result, n := range o.Subtests {
		t.Subtests[result] += n
	}
	t.Seconds += o.Seconds
}

// finish is called last. Without a status the server is gone.
func (r *Report) finish(took time.Duration, status *broker.VtestStatus) {
	r.Count = len(r.Tests)
	r.Seconds = rounded(took.Seconds())
	r.Reference.Seconds, r.Gpubroker.Seconds = rounded(r.Reference.Seconds), rounded(r.Gpubroker.Seconds)
	if status != nil {
		r.Clients, r.Ended = status.Total, status.Ended
	}
	r.Passed = status != nil && len(r.Different) == 0 && !r.elsewhere()
}

// elsewhere says that some tests did not reach gpubroker.
func (r *Report) elsewhere() bool { return r.connecting && r.Clients < uint64(r.Count) }

func rounded(seconds float64) float64 { return math.Round(100*seconds) / 100 }

// verdict is the error of a run that did not pass.
func (r *Report) verdict() error {
	switch {
	case r.Passed:
		return nil
	case len(r.Different) > 0:
		return fmt.Errorf("%d of %d tests come out differently on gpubroker: %s", len(r.Different), r.Count, strings.Join(r.Different, ", "))
	case r.elsewhere():
		return fmt.Errorf("gpubroker had %d clients in %d tests: some drew elsewhere", r.Clients, r.Count)
	}
	return errors.New("gpubroker did not last")
}

// resultsInOrder is the order of the columns.
var resultsInOrder = []string{pass, warn, fail, skip, crash, timeout}

func (r *Report) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "\t%s\tseconds\t\n", strings.Join(resultsInOrder, "\t"))
	for _, row := range []struct {
		name   string
		counts map[string]int
		took   float64
	}{
		{"virgl_test_server", r.Reference.Tests, r.Reference.Seconds},
		{"gpubroker", r.Gpubroker.Tests, r.Gpubroker.Seconds},
		{"virgl_test_server, parts", r.Reference.Subtests, 0},
		{"gpubroker, parts", r.Gpubroker.Subtests, 0},
	} {
		fmt.Fprintf(t, "%s", row.name)
		for _, result := range resultsInOrder {
			fmt.Fprintf(t, "\t%d", row.counts[result])
		}
		if row.took > 0 {
			fmt.Fprintf(t, "\t%.0f\t\n", row.took)
		} else {
			fmt.Fprint(t, "\t\t\n")
		}
	}
	_ = t.Flush()
	for _, test := range r.Tests {
		switch {
		case len(test.Differences) > 0:
			fmt.Fprintf(w, "\nDIFFERENT  %s\n\t%s\n", test.Name, strings.Join(test.Differences, "\n\t"))
			for _, of := range []struct {
				name string
				o    Outcome
			}{{"virgl_test_server", test.Reference}, {"gpubroker", test.Gpubroker}} {
				fmt.Fprintf(w, "    %s: %s\n\t%s\n", of.name, of.o.Result, strings.ReplaceAll(tail(of.o.Output), "\n", "\n\t"))
			}
		case len(test.Flaky) > 0:
			fmt.Fprintf(w, "flaky: %s: %s; the same on both when it was run again\n", test.Name, strings.Join(test.Flaky, "; "))
		}
	}
}

// tail is the last lines of an output; report.json has more.
func tail(output string) string {
	const lines = 15
	list := strings.Split(output, "\n")
	return strings.Join(list[max(0, len(list)-lines):], "\n")
}
