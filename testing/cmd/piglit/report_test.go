package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker"
)

func TestVerdict(t *testing.T) {
	ok, bad := Outcome{Result: pass, Subtests: map[string]int{pass: 3}}, Outcome{Result: fail, Output: "Probe at (3,4)"}
	same := TestReport{Name: "same", Reference: ok, Gpubroker: ok}
	both := TestReport{Name: "both", Reference: bad, Gpubroker: bad}
	flaky := TestReport{Name: "flaky", Reference: ok, Gpubroker: ok, Flaky: []string{"fail, not pass"}}
	other := TestReport{Name: "other", Reference: ok, Gpubroker: bad, Differences: []string{"fail, not pass"}}
	status := func(clients uint64) *broker.VtestStatus {
		s := &broker.VtestStatus{}
		s.Total = clients
		return s
	}
	for _, c := range []struct {
		name       string
		tests      []TestReport
		status     *broker.VtestStatus
		connecting bool
		verdict    string // a part of it; empty: it passed
		printed    []string
	}{
		{name: "alike", tests: []TestReport{same, both}, status: status(2), connecting: true},
		{name: "flaky", tests: []TestReport{flaky, same}, status: status(3), connecting: true, printed: []string{"flaky: flaky: fail, not pass"}},
		{name: "different", tests: []TestReport{same, other}, status: status(3), connecting: true,
			verdict: "1 of 2 tests come out differently on gpubroker: other", printed: []string{"DIFFERENT  other", "Probe at (3,4)"}},
		{name: "drawn elsewhere", tests: []TestReport{same, same}, status: status(1), connecting: true, verdict: "1 clients in 2 tests"},
		{name: "a list of one's own", tests: []TestReport{same, same}, status: status(1)},
		{name: "server gone", tests: []TestReport{same}, verdict: "did not last"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newReport(nil, time.Second, c.connecting)
			for _, test := range c.tests {
				r.add(test)
			}
			r.finish(time.Second, c.status)
			err := r.verdict()
			if r.Passed != (c.verdict == "") || (err == nil) != r.Passed || err != nil && !strings.Contains(err.Error(), c.verdict) {
				t.Errorf("passed %v, %v; want %q", r.Passed, err, c.verdict)
			}
			var out strings.Builder
			r.print(&out)
			for _, part := range c.printed {
				if !strings.Contains(out.String(), part) {
					t.Errorf("%q is not in\n%s", part, &out)
				}
			}
		})
	}
	r := newReport(nil, time.Second, true)
	for _, test := range []TestReport{same, other, both, flaky} {
		r.add(test)
	}
	if r.Reference.Tests[pass] != 3 || r.Gpubroker.Tests[pass] != 2 || r.Gpubroker.Tests[fail] != 2 || r.Gpubroker.Subtests[pass] != 6 ||
		!slices.Equal(r.Different, []string{"other"}) || !slices.Equal(r.Flaky, []string{"flaky"}) {
		t.Errorf("%+v", r)
	}
}
