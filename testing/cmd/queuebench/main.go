// Command queuebench measures the control queue of gpubroker beside that of QEMU's own C
// back-end, vhost-user-gpu: commands and their latency, 2D updates, start-up and memory. The
// same guest and the same display, both in this process, drive the two in turns; an echo ring
// in a process of its own and a plain copy are the limits. It also measures whether very many
// resources and contexts make gpubroker slower. It writes out/bench/queue.json and queue.txt.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/report"
)

type options struct {
	rounds int
	each   time.Duration // of one measurement
	binary string
	theirs string
	parts  parts
}

// parts says what is measured.
type parts struct{ queue, start, many bool }

func main() {
	o := options{}
	echo := flag.Bool("echo", false, "be the echo ring on descriptor 3 (used by queuebench itself)")
	flag.IntVar(&o.rounds, "rounds", 25, "`N` turns of each back-end in each measurement: short and many, because other work on the machine comes and goes")
	flag.DurationVar(&o.each, "each", 60*time.Millisecond, "`TIME` of each measurement")
	flag.StringVar(&o.binary, "bin", "", "take gpubroker's binary `FILE` instead of building it")
	flag.StringVar(&o.theirs, "theirs", "/usr/lib/qemu/vhost-user-gpu", "the C back-end, `FILE` of the lab root")
	flag.BoolVar(&o.parts.queue, "queue", true, "measure commands and updates")
	flag.BoolVar(&o.parts.start, "start", true, "measure the start and the memory")
	flag.BoolVar(&o.parts.many, "many", true, "measure with many resources and contexts")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if *echo {
		err = serveEcho(ctx)
	} else {
		err = run(ctx, o)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "queuebench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	if o.rounds < 1 || o.each <= 0 {
		return errors.New("-rounds must be 1 or more, -each longer than 0")
	}
	begun := time.Now()
	out, err := report.Part("bench")
	if err != nil {
		return err
	}
	root, err := lab.Find()
	if err != nil {
		return err
	}
	if o.binary == "" {
		dir, err := os.MkdirTemp("", "queuebench-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		o.binary = filepath.Join(dir, "gpubroker")
		if err := brokerproc.Build(ctx, o.binary); err != nil {
			return err
		}
	} else if o.binary, err = filepath.Abs(o.binary); err != nil {
		return err
	}
	l := lineup{root: root, ours: o.binary, theirs: o.theirs}
	rep := newReport(o)
	rep.Versions, _ = root.Versions() // for people; the numbers count
	for _, part := range []struct {
		on bool
		f  func(context.Context, lineup, options, *Report) error
	}{{o.parts.start, measureStart}, {o.parts.queue, measureQueue}, {o.parts.many, measureMany}} {
		if !part.on {
			continue
		}
		if err := part.f(ctx, l, o, rep); err != nil {
			return err
		}
	}
	rep.finish(time.Since(begun))
	if err := out.File("queue.json", rep); err != nil {
		return err
	}
	table, err := out.Create("queue.txt")
	if err != nil {
		return err
	}
	rep.table(table)
	if err := table.Close(); err != nil {
		return err
	}
	rep.table(os.Stdout)
	fmt.Printf("wrote %s and queue.txt\n", filepath.Join(out.Path, "queue.json"))
	return nil
}
