// Command clients runs Wayland clients directly and through gpubroker, and
// compares what the compositors show. It writes out/clients/report.json and a
// picture of each window.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	var o options
	var only, comps string
	flag.StringVar(&only, "only", "", "comma-separated `CLIENTS`, all if empty")
	flag.StringVar(&comps, "compositors", "", "comma-separated `COMPOSITORS`, all if empty")
	flag.BoolVar(&o.imports, "import", false, "give the guest with QEMU 11.1 the device that imports its memory")
	flag.StringVar(&o.script, "script", "", "shell `COMMANDS` to run instead of the clients, to look into one")
	flag.StringVar(&o.bin, "programs", "", "`FOLDER` with gpubroker and gpubroker-guest, which are built if empty")
	flag.StringVar(&o.out, "out", "clients", "folder of the results below out/")
	flag.Usage = func() {
		fmt.Fprintf(os.Stderr, "usage: clients [flags] [unix | cross-domain | virtio-serial]...\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	o.only, o.compositors, o.transports = list(only), list(comps), flag.Args()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "\nclients:", err)
		os.Exit(1)
	}
}

func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}
