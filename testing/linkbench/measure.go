package linkbench

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/gpubroker/gpubroker/testing/lab"
)

// Options say what to measure.
type Options struct {
	Root        *lab.Root     // has waypipe; nil to do without
	Bin         string        // folder of gpubroker and gpubroker-guest; empty to do without
	Repetitions int           // of everything, the ways by turns
	Small, Full int           // frames of a measurement
	Pause       time.Duration // after each frame
	Scene       string        // only this; empty for all
	Log         io.Writer
}

// Names of the ways. Direct is a client of the compositor's own: what the others add to.
const (
	Direct      = "direct"
	Ours        = "gpubroker"
	Waypipe     = "waypipe"      // as it comes: lz4
	WaypipeFlat = "waypipe none" // without compression
)

// Do measures. What was measured before an error is in the report.
func Do(ctx context.Context, o Options) (*Report, error) {
	rep := newReport(&o)
	dir, err := os.MkdirTemp("", "linkbench-")
	if err != nil {
		return rep, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	comp, err := newCompositor(filepath.Join(dir, "compositor"))
	if err != nil {
		return rep, err
	}
	ways := []*way{{name: Direct, display: comp.path}}
	defer func() {
		for _, w := range ways {
			w.stop()
		}
		if cerr := comp.close(); cerr != nil {
			fmt.Fprintln(o.Log, cerr)
		}
	}()
	for _, open := range o.ways(comp.path) {
		sub, err := os.MkdirTemp(dir, "way-")
		if err != nil {
			return rep, err
		}
		w, err := open(ctx, sub)
		ways = append(ways, w)
		if err != nil {
			return rep, err
		}
	}
	noise := make([][]byte, 5)
	src := rand.NewChaCha8([32]byte{1})
	for i := range noise {
		noise[i] = make([]byte, picture)
		_, _ = src.Read(noise[i])
	}
	for r := range o.Repetitions {
		for _, s := range scenes(noise, o.Small, o.Full) {
			if o.Scene != "" && o.Scene != s.name {
				continue
			}
			for i := range ways {
				w := ways[(i+r)%len(ways)]
				m, err := w.measure(ctx, comp, &s, o.Pause)
				if err != nil {
					return rep, fmt.Errorf("%s, %s: %w%s", w.name, s.name, err, w.said())
				}
				rep.add(s.name, w.name, &m)
				fmt.Fprintf(o.Log, "%d/%d %-20s %-13s p50 %8.3f ms  p99 %8.3f ms  CPU %8.3f ms\n", r+1, o.Repetitions, s.name, w.name,
					ms(m.quantile(.5)), ms(m.quantile(.99)), ms(m.cpu))
			}
		}
	}
	return rep, nil
}

func (o *Options) ways(compositor string) (out []func(context.Context, string) (*way, error)) {
	if o.Bin != "" {
		out = append(out, func(ctx context.Context, dir string) (*way, error) { return gpubroker(ctx, dir, o.Bin, compositor) })
	}
	if o.Root != nil {
		out = append(out, func(ctx context.Context, dir string) (*way, error) {
			return waypipe(ctx, o.Root, Waypipe, dir, compositor)
		}, func(ctx context.Context, dir string) (*way, error) {
			return waypipe(ctx, o.Root, WaypipeFlat, dir, compositor, "--compress", "none")
		})
	}
	return out
}

// measure has a client of its own.
func (w *way) measure(ctx context.Context, comp *compositor, s *scene, pause time.Duration) (sample, error) {
	c, err := connect(ctx, w.display)
	if err != nil {
		return sample{}, err
	}
	defer c.close()
	return c.measure(ctx, s, comp.frames, pause, w.cpu)
}

// said is what the programs wrote.
func (w *way) said() (text string) {
	for _, p := range w.procs {
		text += "\n" + p.text()
	}
	return text
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
