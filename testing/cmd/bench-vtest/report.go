package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"

	"github.com/gpubroker/gpubroker/testing/lab"
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
	// Frames are not glmark2's, and not in the ratio.
	Frames SceneReport `json:"frames"`
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

type bench struct {
	rep   Report
	index map[string]int // of scenes
}

func newBench(root *lab.Root, o *options) *bench {
	b := &bench{rep: Report{Target: target, Rounds: o.rounds, Seconds: o.seconds, Size: o.size}, index: map[string]int{}}
	b.rep.Versions, _ = root.Versions() // for people; the numbers count
	return b
}

func (b *bench) add(server string, scenes []virpipe.Scene) {
	for _, s := range scenes {
		if s.Name == FramesName {
			f := &b.rep.Frames
			if f.Name == "" {
				*f = SceneReport{Name: s.Name, FPS: map[string][]float64{}, Median: map[string]float64{}}
			}
			f.FPS[server] = append(f.FPS[server], s.FPS)
			continue
		}
		i, ok := b.index[s.Name]
		if !ok {
			i = len(b.rep.Scenes)
			b.index[s.Name] = i
			b.rep.Scenes = append(b.rep.Scenes, SceneReport{Name: s.Name, FPS: map[string][]float64{}, Median: map[string]float64{}})
		}
		b.rep.Scenes[i].FPS[server] = append(b.rep.Scenes[i].FPS[server], s.FPS)
	}
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
	r.Frames.compare(ours, theirs)
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
		s.Median[name] = median(fps)
	}
	for round := range min(len(s.FPS[ours]), len(s.FPS[theirs])) {
		ratios = append(ratios, s.FPS[ours][round]/s.FPS[theirs][round])
	}
	s.Ratio, s.Low, s.High = s.Median[ours]/s.Median[theirs], slices.Min(ratios), slices.Max(ratios)
	return ratios
}

func median(list []float64) float64 {
	s := slices.Sorted(slices.Values(list))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

func (r *Report) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "gpubroker\tvirgl_test_server\tllvmpipe\tratio\tfrom\tto\t scene")
	for _, s := range append(slices.Clone(r.Scenes), r.Frames) {
		fmt.Fprintf(t, "%.1f\t%.1f\t%.1f\t%.2f\t%.2f\t%.2f\t %s\n", s.Median["gpubroker"], s.Median["virgl_test_server"], s.Median["llvmpipe"], s.Ratio, s.Low, s.High, s.Name)
	}
	fmt.Fprintf(t, "\t\t\t%.2f\t%.2f\t%.2f\t geometric mean; target %.1f, met: %v\n", r.Ratio, r.Low, r.High, r.Target, r.Met)
	_ = t.Flush()
}
