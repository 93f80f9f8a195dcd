// Command dmabuf shows that frames travel as real dma-bufs: inside a virtual
// machine whose kernel has them it runs weston, gpubroker and a fake guest, and
// compares weston's picture with what the guest drew, pixel for pixel. The same
// cases then run on this machine, which may have no dma-bufs: the pixels have to be
// the same. It writes out/dmabuf/report.json and the screenshots.
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
	nested := flag.Bool("nested", false, "boot a guest inside the virtual machine instead, with kmscube and a weston")
	nestedAccel := flag.String("nested-accel", "", "accelerator of the nested guest: kvm, tcg, or empty for what is there")
	worker := flag.String("worker", "", "run the cases of a `HOST` (vm or plain), or nested, here; used by the command itself")
	binary := flag.String("gpubroker", "", "`FILE` of gpubroker, for -worker")
	dir := flag.String("dir", "", "`FOLDER` for the results, for -worker")
	only := flag.String("only", "", "run only the stages and cases whose names contain `TEXT`: STAGE or STAGE/CASE")
	hosts := flag.String("hosts", "vm,plain", "`HOSTS` to run on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	switch {
	case *worker == "nested":
		err = workNested(ctx, *nestedAccel, *binary, *dir)
	case *worker != "":
		err = work(ctx, *worker, *binary, *dir, *only)
	case *nested:
		err = runNested(ctx, *nestedAccel)
	default:
		err = run(ctx, *hosts, *only)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "\ndmabuf:", err)
		os.Exit(1)
	}
}
