//go:build amd64

// Command kvmpaint is an example of a VMM that embeds the broker's buffers: a tiny
// real-mode guest paints a gradient into a shared-memory buffer that KVM has in
// the guest's memory, and a Wayland compositor shows that same buffer.
//
//	kvmpaint -o picture.png                    writes what the guest painted
//	kvmpaint -wayland-display wayland-0        shows it until it is interrupted
package main

import (
	"context"
	"flag"
	"fmt"
	"image/png"
	"os"
	"os/signal"
	"syscall"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/wayland"
	"github.com/gpubroker/gpubroker/dmabuf"
)

func main() {
	file := flag.String("o", "", "write the picture to the PNG `FILE`")
	socket := flag.String("wayland-display", "", "show the picture in the compositor at `SOCKET`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *file, *socket)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kvmpaint:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, file, socket string) error {
	b, err := paint()
	if err != nil {
		return err
	}
	defer b.Release()
	if file != "" {
		if err := writePNG(file, b); err != nil {
			return err
		}
	}
	if socket == "" {
		return nil
	}
	sink, err := show(b, socket)
	if err != nil {
		return err
	}
	<-ctx.Done()
	sink.Drop(b)
	return sink.Close()
}

func writePNG(file string, b *dmabuf.Buffer) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := png.Encode(f, imageOf(b)); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

// show opens a window with the buffer; the caller closes the sink.
func show(b *dmabuf.Buffer, socket string) (*wayland.Sink, error) {
	sink, err := wayland.NewSink(wayland.Config{Display: socket, Title: "kvmpaint", Modes: []display.Mode{{Enabled: true, W: b.Width, H: b.Height}}})
	if err != nil {
		return nil, err
	}
	all := display.Rect{W: b.Width, H: b.Height}
	sink.Present(&display.Frame{Buffer: b, Source: all, Damage: all, Opaque: true})
	return sink, nil
}
