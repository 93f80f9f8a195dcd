package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gpubroker/gpubroker/testing/report"
)

// The ratios that are asked for.
const (
	targetTheirs = 2.0 // times the C back-end
	targetLimit  = 0.8 // of the echo ring, and of the copy
	targetFlat   = 0.9 // with many things, of what it is with few
)

// Report is queue.json.
type Report struct {
	Rounds  int     `json:"rounds"`
	Each    float64 `json:"each_seconds"` // of one measurement
	Seconds float64 `json:"seconds"`
	// Load is the machine's load average before and after: the bench itself makes about 2.
	Load     [2]string         `json:"load"`
	Versions map[string]string `json:"versions"`
	Measures []*Measure        `json:"measures"`
	// Skipped is what could not be compared, and why.
	Skipped map[string]string `json:"skipped,omitempty"`
	Met     int               `json:"targets_met"`
	Missed  int               `json:"targets_missed"`
}

// Measure is one number of each who took part.
type Measure struct {
	Name   string                   `json:"name"`
	Unit   string                   `json:"unit"`
	Values map[string][]float64     `json:"values"` // each round's
	Spread map[string]report.Spread `json:"spread"`
	CPU    map[string][]float64     `json:"cpu_us,omitempty"` // of the back-end, for each command or frame
	Ratios []Ratio                  `json:"ratios,omitempty"`

	goals bool // it has targets
}

// Ratio says how many times better Of is than By, over the rounds. A latency is better when
// it is smaller.
type Ratio struct {
	Of     string        `json:"of"`
	By     string        `json:"by"`
	Spread report.Spread `json:"spread"`
	Middle [2]float64    `json:"middle_half"` // a quarter of the rounds is below, a quarter above
	Target float64       `json:"target,omitempty"`
	Met    bool          `json:"met,omitempty"` // the median reaches Target
}

func newReport(o options) *Report {
	return &Report{Load: [2]string{load(), ""}, Rounds: o.rounds, Each: o.each.Seconds(), Skipped: map[string]string{}}
}

func (r *Report) skip(what, why string) {
	r.Skipped[what] = why
	fmt.Printf("left out: %s: %s\n", what, why)
}

// add notes a number without a target.
func (r *Report) add(name, unit, who string, value float64) { r.note(name, unit, who, value) }

// goal notes a number with targets, and perhaps the CPU time of each.
func (r *Report) goal(name, unit, who string, value float64, cpu ...float64) {
	m := r.note(name, unit, who, value)
	m.goals = true
	for _, c := range cpu {
		if m.CPU == nil {
			m.CPU = map[string][]float64{}
		}
		m.CPU[who] = append(m.CPU[who], c)
	}
}

func (r *Report) note(name, unit, who string, value float64) *Measure {
	i := slices.IndexFunc(r.Measures, func(m *Measure) bool { return m.Name == name && m.Unit == unit })
	if i < 0 {
		i = len(r.Measures)
		r.Measures = append(r.Measures, &Measure{Name: name, Unit: unit, Values: map[string][]float64{}, Spread: map[string]report.Spread{}})
	}
	m := r.Measures[i]
	m.Values[who] = append(m.Values[who], value)
	return m
}

// pairs are who is compared with whom.
var pairs = []struct {
	of, by string
	target float64
}{
	{ours, theirs, targetTheirs}, {ours, echo, targetLimit}, {headless, echo, targetLimit},
	{many, few, targetFlat}, {each, few, 0},
}

// finish fills in what follows from the numbers.
func (r *Report) finish(took time.Duration) {
	r.Seconds, r.Load[1] = took.Seconds(), load()
	for _, m := range r.Measures {
		for who, v := range m.Values {
			m.Spread[who] = report.NewSpread(v)
		}
		for _, p := range pairs {
			of, by := m.Values[p.of], m.Values[p.by]
			n := min(len(of), len(by))
			if n == 0 {
				continue
			}
			q := make([]float64, n)
			for i := range q {
				q[i] = of[i] / by[i]
				if m.smaller() {
					q[i] = by[i] / of[i]
				}
			}
			ratio := Ratio{Of: p.of, By: p.by, Spread: report.NewSpread(q), Middle: middle(q)}
			if m.goals && p.target > 0 {
				ratio.Target = p.target
				ratio.Met = ratio.Spread.Median >= p.target
				if ratio.Met {
					r.Met++
				} else {
					r.Missed++
				}
			}
			m.Ratios = append(m.Ratios, ratio)
		}
	}
}

// smaller reports whether less is better.
func (m *Measure) smaller() bool { return !strings.HasSuffix(m.Unit, "/s") }

// tables are what stands beside each other.
var tables = []struct {
	title   string
	columns []string
	units   []string
}{
	{"commands and updates", []string{ours, theirs, headless, echo}, []string{"commands/s", "µs", "MB/s"}},
	{"start and memory", []string{ours, theirs, withGL, nothing}, []string{"ms", "MiB"}},
	{"with 10000 resources and 64 contexts", []string{few, many, each}, []string{"commands/s", "µs", "MiB"}},
}

func (r *Report) table(w io.Writer) {
	for _, t := range tables {
		var rows []*Measure
		for _, m := range r.Measures {
			if slices.Contains(t.units, m.Unit) && slices.ContainsFunc(t.columns, func(who string) bool { return m.Values[who] != nil }) {
				rows = append(rows, m)
			}
		}
		if len(rows) == 0 {
			continue
		}
		tw := tabwriter.NewWriter(w, 1, 8, 2, ' ', 0)
		fmt.Fprintf(tw, "%s\t\t%s\tratio (middle half)\n", t.title, strings.Join(t.columns, "\t"))
		for _, m := range rows {
			fmt.Fprintf(tw, "%s\t%s\t", m.Name, m.Unit)
			for _, who := range t.columns {
				cell := ""
				if m.Values[who] != nil {
					cell = number(m.Spread[who].Median)
				}
				fmt.Fprintf(tw, "%s\t", cell)
			}
			var q []string
			for _, ratio := range m.Ratios {
				q = append(q, ratio.String())
			}
			fmt.Fprintln(tw, strings.Join(q, "; "))
			if m.CPU == nil {
				continue
			}
			fmt.Fprintf(tw, "  CPU time of the back-end for each\tµs\t")
			for _, who := range t.columns {
				cell := ""
				if m.CPU[who] != nil {
					cell = number(report.NewSpread(m.CPU[who]).Median)
				}
				fmt.Fprintf(tw, "%s\t", cell)
			}
			fmt.Fprintln(tw)
		}
		_ = tw.Flush()
		fmt.Fprintln(w)
	}
	for what, why := range r.Skipped {
		fmt.Fprintf(w, "left out: %s: %s\n", what, why)
	}
	fmt.Fprintf(w, "medians of %d rounds; targets met: %d, missed: %d (%.0f s, load average %s to %s)\n",
		r.Rounds, r.Met, r.Missed, r.Seconds, r.Load[0], r.Load[1])
}

func (q Ratio) String() string {
	s := fmt.Sprintf("×%.2f (%.2f–%.2f) of %s", q.Spread.Median, q.Middle[0], q.Middle[1], q.By)
	switch {
	case q.Target == 0:
		return s
	case q.Met:
		return s + fmt.Sprintf(", met %.1f", q.Target)
	default:
		return s + fmt.Sprintf(", MISSED %.1f", q.Target)
	}
}

// load is the load average of the last minute.
func load() string {
	text, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

// middle is where the middle half of the numbers, at least one, begins and ends.
func middle(v []float64) [2]float64 {
	s := slices.Sorted(slices.Values(v))
	return [2]float64{s[len(s)/4], s[len(s)-1-len(s)/4]}
}

// number writes three digits that count.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}
