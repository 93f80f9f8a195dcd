// Command smoke runs gpubroker smoke on this machine and inside a virtual machine that
// has dma-bufs, each with a compositor, and compares the outcomes with what is known of
// them: here frames can only be shared memory, there they are dma-bufs. It writes
// out/smoke/{plain,vm}.{txt,json} and out/smoke/report.json.
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
	worker := flag.String("worker", "", "run gpubroker, the `FILE`, here; used by the command itself")
	dir := flag.String("dir", "", "`FOLDER` for the result, for -worker")
	hosts := flag.String("hosts", "plain,vm", "`HOSTS` to run on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if *worker != "" {
		err = work(ctx, *worker, *dir)
	} else {
		err = run(ctx, *hosts)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "\nsmoke:", err)
		os.Exit(1)
	}
}
