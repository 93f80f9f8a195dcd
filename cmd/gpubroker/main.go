// Command gpubroker is the virtio-gpu device of a virtual machine: a vhost-user
// back-end that renders with virglrenderer and shows the guest's screen in a
// Wayland compositor.
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
