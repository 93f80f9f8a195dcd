// Command guestbench runs the same OpenGL programs in the same guest on different GPUs, in
// turns within one run: gpubroker with and without blobs, and the virtio-gpu-gl of QEMU's own
// process. It writes out/bench/guest.json, with each measurement, the medians and their ratios.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/report"
)

func main() {
	o := options{}
	flag.IntVar(&o.rounds, "rounds", 3, "how many guests each GPU gets; `N` of at least 1")
	flag.IntVar(&o.seconds, "seconds", 6, "`N` seconds for each scene")
	only := flag.String("only", "", "measure these `GPUS` alone, with commas between: "+strings.Join(names(), ", "))
	flag.Parse()
	o.gpus = gpus
	if *only != "" {
		o.gpus = pick(strings.Split(*only, ","))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "guestbench:", err)
		os.Exit(1)
	}
}

type options struct {
	rounds, seconds int
	gpus            []gpu
}

func (o *options) check() error {
	if o.rounds < 1 || o.seconds < 1 {
		return fmt.Errorf("-rounds %d, -seconds %d: want at least 1", o.rounds, o.seconds)
	}
	if len(o.gpus) == 0 {
		return fmt.Errorf("-only: want some of %s", strings.Join(names(), ", "))
	}
	return nil
}

// gpu is what the guest draws with.
type gpu struct {
	name   string
	device string // of QEMU
	broker bool   // gpubroker is behind it
}

// The first is what the others are compared with.
var gpus = []gpu{
	{"classic", "vhost-user-gpu-pci", true},
	{"full", lab.GenericGPU, true},
	{"qemu", "virtio-gpu-gl-pci", false},
}

func names() (out []string) {
	for _, g := range gpus {
		out = append(out, g.name)
	}
	return out
}

func pick(want []string) (out []gpu) {
	for _, name := range want {
		for _, g := range gpus {
			if g.name == name {
				out = append(out, g)
			}
		}
	}
	return out
}

// Size of the guest's screen, in pixels.
const width, height = 1280, 800

func run(ctx context.Context, o options) error {
	if err := o.check(); err != nil {
		return err
	}
	start := time.Now()
	out, err := report.Part("bench")
	if err != nil {
		return err
	}
	root, err := lab.Find()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "gpubroker-guestbench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary := filepath.Join(dir, "gpubroker")
	if err := brokerproc.Build(ctx, binary); err != nil {
		return err
	}
	rep := reportJSON{GPUs: map[string]*result{}}
	if rep.Versions, err = root.Versions(); err != nil {
		return err
	}
	for round := range o.rounds {
		for i := range o.gpus {
			// Neither is always first, on a machine that gets warm or busy.
			g := o.gpus[(i+round)%len(o.gpus)]
			fmt.Printf("round %d of %d, %s\n", round+1, o.rounds, g.name)
			m, err := measure(ctx, root, binary, g, o.seconds)
			if err != nil {
				return fmt.Errorf("%s: %w", g.name, err)
			}
			rep.add(g.name, m)
			fmt.Printf("  OpenGL %s; frames a second: %s\n", m.version, m.fps)
		}
	}
	rep.finish(o.gpus)
	rep.Seconds = time.Since(start).Seconds()
	if err := out.File("guest.json", rep); err != nil {
		return err
	}
	fmt.Print(rep.table(o.gpus))
	fmt.Printf("wrote %s\n", filepath.Join(out.Path, "guest.json"))
	return nil
}

// measure boots a guest on a GPU and runs the programs.
func measure(ctx context.Context, root *lab.Root, binary string, g gpu, seconds int) (m measurement, err error) {
	cfg := lab.VMConfig{}
	if g.broker {
		w, err := root.Weston(ctx, lab.WestonOptions{W: width, H: height})
		if err != nil {
			return m, err
		}
		defer w.Stop()
		b, err := brokerproc.Start(ctx, root, brokerproc.Options{
			Binary: binary, Env: w.Env(), Bind: []string{w.RuntimeDir},
			Args: []string{"--display", "wayland", "--wayland-display", w.Socket(), "--virgl=on", "--size", fmt.Sprintf("%dx%d", width, height)},
		})
		if err != nil {
			return m, err
		}
		defer func() { _, _ = b.Stop() }()
		cfg.Devices = []string{"-chardev", "socket,id=gpu,path=" + b.Socket, "-device", g.device + ",chardev=gpu"}
	} else {
		x, err := root.Xvfb(ctx, width, height, nil)
		if err != nil {
			return m, err
		}
		defer x.Stop()
		cfg.Env, cfg.Display = x.Env(), "gtk,gl=on"
		cfg.Devices = []string{"-device", fmt.Sprintf("%s,xres=%d,yres=%d", g.device, width, height)}
	}
	vm, err := root.StartVM(ctx, cfg)
	if err != nil {
		return m, err
	}
	defer vm.Close()
	if err := vm.WaitBoot(ctx, 1); err != nil {
		return m, err
	}
	if m, err = programs(ctx, vm, seconds); err != nil {
		return m, err
	}
	_, err = vm.QMP(ctx, "quit", nil)
	return m, errors.Join(err, vm.Wait(ctx))
}
