package linkbench

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/report"
)

func TestMain(m *testing.M) { fdtest.Main(m) }

// TestDirect: every scene's frames arrive as they were drawn, and their times are
// counted.
func TestDirect(t *testing.T) {
	o := Options{Repetitions: 2, Small: 30, Full: 10, Log: os.Stderr}
	if testing.Short() {
		o.Full = 2
	}
	rep, err := Do(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	rep.Finish()
	if len(rep.Results) != 3 || len(rep.Ratios) != 0 {
		t.Fatalf("%+v", rep)
	}
	for _, r := range rep.Results {
		if r.Way != Direct || r.P50.Min <= 0 || r.P99.Median < r.P50.Median || r.P50.Max > 1e4 {
			t.Errorf("%+v", r)
		}
	}
}

// TestWrongPixels: a frame that arrives with another content is an error.
func TestWrongPixels(t *testing.T) {
	comp, err := newCompositor(t.TempDir() + "/c")
	if err != nil {
		t.Fatal(err)
	}
	c, err := connect(t.Context(), comp.path)
	if err != nil {
		t.Fatal(err)
	}
	s := scenes([][]byte{make([]byte, picture)}, 1, 1)[1]
	draw := s.draw
	s.draw = func(mem []byte, seq uint32) (x, y, w, h int) {
		x, y, w, h = draw(mem, seq)
		setPixel(mem[picture-4:], seq+1)
		return x, y, w, h
	}
	if _, err := c.show(&s, comp.frames); err == nil || !strings.Contains(err.Error(), "arrived with") {
		t.Errorf("%v", err)
	}
	c.close()
	if err := comp.close(); err != nil {
		t.Error(err)
	}
}

// TestReport: ratios are those of the same repetition, and what is worse is said.
func TestReport(t *testing.T) {
	r := newReport(&Options{Repetitions: 3})
	for i, x := range []time.Duration{1, 10, 2} {
		for way, f := range map[string]time.Duration{Ours: 2, Waypipe: 1, WaypipeFlat: 4} {
			m := sample{latency: []time.Duration{x * f * time.Millisecond}, cpu: x * time.Millisecond}
			if way == Ours && i == 1 {
				m.cpu = 5 * time.Millisecond
			}
			r.add("s", way, &m)
		}
	}
	r.Finish()
	want := map[string]Ratio{
		Waypipe:     {"s", Waypipe, report.Spread{Median: 2, Min: 2, Max: 2}, report.Spread{Median: 2, Min: 2, Max: 2}, report.Spread{Median: 1, Min: .5, Max: 1}},
		WaypipeFlat: {"s", WaypipeFlat, report.Spread{Median: .5, Min: .5, Max: .5}, report.Spread{Median: .5, Min: .5, Max: .5}, report.Spread{Median: 1, Min: .5, Max: 1}},
	}
	if len(r.Ratios) != 2 {
		t.Fatalf("%+v", r.Ratios)
	}
	for _, q := range r.Ratios {
		if q != want[q.To] {
			t.Errorf("%+v, want %+v", q, want[q.To])
		}
	}
	if len(r.Missed) != 2 {
		t.Errorf("missed %q", r.Missed)
	}
	var b bytes.Buffer
	if err := r.Table(&b); err != nil || !strings.Contains(b.String(), "2.00 (2.00–2.00)") || !strings.Contains(b.String(), "MISSED: s: p50") {
		t.Errorf("%v\n%s", err, &b)
	}
}

func TestQuantile(t *testing.T) {
	var s sample
	for i := range 100 {
		s.latency = append(s.latency, time.Duration(i))
	}
	if a, b := s.quantile(.5), s.quantile(.99); a != 50 || b != 99 {
		t.Errorf("%d, %d", a, b)
	}
}

// TestCPUTime: what a child of a child does is counted.
func TestCPUTime(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, "sh", "-c", "(while :; do :; done) & wait")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		d, err := cpuTime(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		if d > 100*time.Millisecond {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%v", d)
		}
	}
	kids := lab.Children(cmd.Process.Pid)
	if len(kids) != 1 {
		t.Fatalf("%v", kids)
	}
	child, err := os.FindProcess(kids[0])
	if err != nil {
		t.Fatal(err)
	}
	_ = child.Kill()
}
