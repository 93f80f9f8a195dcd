// Command hostile sends gpubroker what no guest and no QEMU should: every case of
// package hostile, with 3D and without, then mutations of recorded traffic. It
// writes out/hostile/report.json and what ended the broker, if anything did.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/hostile"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/report"
)

func main() {
	o := hostile.Options{GL: true, Log: os.Stdout}
	host := flag.Bool("host", false, "use this machine's libraries instead of the lab root's")
	flag.StringVar(&o.Match, "match", "", "run only the cases whose name contains `TEXT`")
	flag.DurationVar(&o.Mutate, "mutate", time.Minute, "how long to mutate recorded traffic")
	flag.Uint64Var(&o.Seed, "seed", 0, "of the mutations (0: from the clock)")
	flag.StringVar(&o.Recording, "recording", "", "mutate the recording `FILE` (gpubroker serve --record) and nothing else")
	flag.BoolVar(&o.GL, "gl", true, "run the cases with 3D, too")
	record := flag.String("record", "", "record the GL program of the arguments to `FILE` (hostile -record F glmark2-es2-wayland …) and do nothing else")
	flag.BoolVar(&o.Verbose, "v", false, "name every case before it runs")
	flag.Parse()
	if o.Seed == 0 {
		o.Seed = uint64(time.Now().UnixNano())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if *record != "" {
		err = recordProgram(ctx, *record)
	} else {
		err = run(ctx, o, *host)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "\nhostile:", err)
		os.Exit(1)
	}
}

// recordProgram is how the files of testing/hostile/testdata came to be.
func recordProgram(ctx context.Context, file string) error {
	root, err := lab.Find()
	if err != nil {
		return err
	}
	return hostile.RecordFile(ctx, root, file, 3<<20, 2*time.Minute, flag.Args()...)
}

func run(ctx context.Context, o hostile.Options, host bool) error {
	dir, err := report.NewDir("hostile")
	if err != nil {
		return err
	}
	o.Root = hostile.HostRoot()
	if !host {
		if o.Root, err = lab.Find(); err != nil {
			return err
		}
	}
	tmp, err := os.MkdirTemp("", "hostile-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	o.Dir, o.Binary = dir.Path, filepath.Join(tmp, "gpubroker")
	if err := brokerproc.Build(ctx, o.Binary); err != nil {
		return err
	}
	rep, err := hostile.Run(ctx, o)
	if err != nil {
		return err
	}
	if err := dir.JSON(rep); err != nil {
		return err
	}
	fmt.Printf("%d cases (%d different): %d answered, %d VMs dropped, %d known; %d broker exits, %d hangs, %d descriptors leaked (%.0f s)\n",
		rep.Cases, rep.Different, rep.Answered, rep.VMDropped, len(rep.Known), rep.BrokerExits, rep.Hangs, rep.LeakedFDs, rep.Seconds)
	return rep.Verdict()
}
