// Command demo shows the main job end to end: a Debian guest in QEMU uses
// gpubroker as its GPU, draws with OpenGL, and its frames appear in a Wayland
// compositor. It writes out/demo/screenshot.png and out/demo/report.json.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := demo(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}
