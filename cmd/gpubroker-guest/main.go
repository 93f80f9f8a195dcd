// Command gpubroker-guest runs inside a virtual machine and shows the windows of its
// Wayland programs on the host's desktop: it is a Wayland display that passes what
// its clients say on to gpubroker on the host.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
