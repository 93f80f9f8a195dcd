// Command demo shows the main job end to end: a Debian guest in QEMU uses
// gpubroker as its GPU, draws with OpenGL, and its frames appear in a Wayland
// compositor. It writes out/demo/screenshot.png and out/demo/report.json. With
// -mode=full the guest gets everything that QEMU 11.1 can pass on, blobs too, and
// the results go to out/demo-full. With -mode=apps the guest has no display server:
// three of its programs have windows of their own on the host, and the results go to
// out/demo-apps.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/gpubroker/gpubroker/testing/clients"
)

func main() {
	mode := flag.String("mode", modeClassic, "`MODE` of the GPU, classic or full, or apps: windows of the guest's programs")
	var o appsOptions
	flag.StringVar(&o.transport, "transport", clients.CrossDomain, "for -mode=apps, `HOW` the windows reach the host: cross-domain or virtio-serial")
	flag.StringVar(&o.host, "host", "", "for -mode=apps: vm runs it all inside a machine that has dma-bufs, for many minutes (`HOST`)")
	flag.StringVar(&o.programs, "programs", "", "for -mode=apps, `FOLDER` with gpubroker and gpubroker-guest, which are built if empty")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if *mode == modeApps {
		err = demoApps(ctx, o)
	} else {
		err = demo(ctx, *mode)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}
