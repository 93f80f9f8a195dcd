// Command blobs shows that blob resources work from a real guest to the screen: a
// program in the guest makes, maps, draws and shows each kind of blob, and a
// compositor's screenshot is compared with what it drew, pixel for pixel. Then it
// makes and drops thousands of them, with resets between, and looks for what was
// left behind. In a virtual machine that has dma-bufs a fake guest shows that the
// best tiers copy nothing. It writes out/blobs/report.json and the screenshots.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	o := options{}
	flag.StringVar(&o.only, "only", "", "run only the `PARTS`: some of 2d,3d,cycles,reset,weston,vm")
	flag.IntVar(&o.cycles, "cycles", 10000, "blobs that the guest makes, maps and drops")
	flag.IntVar(&o.resetCycles, "reset-cycles", 1000, "the same with resets thrown in")
	flag.StringVar(&o.worker, "worker", "", "run the fake guest's cases here, with gpubroker `FILE`; used by the command itself")
	flag.StringVar(&o.dir, "dir", "", "`FOLDER` for the results of -worker")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if o.worker != "" {
		err = work(ctx, o.worker, o.dir)
	} else {
		err = run(ctx, o)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "\nblobs:", err)
		os.Exit(1)
	}
}
