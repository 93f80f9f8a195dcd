// Command soak makes and drops a million resources, a hundred thousand fences and
// ten thousand contexts through the fake guest, kills a compositor two hundred times
// under a guest that flips, kills the worker and the compositor two hundred times each
// under a real guest that runs kmscube, and compares what gpubroker holds before and
// after. It writes out/soak/report.json.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/hostile"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/report"
	"github.com/gpubroker/gpubroker/testing/soak"
)

func main() {
	o := soak.Options{Log: os.Stdout}
	host := flag.Bool("host", false, "use this machine's libraries instead of the lab root's, a fake compositor and no real guest")
	scale := flag.Float64("scale", 1, "do `FACTOR` times as much")
	flag.BoolVar(&o.GL, "gl", true, "with virgl")
	flag.Uint64Var(&o.Seed, "seed", 1, "of the times of the kills")
	flag.Parse()
	times := func(n int) int { return int(float64(n) * *scale) }
	o.Resources, o.Fences, o.Contexts, o.Kills = times(1000000), times(100000), times(10000), times(200)
	o.Weston = !*host
	if o.Weston {
		o.GuestKills = times(200)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, *host)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "\nsoak:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o soak.Options, host bool) error {
	dir, err := report.NewDir("soak")
	if err != nil {
		return err
	}
	o.Root = hostile.HostRoot()
	if !host {
		if o.Root, err = lab.Find(); err != nil {
			return err
		}
	}
	tmp, err := os.MkdirTemp("", "soak-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	o.Binary = filepath.Join(tmp, "gpubroker")
	if err := brokerproc.Build(ctx, o.Binary); err != nil {
		return err
	}
	rep, err := soak.Do(ctx, o)
	if werr := dir.JSON(rep); err == nil {
		err = werr
	}
	if err != nil {
		return err
	}
	return rep.Verdict()
}
