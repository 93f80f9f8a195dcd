package main

import (
	"context"
	"errors"
	"fmt"
	"image"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/golden"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/report"
)

const (
	width  = 1280
	height = 800
)

// Counts is what the guest has at a moment.
type Counts struct {
	Resources map[string]int `json:"resources"`
	Contexts  int            `json:"contexts"`
	Frames    uint64         `json:"frames"` // of this worker
}

// Crash is one death of the worker.
type Crash struct {
	Program string `json:"program"` // that should have done it
	Cause   string `json:"cause"`
	Context string `json:"context"` // that the broker names
	Command string `json:"log"`     // the line in the log
	BackMS  int64  `json:"back_ms"` // from the program's start until another worker answers
	Console bool   `json:"console"` // was there afterwards, as before
}

type reportJSON struct {
	Before    Counts  `json:"before"` // the first crash
	After     Counts  `json:"after"`  // all of them, with a new program
	Crashes   []Crash `json:"crashes"`
	NewFrames uint64  `json:"new_program_frames"`
	Guest     string  `json:"guest"` // what its kernel said about it
	Seconds   float64 `json:"seconds"`
}

// prepare loads the driver and writes something to its console that does not blink.
const prepare = `modprobe virtio_gpu
for i in $(seq 100); do [ -e /dev/fb0 ] && break; sleep 0.1; done
{ printf '\033[?25l\033[2J\033[H'
printf 'the console \033[31mof \033[32ma \033[34mguest \033[1;37;44m whose renderer dies \033[0m\n'
for i in $(seq 40); do echo "line $i"; done
} >/dev/tty1
`

var startCube = lab.StartKmscube("/dev/dri/card0")

// rig is what runs.
type rig struct {
	out    report.Dir
	steps  *report.Steps
	weston *lab.Compositor
	broker *brokerproc.Broker
	vm     *lab.VM
	log    *os.File
	rep    reportJSON
}

func build(ctx context.Context, out string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-tags", "crashtest", "-o", out, "github.com/gpubroker/gpubroker/cmd/gpubroker")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build gpubroker: %w\n%s", err, text)
	}
	return nil
}

func run(ctx context.Context) (err error) {
	begun := time.Now()
	r := &rig{steps: report.NewSteps(os.Stdout, 6)}
	if r.out, err = report.NewDir("crash"); err != nil {
		return err
	}
	r.steps.Step("Building gpubroker with a renderer that crashes, starting a compositor and a guest")
	root, err := lab.Find()
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "gpubroker-crash-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	binary := filepath.Join(tmp, "gpubroker")
	if err := build(ctx, binary); err != nil {
		return err
	}
	if r.weston, err = root.Weston(ctx, lab.WestonOptions{W: width, H: height}); err != nil {
		return err
	}
	defer r.weston.Stop()
	if r.log, err = r.out.Create("gpubroker.log"); err != nil {
		return err
	}
	defer func() { _ = r.log.Close() }()
	r.broker, err = brokerproc.Start(ctx, root, brokerproc.Options{
		Binary: binary, Deadly: true, Log: r.log, Env: append(r.weston.Env(), "GPUBROKER_CRASH=eglinfo:1,kmscube:120"), Bind: []string{r.weston.RuntimeDir},
		Args: []string{"--display", "wayland", "--wayland-display", r.weston.Socket(), "--virgl=on",
			"--size", fmt.Sprintf("%dx%d", width, height), "--title", "gpubroker crash", "--fullscreen"},
	})
	if err != nil {
		return err
	}
	stopped := false
	defer func() {
		if !stopped {
			_, _ = r.broker.Stop() // an earlier error is being returned
		}
	}()
	r.vm, err = root.StartVM(ctx, lab.VMConfig{Devices: []string{
		"-chardev", "socket,id=gpu,path=" + r.broker.Socket, "-device", "vhost-user-gpu-pci,chardev=gpu",
	}})
	if err != nil {
		return err
	}
	defer r.vm.Close()
	if err := r.vm.WaitBoot(ctx, 1); err != nil {
		return err
	}
	if err := r.story(ctx); err != nil {
		return fmt.Errorf("%w\nthe guest says:\n%s\ngpubroker says:\n%s", err, r.vm.Console(), r.broker.Log())
	}
	stopped = true
	if _, err := r.broker.Stop(); err != nil {
		return err
	}
	r.rep.Seconds = time.Since(begun).Seconds()
	if err := r.out.JSON(r.rep); err != nil {
		return err
	}
	r.steps.Done("Wrote %s/report.json", r.out.Path)
	return r.rep.verdict()
}

// story is what happens.
func (r *rig) story(ctx context.Context) error {
	r.steps.Step("The guest's console")
	if _, err := r.vm.Check(ctx, prepare); err != nil {
		return err
	}
	console, err := r.settled(ctx)
	if err != nil {
		return err
	}
	if err := r.out.PNG("before.png", console); err != nil {
		return err
	}
	if colours, drawn := report.Colours(console); colours < 5 || drawn < 0.005 {
		return fmt.Errorf("the screenshot shows no console: %d colours, %.1f %% of it drawn", colours, 100*drawn)
	}
	if r.rep.Before, err = r.counts(); err != nil {
		return err
	}

	r.steps.Step("The renderer dies under a program that has no window")
	if err := r.crash(ctx, "eglinfo", "timeout 60 eglinfo -B -p surfaceless > /tmp/eglinfo.log 2>&1 & ", console, ""); err != nil {
		return err
	}
	r.steps.Step("The renderer dies under a program that has the screen")
	if err := r.crash(ctx, "kmscube", startCube, console, lab.StopKmscube); err != nil {
		return err
	}

	r.steps.Step("A new program draws")
	if _, err := r.vm.Check(ctx, startCube); err != nil {
		return err
	}
	if err := r.cube(ctx); err != nil {
		return err
	}
	if r.rep.After, err = r.counts(); err != nil {
		return err
	}

	r.steps.Step("Ending")
	text, err := r.vm.Check(ctx, lab.StopKmscube+`dmesg | grep -i 'virtio_gpu\|\[drm\]' | tail -n 12`)
	r.rep.Guest = text
	return err
}

// crash starts a program that the renderer dies of and looks at what is left; end ends the
// program.
func (r *rig) crash(ctx context.Context, program, script string, console image.Image, end string) error {
	begun, n := time.Now(), len(r.rep.Crashes)+1
	if _, err := r.vm.Check(ctx, script); err != nil {
		return err
	}
	c := Crash{Program: program}
	for {
		st, err := r.broker.Status() // the worker's socket is away for a while
		if err == nil && st.Worker != nil {
			deaths := uint64(0)
			for _, k := range st.Worker.Restarts {
				deaths += k
			}
			if deaths == uint64(n) {
				c.Cause, c.Context = st.Worker.Last.Cause, st.Worker.Last.Name
				break
			}
		}
		if time.Since(begun) > 2*time.Minute {
			return fmt.Errorf("the renderer did not die of %s: %w", program, errors.Join(err))
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	c.BackMS = time.Since(begun).Milliseconds()
	if shot, err := r.weston.Screenshot(ctx); err == nil {
		if err := r.out.PNG(fmt.Sprintf("crashed-%d-%s.png", n, program), shot); err != nil {
			return err
		}
	}
	c.Command = r.logLine(program)
	if end != "" {
		if _, err := r.vm.Check(ctx, end); err != nil {
			return err
		}
	}
	if _, err := r.vm.Check(ctx, "true"); err != nil { // it lives
		return err
	}
	var shot image.Image
	for wait := time.Now().Add(40 * time.Second); !c.Console && time.Now().Before(wait); {
		var err error
		if shot, err = r.weston.Screenshot(ctx); err != nil {
			return err
		}
		c.Console = golden.Compare(console, shot, golden.Tolerance{}).OK()
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	r.rep.Crashes = append(r.rep.Crashes, c)
	r.steps.Note("%s: %s, named %q, another worker after %d ms, console there: %v", program, c.Cause, c.Context, c.BackMS, c.Console)
	return r.out.PNG(fmt.Sprintf("after-%d-%s.png", n, program), shot)
}

// logLine finds what the supervisor's log says of the newest death.
func (r *rig) logLine(program string) (line string) {
	for l := range strings.Lines(r.broker.Log()) {
		if strings.Contains(l, "worker died") && strings.Contains(l, program) {
			line = strings.TrimSpace(l)
		}
	}
	return line
}

// cube waits until the cube turns.
func (r *rig) cube(ctx context.Context) error {
	before, err := r.broker.Status()
	if err != nil {
		return err
	}
	for end := time.Now().Add(time.Minute); ; {
		st, err := r.broker.Status()
		if err != nil {
			return err
		}
		r.rep.NewFrames = frames(&st) - frames(&before)
		if r.rep.NewFrames >= 60 {
			break
		}
		if time.Now().After(end) {
			text, _, _ := r.vm.Run(ctx, "cat "+lab.KmscubeLog)
			return fmt.Errorf("only %d frames of a new program came:\n%s", r.rep.NewFrames, text)
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	shot, err := r.weston.Screenshot(ctx)
	if err != nil {
		return err
	}
	if colours, drawn := report.Colours(shot); colours < 50 || drawn < 0.05 {
		err = fmt.Errorf("the screenshot shows no cube: %d colours, %.0f %% of it drawn", colours, 100*drawn)
	}
	return errors.Join(err, r.out.PNG("after.png", shot))
}

func frames(st *broker.Status) uint64 { return st.Frames.DMABuf + st.Frames.Shm }

func (r *rig) counts() (Counts, error) {
	st, err := r.broker.Status()
	return Counts{Resources: st.Counts.Resources, Contexts: st.Counts.Contexts, Frames: frames(&st)}, err
}

// settled takes screenshots until two in a row are the same.
func (r *rig) settled(ctx context.Context) (image.Image, error) {
	var last image.Image
	for range 60 {
		img, err := r.weston.Screenshot(ctx)
		if err != nil {
			return nil, err
		}
		if last != nil && golden.Compare(last, img, golden.Tolerance{}).OK() {
			return img, nil
		}
		last = img
		if err := sleep(ctx, time.Second); err != nil {
			return nil, err
		}
	}
	return nil, errors.New("the console does not settle")
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func (rep *reportJSON) verdict() error {
	var errs []error
	for _, c := range rep.Crashes {
		if c.Context != c.Program || !strings.Contains(c.Command, c.Program) {
			errs = append(errs, fmt.Errorf("the log does not name %s: %q, %q", c.Program, c.Context, c.Command))
		}
		if !c.Console {
			errs = append(errs, fmt.Errorf("the console was not there after %s", c.Program))
		}
	}
	return errors.Join(errs...)
}
