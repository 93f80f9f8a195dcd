// Command linkbench measures gpubroker's way for a guest's programs beside waypipe's:
// the time from commit to commit and the CPU time of a frame, over unix sockets of this
// machine. It writes out/bench/link.json and link.txt, a table.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/linkbench"
)

func main() {
	o := linkbench.Options{Log: os.Stderr}
	flag.IntVar(&o.Repetitions, "n", 5, "repeat everything `N` times")
	flag.IntVar(&o.Small, "small", 250, "frames with little damage in a measurement")
	flag.IntVar(&o.Full, "full", 100, "whole frames in a measurement")
	flag.DurationVar(&o.Pause, "pause", 4*time.Millisecond, "after each frame")
	flag.StringVar(&o.Scene, "scene", "", "measure only this `SCENE`")
	flag.StringVar(&o.Bin, "bin", "", "take gpubroker and gpubroker-guest from `DIR` instead of building them")
	out := flag.String("out", filepath.Join("out", "bench"), "`DIR` for link.json and link.txt")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, *out)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "linkbench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o linkbench.Options, out string) (err error) {
	if o.Repetitions < 1 || o.Small < 1 || o.Full < 1 {
		return errors.New("-n, -small and -full must be 1 or more")
	}
	if o.Root, err = lab.Find(); err != nil {
		return err
	}
	if o.Bin == "" {
		if o.Bin, err = os.MkdirTemp("", "linkbench-bin-"); err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(o.Bin) }()
		for _, name := range []string{"gpubroker", "gpubroker-guest"} {
			cmd := exec.CommandContext(ctx, "go", "build", "-o", o.Bin, "github.com/gpubroker/gpubroker/cmd/"+name)
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
			if text, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("build %s: %w\n%s", name, err, text)
			}
		}
	}
	rep, err := linkbench.Do(ctx, o)
	if err != nil {
		return err
	}
	rep.Finish()
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	body, err := json.MarshalIndent(rep, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "link.json"), append(body, '\n'), 0o644); err != nil {
		return err
	}
	table, err := os.Create(filepath.Join(out, "link.txt"))
	if err != nil {
		return err
	}
	if err := errors.Join(rep.Table(table), table.Close()); err != nil {
		return err
	}
	return rep.Table(os.Stdout)
}
