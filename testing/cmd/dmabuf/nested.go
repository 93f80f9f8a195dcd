package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/report"
	"github.com/gpubroker/gpubroker/testing/westoncap"
)

// Size of the nested guest's screen, in pixels: every one of them is drawn by an
// emulated processor.
const nestedW, nestedH = 640, 480

// nestedTime bounds the nested guest, which is emulated by an emulated processor.
const nestedTime = 45 * time.Minute

// nestedReport is out/dmabuf-nested/report.json.
type nestedReport struct {
	GuestRenderer string        `json:"guest_renderer"`
	Frames        broker.Frames `json:"frames"`
	BytesCopied   uint64        `json:"bytes_copied"`
	Exports       uint64        `json:"exports"`
	Errors        uint64        `json:"errors"`
	Colours       int           `json:"colours"`          // in the screenshot
	BootSeconds   float64       `json:"boot_seconds"`     // of the nested guest
	FrameSeconds  float64       `json:"to_frame_seconds"` // from its user space to the first frames
	Seconds       float64       `json:"seconds"`          // all, the outer machine's boot included
}

// kmscube ends when its standard input can be read, so it gets one that never can.
const nestedCube = `set -e
modprobe virtio_gpu
for i in $(seq 600); do [ -e /dev/dri/card0 ] && break; sleep 0.1; done
mkfifo /tmp/nothing; sleep 100000 > /tmp/nothing &
kmscube -D /dev/dri/card0 -c 100000 < /tmp/nothing > /tmp/kmscube.log 2>&1 &
`

// runNested boots the machine that has dma-bufs, and in it a guest whose GPU is
// the broker.
func runNested(ctx context.Context) error {
	start := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, nestedTime, fmt.Errorf("not done within %v", nestedTime))
	defer cancel()
	out, err := report.NewDir("dmabuf-nested")
	if err != nil {
		return err
	}
	root, err := lab.Find()
	if err != nil {
		return err
	}
	fmt.Println("building gpubroker")
	progs, err := buildPrograms(ctx)
	if err != nil {
		return err
	}
	defer progs.remove()
	err = runVM(ctx, root, progs, out.Path, "-worker nested")
	var rep nestedReport
	if body, readErr := os.ReadFile(filepath.Join(out.Path, workerFile)); readErr == nil {
		err = errors.Join(err, json.Unmarshal(body, &rep), os.Remove(filepath.Join(out.Path, workerFile)))
	}
	rep.Seconds = time.Since(start).Seconds()
	if err := errors.Join(err, out.JSON(rep)); err != nil {
		return err
	}
	fmt.Printf("wrote %s/report.json and the screenshot beside it, %.0f s\n", out.Path, rep.Seconds)
	return nil
}

// workNested is the part of runNested inside the machine.
func workNested(ctx context.Context, binary, dir string) error {
	root, err := lab.Find()
	if err != nil {
		return err
	}
	weston, err := root.Weston(ctx, lab.WestonOptions{Renderer: "gl", W: nestedW, H: nestedH})
	if err != nil {
		return err
	}
	defer weston.Stop()
	b, err := brokerproc.Start(ctx, root, brokerproc.Options{
		Binary: binary, Env: weston.Env(), Log: os.Stdout,
		Args: []string{"--display", "wayland", "--wayland-display", weston.Socket(), "--virgl=on",
			"--size", fmt.Sprintf("%dx%d", nestedW, nestedH)},
	})
	if err != nil {
		return err
	}
	fmt.Println("booting the nested guest")
	start := time.Now()
	vm, err := root.StartVM(ctx, lab.VMConfig{
		Accel: lab.AccelTCG, MemMB: 768, SMP: 1, BootTimeout: nestedTime,
		Devices: []string{"-chardev", "socket,id=gpu,path=" + b.Socket, "-device", "vhost-user-gpu-pci,chardev=gpu"},
	})
	if err != nil {
		_, _ = b.Stop() // the guest's error counts
		return err
	}
	err = watchNested(ctx, vm, b, weston, dir, start)
	vm.Close()
	_, stopErr := b.Stop()
	return errors.Join(err, stopErr)
}

// nestedFrames is how many frames of the cube are enough.
const nestedFrames = 5

func watchNested(ctx context.Context, vm *lab.VM, b *brokerproc.Broker, weston *lab.Compositor, dir string, start time.Time) error {
	if err := vm.WaitBoot(ctx, 1); err != nil {
		return err
	}
	var rep nestedReport
	rep.BootSeconds = time.Since(start).Seconds()
	fmt.Printf("user space of the nested guest after %.0f s; starting kmscube\n", rep.BootSeconds)
	if _, err := vm.Check(ctx, nestedCube); err != nil {
		return err
	}
	var st broker.Status
	for {
		var err error
		if st, err = b.Status(); err != nil {
			return err
		}
		// Before kmscube draws, the kernel's console is on the screen.
		if st.Frames.DMABuf >= nestedFrames && st.Submits >= nestedFrames {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %+v", context.Cause(ctx), st.Frames)
		case <-time.After(time.Second):
		}
	}
	rep.FrameSeconds = time.Since(start).Seconds() - rep.BootSeconds
	fmt.Printf("%d frames as dma-bufs after another %.0f s\n", st.Frames.DMABuf, rep.FrameSeconds)
	if err := shootNested(weston, dir, &rep); err != nil {
		return err
	}
	text, err := vm.Check(ctx, "cat /tmp/kmscube.log")
	if err != nil {
		return err
	}
	if m := rendererLine.FindStringSubmatch(text); m != nil {
		rep.GuestRenderer = m[1]
	}
	rep.Frames, rep.BytesCopied, rep.Exports, rep.Errors = st.Frames, st.BytesCopied, st.Exports, st.Errors
	body, err := json.MarshalIndent(rep, "", " ")
	if err != nil {
		return err
	}
	return errors.Join(rep.verdict(), os.WriteFile(filepath.Join(dir, workerFile), body, 0o644))
}

var rendererLine = regexp.MustCompile(`(?i)renderer: +"([^"]*)"`)

func shootNested(weston *lab.Compositor, dir string, rep *nestedReport) error {
	camera, err := westoncap.Open(weston.Socket())
	if err != nil {
		return err
	}
	defer camera.Close()
	shot, err := camera.Shoot()
	if err != nil {
		return err
	}
	rep.Colours, _ = report.Colours(shot.Image())
	return report.Dir{Path: dir}.PNG("nested.png", shot.Image())
}

// verdict says what is not as it should be. The console of the nested guest is a
// 2D resource, which is copied; the cube is not.
func (r *nestedReport) verdict() error {
	var errs []error
	if !strings.Contains(strings.ToLower(r.GuestRenderer), "virgl") {
		errs = append(errs, fmt.Errorf("the nested guest rendered with %q and not with virgl", r.GuestRenderer))
	}
	if r.Colours < 50 {
		errs = append(errs, fmt.Errorf("the screenshot has %d colours: no cube", r.Colours))
	}
	if r.Errors > 0 {
		errs = append(errs, fmt.Errorf("%d commands were refused", r.Errors))
	}
	return errors.Join(errs...)
}
