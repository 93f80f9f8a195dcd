package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gpubroker/gpubroker/testing/report"
)

// reportJSON is out/bench/guest.json.
type reportJSON struct {
	GPUs     map[string]*result            `json:"gpus"`
	Ratios   map[string]map[string]float64 `json:"ratios"` // medians against those of the first GPU, by GPU and program
	Seconds  float64                       `json:"seconds"`
	Versions map[string]string             `json:"versions"`
}

// result is what the guests of one GPU saw.
type result struct {
	Renderer string                   `json:"renderer"`
	Version  string                   `json:"gl_version"`
	FPS      map[string][]float64     `json:"fps"` // of each round, by program
	Spread   map[string]report.Spread `json:"spread"`
}

func (r *reportJSON) add(name string, m measurement) {
	g := r.GPUs[name]
	if g == nil {
		g = &result{FPS: map[string][]float64{}, Spread: map[string]report.Spread{}}
		r.GPUs[name] = g
	}
	g.Renderer, g.Version = m.renderer, m.version
	for program, fps := range m.fps {
		g.FPS[program] = append(g.FPS[program], fps)
	}
}

// finish fills in what follows from the measurements.
func (r *reportJSON) finish(order []gpu) {
	for _, g := range r.GPUs {
		for program, all := range g.FPS {
			g.Spread[program] = report.NewSpread(all)
		}
	}
	r.Ratios = map[string]map[string]float64{}
	first := r.GPUs[order[0].name]
	for _, g := range order[1:] {
		r.Ratios[g.name] = map[string]float64{}
		for program, fps := range r.GPUs[g.name].Spread {
			r.Ratios[g.name][program] = fps.Median / first.Spread[program].Median
		}
	}
}

func (r *reportJSON) table(order []gpu) string {
	var b strings.Builder
	programs := slices.Sorted(maps.Keys(r.GPUs[order[0].name].Spread))
	wide := 0
	for _, program := range programs {
		wide = max(wide, len(program))
	}
	fmt.Fprintf(&b, "%-*s", wide, "fps")
	for _, g := range order {
		fmt.Fprintf(&b, "  %28s", g.name)
	}
	b.WriteByte('\n')
	for _, program := range programs {
		fmt.Fprintf(&b, "%-*s", wide, program)
		for i, g := range order {
			res := r.GPUs[g.name]
			cell := res.Spread[program].String()
			if i > 0 {
				cell += fmt.Sprintf(" ×%.2f", r.Ratios[g.name][program])
			}
			fmt.Fprintf(&b, "  %28s", cell)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
