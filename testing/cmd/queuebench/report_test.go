package main

import (
	"strings"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/testing/report"
)

func TestRatios(t *testing.T) {
	r := newReport(options{rounds: 3})
	for _, v := range []float64{200, 300, 100} {
		r.goal("queue", "commands/s", ours, v, 1)
	}
	for _, v := range []float64{100, 100, 100} {
		r.goal("queue", "commands/s", theirs, v)
		r.goal("queue, latency", "µs", theirs, v)
	}
	for _, v := range []float64{50, 100, 100} {
		r.goal("queue, latency", "µs", ours, v)
		r.add("memory", "MiB", ours, v)
		r.add("memory", "MiB", theirs, v)
	}
	r.finish(time.Second)
	for i, want := range []struct {
		spread report.Spread
		met    bool
	}{{report.Spread{Median: 2, Min: 1, Max: 3}, true}, {report.Spread{Median: 1, Min: 1, Max: 2}, false}} {
		got := r.Measures[i].Ratios
		if len(got) != 1 || got[0].Spread != want.spread || got[0].Met != want.met || got[0].Target != targetTheirs {
			t.Errorf("%s: %+v, want %+v", r.Measures[i].Name, got, want)
		}
	}
	if q := r.Measures[2].Ratios; len(q) != 1 || q[0].Target != 0 {
		t.Errorf("memory has a target: %+v", q)
	}
	if r.Met != 1 || r.Missed != 1 {
		t.Errorf("%d targets met and %d missed, want one each", r.Met, r.Missed)
	}
	var b strings.Builder
	r.table(&b)
	for _, want := range []string{"of vhost-user-gpu, met 2.0", "of vhost-user-gpu, MISSED 2.0", "targets met: 1, missed: 1", "MiB"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

func TestMiddle(t *testing.T) {
	for _, c := range []struct {
		v    []float64
		want [2]float64
	}{{[]float64{7}, [2]float64{7, 7}}, {[]float64{4, 1, 3, 2}, [2]float64{2, 3}}, {[]float64{9, 1, 2, 3, 4}, [2]float64{2, 4}}} {
		if got := middle(c.v); got != c.want {
			t.Errorf("%v: %v, want %v", c.v, got, c.want)
		}
	}
}

func TestQuantile(t *testing.T) {
	times := make([]time.Duration, 100)
	for i := range times {
		times[i] = time.Duration(i)
	}
	if p50, p99, all := quantile(times, 0.5), quantile(times, 0.99), quantile(times, 1); p50 != 50 || p99 != 99 || all != 99 {
		t.Errorf("p50 %d, p99 %d, all %d", p50, p99, all)
	}
}

func TestMemory(t *testing.T) {
	got := parseMemory("Name:\tx\nVmRSS:\t  600 kB\nRssAnon:\t 100 kB\nRssFile:\t 200 kB\nRssShmem:\t 300 kB\n")
	if want := (Memory{600, 100, 200, 300}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
