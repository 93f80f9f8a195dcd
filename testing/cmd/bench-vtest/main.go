// Command bench-vtest compares gpubroker with virglrenderer's virgl_test_server: glmark2
// with Mesa's virpipe driver draws the same scenes over both, turn by turn. It writes
// out/bench/vtest.json.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/virpipe"
)

type options struct {
	rounds   int
	seconds  float64
	scenes   string
	size     string
	baseline bool
	glmark   bool
	out      string
}

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 3, "`N` turns of each server")
	flag.Float64Var(&o.seconds, "seconds", 2, "`S` of each scene in each turn")
	flag.StringVar(&o.scenes, "scenes", "build:use-vbo=false,build:use-vbo=true,texture,shading,bump,effect2d,desktop,buffer", "glmark2's `SCENES`, with commas")
	flag.StringVar(&o.size, "size", "800x600", "of the window, `WxH`")
	flag.BoolVar(&o.baseline, "direct", true, "also draw without a server, as the limit")
	flag.BoolVar(&o.glmark, "glmark2", true, "with glmark2")
	flag.StringVar(&o.out, "out", filepath.Join("out", "bench", "vtest.json"), "`FILE` of the report")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, &o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "\nbench-vtest:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o *options) (err error) {
	root, err := lab.Find()
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "bench-vtest-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	binary := filepath.Join(tmp, "gpubroker")
	if err := brokerproc.Build(ctx, binary); err != nil {
		return err
	}
	program := filepath.Join(tmp, "gldraw")
	if err := virpipe.BuildGldraw(ctx, program); err != nil {
		return err
	}
	ours, err := virpipe.Gpubroker(ctx, root, binary)
	if err != nil {
		return err
	}
	defer func() { _ = ours.Stop() }()
	theirs, err := virpipe.Reference(ctx, root)
	if err != nil {
		return err
	}
	defer func() { _ = theirs.Stop() }()
	servers := []*virpipe.Server{ours, theirs}
	if o.baseline {
		servers = append(servers, virpipe.Direct())
	}
	var args []string
	for _, s := range strings.Split(o.scenes, ",") {
		args = append(args, "-b", s+":duration="+fmt.Sprint(o.seconds))
	}
	args = append(args, "--size", o.size, "--swap-mode", "immediate")
	draw := func(*virpipe.Server) ([]virpipe.Scene, error) { return nil, nil }
	if o.glmark {
		weston, err := root.Weston(ctx, lab.WestonOptions{})
		if err != nil {
			return err
		}
		defer weston.Stop()
		draw = func(s *virpipe.Server) ([]virpipe.Scene, error) {
			out, err := virpipe.Glmark(ctx, root, s, weston, args...)
			if err != nil {
				return nil, err
			}
			if got := strings.Contains(out, "GL_RENDERER:    virgl"); got == (s.Socket == "") {
				return nil, fmt.Errorf("%s: glmark2 drew with another renderer:\n%s", s.Name, out)
			}
			return virpipe.ParseGlmark(out)
		}
	}
	b := newBench(root, o)
	for round := range o.rounds {
		for i := range servers {
			s := servers[(round+i)%len(servers)] // nobody is always first
			fmt.Printf("round %d of %d: %s\n", round+1, o.rounds, s.Name)
			scenes, err := draw(s)
			if err != nil {
				return err
			}
			b.add(s.Name, scenes)
			starts, fps, err := virpipe.Gldraw(ctx, root, s, program, int(o.seconds*3000))
			if err != nil {
				return err
			}
			b.addSmall(s.Name, virpipe.Scene{Name: "gldraw's first frame, start-up included (1/s)", FPS: starts})
			b.addSmall(s.Name, virpipe.Scene{Name: "gldraw's frames of 60x36, every pixel looked at", FPS: fps})
			if s.Socket == "" {
				continue
			}
			small, err := frames(s, o.seconds)
			if err != nil {
				return fmt.Errorf("%s: %w", s.Name, err)
			}
			b.addSmall(s.Name, small)
		}
	}
	rep := b.report(ours.Name, theirs.Name)
	rep.print(os.Stdout)
	body, err := json.MarshalIndent(rep, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(o.out), 0o755); err != nil {
		return err
	}
	return os.WriteFile(o.out, append(body, '\n'), 0o644)
}
