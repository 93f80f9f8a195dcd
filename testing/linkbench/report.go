package linkbench

import (
	"fmt"
	"io"
	"runtime"
	"text/tabwriter"

	"github.com/gpubroker/gpubroker/testing/report"
)

// Result is one scene over one way.
type Result struct {
	Scene string        `json:"scene"`
	Way   string        `json:"way"`
	P50   report.Spread `json:"p50_ms"`       // from the client's commit to the compositor's
	P99   report.Spread `json:"p99_ms"`       // likewise
	CPU   report.Spread `json:"cpu_ms_frame"` // of both ends' processes
}

// Ratio compares two ways, repetition by repetition: below 1 gpubroker is better.
type Ratio struct {
	Scene string        `json:"scene"`
	To    string        `json:"gpubroker_to"`
	P50   report.Spread `json:"p50"`
	P99   report.Spread `json:"p99"`
	CPU   report.Spread `json:"cpu"`
}

// Report is out/bench/link.json.
type Report struct {
	CPUs        int      `json:"cpus"`
	Repetitions int      `json:"repetitions"`
	Small       int      `json:"frames_small"`
	Full        int      `json:"frames_full"`
	PauseMS     float64  `json:"pause_ms"`
	Results     []Result `json:"results"`
	Ratios      []Ratio  `json:"ratios"`
	// Missed says where gpubroker is worse than waypipe as it comes, by the median.
	Missed []string `json:"missed"`

	series map[[2]string]*series
	order  [][2]string
}

// series is what was measured, a number for each repetition.
type series struct{ p50, p99, cpu []float64 }

func newReport(o *Options) *Report {
	return &Report{CPUs: runtime.NumCPU(), Repetitions: o.Repetitions, Small: o.Small, Full: o.Full, PauseMS: ms(o.Pause),
		series: map[[2]string]*series{}}
}

func (r *Report) add(scene, way string, s *sample) {
	key := [2]string{scene, way}
	if r.series[key] == nil {
		r.series[key] = &series{}
		r.order = append(r.order, key)
	}
	x := r.series[key]
	x.p50 = append(x.p50, ms(s.quantile(.5)))
	x.p99 = append(x.p99, ms(s.quantile(.99)))
	x.cpu = append(x.cpu, ms(s.cpu))
}

// Finish computes what the measurements say.
func (r *Report) Finish() {
	r.Results, r.Ratios, r.Missed = nil, nil, []string{}
	for _, key := range r.order {
		x := r.series[key]
		r.Results = append(r.Results, Result{key[0], key[1], report.NewSpread(x.p50), report.NewSpread(x.p99), report.NewSpread(x.cpu)})
		ours := r.series[[2]string{key[0], Ours}]
		if ours == nil || key[1] != Waypipe && key[1] != WaypipeFlat {
			continue
		}
		q := Ratio{key[0], key[1], ratio(ours.p50, x.p50), ratio(ours.p99, x.p99), ratio(ours.cpu, x.cpu)}
		r.Ratios = append(r.Ratios, q)
		if key[1] != Waypipe {
			continue
		}
		for _, m := range []struct {
			what string
			v    report.Spread
		}{{"p50", q.P50}, {"p99", q.P99}, {"CPU", q.CPU}} {
			if m.v.Median > 1 {
				r.Missed = append(r.Missed, fmt.Sprintf("%s: %s is %.2f of waypipe's", key[0], m.what, m.v.Median))
			}
		}
	}
}

func ratio(a, b []float64) report.Spread {
	var q []float64
	for i := range min(len(a), len(b)) {
		q = append(q, a[i]/b[i])
	}
	return report.NewSpread(q)
}

// Table writes the report for people.
func (r *Report) Table(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%d repetitions, median (least–most); milliseconds; %d CPUs\n\n", r.Repetitions, r.CPUs)
	fmt.Fprintln(t, "frame\tover\tcommit to commit, p50\tp99\tCPU a frame")
	for _, x := range r.Results {
		cpu := x.CPU.String()
		if x.Way == Direct {
			cpu = "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%v\t%v\t%s\n", x.Scene, x.Way, x.P50, x.P99, cpu)
	}
	fmt.Fprintln(t, "\ngpubroker to …, below 1 is better\t\tp50\tp99\tCPU")
	for _, x := range r.Ratios {
		fmt.Fprintf(t, "%s\t%s\t%v\t%v\t%v\n", x.Scene, x.To, x.P50, x.P99, x.CPU)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, m := range r.Missed {
		if _, err := fmt.Fprintln(w, "MISSED:", m); err != nil {
			return err
		}
	}
	return nil
}
