// Command demo shows the main job end to end: a Debian guest in QEMU uses
// gpubroker as its GPU, draws with OpenGL, and its frames appear in a Wayland
// compositor. It writes out/demo/screenshot.png and out/demo/report.json. With
// -mode=full the guest gets everything that QEMU 11.1 can pass on, blobs too, and
// the results go to out/demo-full.
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
	mode := flag.String("mode", modeClassic, "`MODE` of the GPU: classic or full")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := demo(ctx, *mode)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}
