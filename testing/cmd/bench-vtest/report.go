package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"

	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/report"
	"github.com/gpubroker/gpubroker/testing/virpipe"
)

// target is the ratio that is asked for.
const target = 1.1

// Report is vtest.json. Numbers are frames per second; a ratio is gpubroker's median by
// virgl_test_server's, Low and High the smallest and largest of the rounds'.
type Report struct {
	Target   float64           `json:"target"`
	Met      bool              `json:"met"` // Ratio reaches Target
	Ratio    float64           `json:"ratio"`
	Low      float64           `json:"low"`
	High     float64           `json:"high"`
	Rounds   int               `json:"rounds"`
	Seconds  float64           `json:"seconds"` // of each scene in each round
	Size     string            `json:"size"`
	Versions map[string]string `json:"versions"`
	Scenes   []SceneReport     `json:"scenes"`
	// Small are frames with few pixels: what lies between a program and the renderer. They
	// are not glmark2's, and not in the ratio.
	Small []SceneReport `json:"small"`
}

// SceneReport is one scene.
type SceneReport struct {
	Name   string               `json:"name"`
	FPS    map[string][]float64 `json:"fps"`    // by server, each round's
	Median map[string]float64   `json:"median"` // by server
	Ratio  float64              `json:"ratio"`
	Low    float64              `json:"low"`
	High   float64              `json:"high"`
}

type bench struct{ rep Report }

func newBench(root *lab.Root, o *options) *bench {
	b := &bench{rep: Report{Target: target, Rounds: o.rounds, Seconds: o.seconds, Size: o.size}}
	b.rep.Versions, _ = root.Versions() // for people; the numbers count
	return b
}

func (b *bench) add(server string, scenes []virpipe.Scene) {
	for _, s := range scenes {
		b.rep.Scenes = note(b.rep.Scenes, server, s)
	}
}

func (b *bench) addSmall(server string, s virpipe.Scene) { b.rep.Small = note(b.rep.Small, server, s) }

func note(list []SceneReport, server string, s virpipe.Scene) []SceneReport {
	i := slices.IndexFunc(list, func(r SceneReport) bool { return r.Name == s.Name })
	if i < 0 {
		i = len(list)
		list = append(list, SceneReport{Name: s.Name, FPS: map[string][]float64{}, Median: map[string]float64{}})
	}
	list[i].FPS[server] = append(list[i].FPS[server], s.FPS)
	return list
}

// report compares: the whole is the geometric mean over the scenes.
func (b *bench) report(ours, theirs string) *Report {
	r := &b.rep
	logs := make([]float64, r.Rounds)
	whole := 0.0
	for i := range r.Scenes {
		for round, q := range r.Scenes[i].compare(ours, theirs) {
			logs[round] += math.Log(q)
		}
		whole += math.Log(r.Scenes[i].Ratio)
	}
	for i := range r.Small {
		r.Small[i].compare(ours, theirs)
	}
	n := float64(len(r.Scenes))
	if n == 0 {
		return r
	}
	r.Ratio, r.Low, r.High = math.Exp(whole/n), math.Exp(slices.Min(logs)/n), math.Exp(slices.Max(logs)/n)
	r.Met = r.Ratio >= r.Target
	return r
}

// compare fills in the medians and ratios, and returns those of each round.
func (s *SceneReport) compare(ours, theirs string) (ratios []float64) {
	for name, fps := range s.FPS {
		s.Median[name] = report.NewSpread(fps).Median
	}
	for round := range min(len(s.FPS[ours]), len(s.FPS[theirs])) {
		ratios = append(ratios, s.FPS[ours][round]/s.FPS[theirs][round])
	}
	s.Ratio, s.Low, s.High = s.Median[ours]/s.Median[theirs], slices.Min(ratios), slices.Max(ratios)
	return ratios
}

func (r *Report) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "gpubroker\tvirgl_test_server\tllvmpipe\tratio\tfrom\tto\t scene")
	for _, s := range slices.Concat(r.Scenes, r.Small) {
		fmt.Fprintf(t, "%.1f\t%.1f\t%.1f\t%.2f\t%.2f\t%.2f\t %s\n", s.Median["gpubroker"], s.Median["virgl_test_server"], s.Median["llvmpipe"], s.Ratio, s.Low, s.High, s.Name)
	}
	fmt.Fprintf(t, "\t\t\t%.2f\t%.2f\t%.2f\t geometric mean; target %.1f, met: %v\n", r.Ratio, r.Low, r.High, r.Target, r.Met)
	_ = t.Flush()
}
