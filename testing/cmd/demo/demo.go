package main

import (
	"context"
	"errors"
	"fmt"
	"image"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/report"
)

// Size of the guest's screen and of the compositor's output, in pixels.
const (
	width  = 1280
	height = 800
)

// reportJSON is out/demo/report.json.
type reportJSON struct {
	GuestRenderer string            `json:"guest_renderer"`
	GLVersion     string            `json:"gl_version"` // of the core profile
	Features      string            `json:"features"`   // what the guest's kernel says
	Compositor    string            `json:"compositor"`
	Accelerator   string            `json:"accelerator"`
	Frames        broker.Frames     `json:"frames"`
	BytesCopied   uint64            `json:"bytes_copied"`
	Commands      uint64            `json:"commands"`
	Errors        uint64            `json:"errors"`
	RingErrors    uint64            `json:"ring_errors"`
	FlushToCommit broker.Latency    `json:"flush_to_commit_us"`
	KmscubeFrames uint64            `json:"kmscube_frames"`
	Glmark2       map[string]int    `json:"glmark2_fps"`
	Seconds       float64           `json:"seconds"`
	Versions      map[string]string `json:"versions"`
}

var kmscube = `set -e
modprobe virtio_gpu
for i in $(seq 100); do [ -e /dev/dri/card0 ] && break; sleep 0.1; done
` + lab.StartKmscube("/dev/dri/card0")

// gpu is the device that a mode gives the guest.
type gpu struct {
	dir      string // below out
	device   string // of QEMU
	features []string
}

// The modes.
const (
	modeClassic = "classic"
	modeFull    = "full"
)

var gpus = map[string]gpu{
	modeClassic: {"demo", "vhost-user-gpu-pci", []string{"+virgl", "+edid"}},
	modeFull: {"demo-full", lab.GenericGPU,
		[]string{"+virgl", "+edid", "+resource_blob", "+host_visible", "+context_init"}},
}

// verdict says which features the guest's kernel did not find.
func (g gpu) verdict(features string) error {
	for _, f := range g.features {
		if !strings.Contains(features, f) {
			return fmt.Errorf("the guest's kernel did not find %s: %s", f, features)
		}
	}
	return nil
}

// glmark2 finds its device through udev, and by default draws with alpha, which
// the primary plane of virtio-gpu does not take.
const glmark = `cd /tmp
/lib/systemd/systemd-udevd --daemon; udevadm trigger; udevadm settle
glmark2-es2-drm --size 800x600 --visual-config red=8:green=8:blue=8:alpha=0:buffer=24 \
	-b build:duration=4:use-vbo=true -b texture:duration=4 2>&1
`

func demo(ctx context.Context, mode string) (err error) {
	start := time.Now()
	steps := report.NewSteps(os.Stdout, 7)
	gpu, ok := gpus[mode]
	if !ok {
		return fmt.Errorf("mode %q: want %s, %s or %s", mode, modeClassic, modeFull, modeApps)
	}
	out, err := report.NewDir(gpu.dir)
	if err != nil {
		return err
	}
	steps.Step("Finding the lab root and building gpubroker")
	root, err := lab.Find()
	if err != nil {
		return err
	}
	bin, err := os.MkdirTemp("", "gpubroker-demo-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(bin) }()
	if err := brokerproc.Build(ctx, filepath.Join(bin, "gpubroker")); err != nil {
		return err
	}
	rep := reportJSON{Glmark2: map[string]int{}}
	if rep.Versions, err = root.Versions(); err != nil {
		return err
	}

	steps.Step("Finding a compositor")
	comp, err := findCompositor(ctx, root)
	if err != nil {
		return err
	}
	defer comp.stop()
	rep.Compositor = comp.name
	steps.Note("%s", comp.name)

	steps.Step("Starting gpubroker serve --display wayland")
	logFile, err := out.Create("gpubroker.log")
	if err != nil {
		return err
	}
	defer func() { _ = logFile.Close() }()
	b, err := brokerproc.Start(ctx, root, brokerproc.Options{
		Binary: filepath.Join(bin, "gpubroker"), Log: logFile, Env: comp.env, Bind: comp.bind,
		Args: []string{"--display", "wayland", "--wayland-display", comp.socket, "--virgl=on",
			"--size", fmt.Sprintf("%dx%d", width, height), "--title", "gpubroker demo"},
	})
	if err != nil {
		return err
	}
	stopped := false
	defer func() {
		if !stopped {
			_, _ = b.Stop() // an earlier error is being returned
		}
	}()

	steps.Step("Booting a Debian guest in QEMU")
	vm, err := root.StartVM(ctx, lab.VMConfig{Devices: []string{
		"-chardev", "socket,id=gpu,path=" + b.Socket, "-device", gpu.device + ",chardev=gpu",
	}})
	if err != nil {
		return err
	}
	defer vm.Close()
	if err := vm.WaitBoot(ctx, 1); err != nil {
		return err
	}
	rep.Accelerator = vm.Config.Accel
	steps.Note("the guest is up (accelerator: %s)", rep.Accelerator)

	steps.Step("Running kmscube in the guest")
	if _, err := vm.Check(ctx, kmscube); err != nil {
		return err
	}
	shot, frames, err := watchCube(ctx, vm, b, comp)
	if shot != nil {
		err = errors.Join(err, out.PNG("screenshot.png", shot))
	}
	if err != nil {
		return err
	}
	rep.KmscubeFrames = frames
	text, err := vm.Check(ctx, lab.StopKmscube+"cat "+lab.KmscubeLog)
	if err != nil {
		return err
	}
	if rep.GuestRenderer = rendererOf(text); rep.GuestRenderer == "" {
		return fmt.Errorf("kmscube did not say what it renders with:\n%s", text)
	}
	if err := ask(ctx, vm, &rep); err != nil {
		return err
	}
	steps.Note("GL_RENDERER %s", rep.GuestRenderer)
	steps.Note("OpenGL %s; kernel: %s", rep.GLVersion, rep.Features)
	steps.Note("%d frames, screenshot in %s", frames, filepath.Join(out.Path, "screenshot.png"))

	steps.Step("Running glmark2-es2-drm in the guest")
	if text, err = vm.Check(ctx, glmark); err != nil {
		return err
	}
	for _, m := range glmarkLine.FindAllStringSubmatch(text, -1) {
		rep.Glmark2[m[1]], _ = strconv.Atoi(m[2]) // the pattern matches digits only
		steps.Note("%s: %s FPS", m[1], m[2])
	}
	if len(rep.Glmark2) != 2 {
		return fmt.Errorf("glmark2 did not finish both scenes:\n%s", text)
	}

	steps.Step("Stopping, and writing the report")
	if _, err := vm.QMP(ctx, "quit", nil); err != nil {
		return err
	}
	if err := vm.Wait(ctx); err != nil {
		return err
	}
	st, err := b.Status()
	if err != nil {
		return err
	}
	stopped = true
	summary, err := b.Stop()
	if err != nil {
		return err
	}
	rep.Frames, rep.BytesCopied, rep.Commands, rep.Errors = st.Frames, st.BytesCopied, st.Commands, st.Errors
	rep.RingErrors, rep.FlushToCommit = st.RingErrors, st.FlushToCommit
	rep.Versions["gpubroker"] = st.Version
	rep.Seconds = time.Since(start).Seconds()
	if err := out.JSON(rep); err != nil {
		return err
	}
	steps.Note("%s", summary)
	steps.Done("Wrote %s/report.json", out.Path)
	return errors.Join(verdict(&rep), gpu.verdict(rep.Features))
}

// ask finds out what the guest thinks of its GPU.
func ask(ctx context.Context, vm *lab.VM, rep *reportJSON) error {
	text, err := vm.Check(ctx, `dmesg | sed -n 's/.*\[drm\] features: //p' | tr '\n' ' '`)
	if err != nil {
		return err
	}
	rep.Features = strings.TrimSpace(text)
	text, err = vm.Check(ctx, "eglinfo -B -p surfaceless 2>/dev/null | sed -n 's/^OpenGL core profile version: //p'")
	rep.GLVersion = strings.TrimSpace(text)
	return err
}

// minGLVersion is the core profile that virgl gives a guest, with blobs and without.
const minGLVersion = "4.3"

// verdict says what in the report is not as it should be.
func verdict(rep *reportJSON) error {
	var errs []error
	if !strings.Contains(strings.ToLower(rep.GuestRenderer), "virgl") {
		errs = append(errs, fmt.Errorf("the guest rendered with %q and not with virgl", rep.GuestRenderer))
	}
	if rep.Errors+rep.RingErrors > 0 {
		errs = append(errs, fmt.Errorf("%d commands failed and %d ring errors; see gpubroker.log beside the report", rep.Errors, rep.RingErrors))
	}
	// With blobs a guest may not have less than without.
	if rep.GLVersion < minGLVersion {
		errs = append(errs, fmt.Errorf("the guest has OpenGL %q, want %s or later", rep.GLVersion, minGLVersion))
	}
	if rep.Frames.DMABuf+rep.Frames.Shm == 0 {
		errs = append(errs, errors.New("no frame reached the compositor"))
	}
	return errors.Join(errs...)
}

var (
	rendererLine = regexp.MustCompile(`(?i)renderer: +"([^"]*)"`)
	glmarkLine   = regexp.MustCompile(`\[(\w+)\].*FPS: (\d+)`)
)

func rendererOf(text string) string {
	if m := rendererLine.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}

// watchCube waits until the cube turns in the compositor, and takes its picture.
func watchCube(ctx context.Context, vm *lab.VM, b *brokerproc.Broker, comp *compositor) (image.Image, uint64, error) {
	before, err := b.Status()
	if err != nil {
		return nil, 0, err
	}
	end := time.Now().Add(40 * time.Second)
	for {
		st, err := b.Status()
		if err != nil {
			return nil, 0, err
		}
		frames := st.Frames.DMABuf + st.Frames.Shm - before.Frames.DMABuf - before.Frames.Shm
		if frames >= 60 && st.Submits >= 60 {
			shot, err := comp.shoot(ctx)
			if err != nil {
				return nil, 0, err
			}
			if colours, drawn := report.Colours(shot); colours < 50 || drawn < 0.05 {
				return shot, frames, fmt.Errorf("the screenshot shows no cube: %d colours, %.0f %% of it drawn", colours, 100*drawn)
			}
			return shot, frames, nil
		}
		if time.Now().After(end) {
			text, _, _ := vm.Run(ctx, "cat "+lab.KmscubeLog+"; dmesg | tail -n 20")
			return nil, 0, fmt.Errorf("only %d frames of kmscube came; the guest says:\n%s\ngpubroker says:\n%s", frames, text, b.Log())
		}
		select {
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}
