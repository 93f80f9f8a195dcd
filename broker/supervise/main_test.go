package supervise_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/keep"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
	"github.com/gpubroker/gpubroker/virgl"
	"github.com/gpubroker/gpubroker/virgl/virgltest"
)

// TestMain is a worker when a supervisor of a test runs this binary.
func TestMain(m *testing.M) {
	if control := os.Getenv("GPUBROKER_TEST_WORKER"); control != "" {
		if err := work(control); err != nil {
			fmt.Fprintln(os.Stderr, "worker:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	fdtest.Main(m)
}

// What the first word of a command stream makes the worker's renderer do.
const (
	streamDraw  = 0
	streamCrash = 0xdead // as a driver does that follows a wild pointer
	streamHang  = 0xb10c // draw without end
)

// work is a worker with a renderer that can be killed by a stream.
func work(control string) error {
	w, err := keep.Adopt(dmabuf.NewFD(3, "supervisor"))
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		<-w.Gone()
		stop()
		time.Sleep(5 * time.Second)
		os.Exit(3)
	}()
	log := zap.NewNop()
	if os.Getenv("GPUBROKER_TEST_LOG") != "" {
		log, _ = zap.NewDevelopment()
	}
	s, err := broker.NewServer(broker.Config{
		Keep: w, Control: control, Display: "headless", Heads: 2, Mode: display.Mode{Enabled: true, W: 640, H: 480}, HostMem: windowSize, Log: log,
		InputSocket: "by the supervisor",
		Renderer: func(onFence virgl.Fences) (virgl.Renderer, error) {
			return virgltest.New(virgltest.Config{OnFence: onFence, OnSubmit: func(_ *virgltest.Fake, _ uint32, cmds []byte) error {
				switch binary.LittleEndian.Uint32(cmds) {
				case streamCrash:
					signal.Reset(syscall.SIGSEGV)
					_ = unix.Kill(os.Getpid(), unix.SIGKILL) // nothing of Go's runs any more
					select {}
				case streamHang:
					select {}
				}
				return nil
			}})
		},
	})
	if err != nil {
		return err
	}
	err = s.Run(ctx)
	s.Close()
	return err
}
