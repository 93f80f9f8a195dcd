package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestReadEvents(t *testing.T) {
	in := strings.Join([]string{
		`{"Action":"start","Package":"m/a"}`,
		`{"Action":"run","Package":"m/a","Test":"TestX"}`,
		`{"Action":"output","Package":"m/a","Test":"TestX","Output":"=== RUN   TestX\n"}`,
		`{"Action":"output","Package":"m/a","Test":"TestX","Output":"--- PASS: TestX (0.00s)\n"}`,
		`{"Action":"pass","Package":"m/a","Test":"TestX"}`,
		`{"Action":"skip","Package":"m/a","Test":"TestY"}`,
		`{"Action":"output","Package":"m/a","Test":"BenchmarkZ","Output":"BenchmarkZ-2   \t"}`,
		`{"Action":"output","Package":"m/a","Test":"BenchmarkZ","Output":"     100\t        12.5 ns/op\t       0 B/op\t       3 allocs/op\n"}`,
		`{"Action":"pass","Package":"m/a"}`,
		`{"Action":"fail","Package":"m/b","Test":"TestV"}`,
		`{"Action":"fail","Package":"m/b"}`,
		`{"Action":"skip","Package":"m/empty"}`,
		`not an event`,
	}, "\n")
	var step Step
	var out strings.Builder
	step.readEvents(strings.NewReader(in), &out)
	want := Step{
		Packages: 2, Passed: 1,
		Failed:     []string{"m/b.TestV", "m/b"},
		Skipped:    []string{"m/a.TestY"},
		Benchmarks: map[string]Metrics{"m/a.BenchmarkZ": {"ns/op": 12.5, "B/op": 0, "allocs/op": 3}},
	}
	if d := cmp.Diff(want, step, cmpopts.IgnoreUnexported(Step{})); d != "" {
		t.Error(d)
	}
	if got := out.String(); !strings.HasPrefix(got, "--- PASS: TestX") || !strings.HasSuffix(got, "not an event") {
		t.Errorf("printed %q", got)
	}
}

// What failed is said again at the end, once: by the innermost test.
func TestFailuresLast(t *testing.T) {
	var in []string
	for i := range headLines + tailLines + 3 {
		in = append(in, fmt.Sprintf(`{"Action":"output","Package":"m/a","Test":"TestX/sub","Output":"line %d\n"}`, i))
	}
	in = append(in,
		`{"Action":"output","Package":"m/a","Test":"TestFine","Output":"fine\n"}`,
		`{"Action":"pass","Package":"m/a","Test":"TestFine"}`,
		`{"Action":"fail","Package":"m/a","Test":"TestX/sub"}`,
		`{"Action":"output","Package":"m/a","Test":"TestX","Output":"--- FAIL: TestX (0.00s)\n"}`,
		`{"Action":"fail","Package":"m/a","Test":"TestX"}`,
		`{"Action":"output","Package":"m/a","Output":"FAIL\n"}`,
		`{"Action":"fail","Package":"m/a"}`,
		`{"Action":"output","Package":"m","Output":"left open: 3 descriptors\n"}`,
		`{"Action":"fail","Package":"m"}`,
		`{"ImportPath":"m/c [m/c.test]","Action":"build-output","Output":"c.go:1: undefined: x\n"}`,
		`{"Action":"fail","Package":"m/c"}`,
	)
	var step Step
	step.readEvents(strings.NewReader(strings.Join(in, "\n")), io.Discard)
	var out strings.Builder
	printFailures(&out, step.failures)
	want := "== failed: m/a.TestX/sub\n"
	for i := range headLines + tailLines + 3 {
		if i < headLines || i >= headLines+3 {
			want += fmt.Sprintf("    line %d\n", i)
		}
	}
	want += "== failed: m\n    left open: 3 descriptors\n== failed: m/c\n    c.go:1: undefined: x\n"
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Error(d)
	}
}

func TestReportKeepsFailures(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out", "report.json")
	for _, tc := range []struct {
		argv []string
		code int
		ok   bool
	}{
		{[]string{"first", "--", "true"}, 0, true},
		{[]string{"second", "--", "sh", "-c", "exit 3"}, 3, false},
		{[]string{"third", "--", "true"}, 0, false},
	} {
		code, err := run(io.Discard, path, false, false, tc.argv)
		if err != nil || code != tc.code {
			t.Errorf("%v: code %d, %v, want %d", tc.argv, code, err, tc.code)
		}
		report, err := readReport(path)
		if err != nil || report.OK != tc.ok {
			t.Errorf("after %v: ok %v, %v, want %v", tc.argv, report.OK, err, tc.ok)
		}
	}
	if _, err := run(io.Discard, path, false, false, []string{"x", "--", "/no/such/program"}); err == nil {
		t.Error("a missing program gave no error")
	}
	body, err := os.ReadFile(path)
	if err != nil || strings.Count(string(body), `"name"`) != 4 {
		t.Errorf("report %s, %v", body, err)
	}
}
