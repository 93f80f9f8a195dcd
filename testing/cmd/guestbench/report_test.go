package main

import (
	"testing"

	"github.com/gpubroker/gpubroker/testing/report"
)

func TestRatios(t *testing.T) {
	order := []gpu{{name: "a"}, {name: "b"}}
	r := reportJSON{GPUs: map[string]*result{}}
	for _, fps := range []float64{30, 10, 20} {
		r.add("a", measurement{fps: rates{"cube": fps}})
	}
	for _, fps := range []float64{30, 50} {
		r.add("b", measurement{fps: rates{"cube": fps}})
	}
	r.finish(order)
	if got := r.Ratios["b"]["cube"]; got != 2 {
		t.Errorf("ratio %v, want 2: the medians are %v and %v", got, r.GPUs["a"].Spread, r.GPUs["b"].Spread)
	}
	if got, want := r.GPUs["a"].Spread["cube"], (report.Spread{Median: 20, Min: 10, Max: 30}); got != want {
		t.Errorf("spread %v, want %v", got, want)
	}
}
