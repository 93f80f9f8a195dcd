package guests_test

import (
	"context"
	"fmt"
	"image"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/golden"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
	"github.com/gpubroker/gpubroker/testing/report"
)

// Size of the guests' screens and of the compositor's output, in pixels.
const (
	screenW = 1024
	screenH = 768
)

// binaries builds the broker and the guest's helper once for all tests. The
// folder is the checkout's own for results, so that nothing has to be removed.
var binaries = sync.OnceValues(func() (dir string, err error) {
	if dir, err = filepath.Abs("../../out/bin"); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	ctx := context.Background()
	if err := brokerproc.Build(ctx, filepath.Join(dir, "gpubroker")); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, "guestpaint"), "./guestpaint")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build guestpaint: %w\n%s", err, text)
	}
	return dir, nil
})

func bin(t *testing.T, name string) string {
	t.Helper()
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// rig is a broker as a program of its own, with what its guests need.
type rig struct {
	*testing.T
	broker *brokerproc.Broker
	weston *lab.Compositor // nil if the display is not Wayland
	vm     *lab.VM         // the guest of tests that have one
}

// shoot takes a picture of the compositor's output.
func (r *rig) shoot(t *testing.T) func() (image.Image, error) {
	return func() (image.Image, error) { return r.weston.Screenshot(t.Context()) }
}

// try runs a script for a failure's message.
func (r *rig) try(script string) string {
	out, _, err := r.vm.Run(r.Context(), script)
	if err != nil {
		return err.Error()
	}
	return out
}

// startBroker runs gpubroker serve until the test's end.
func startBroker(t *testing.T, opt brokerproc.Options) *brokerproc.Broker {
	t.Helper()
	root := labtest.Root(t)
	opt.Binary = bin(t, "gpubroker")
	opt.Args = append([]string{"--size", fmt.Sprintf("%dx%d", screenW, screenH), "--log-level", "debug"}, opt.Args...)
	b, err := brokerproc.Start(t.Context(), root, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		summary, err := b.Stop()
		if err != nil {
			t.Errorf("stop: %v", err)
		} else {
			t.Log(summary)
		}
		if !t.Failed() {
			logWarnings(t, b.Log())
		}
		if t.Failed() {
			t.Logf("gpubroker said:\n%s", b.Log())
		}
	})
	return b
}

// logWarnings shows the first warnings of a test that passed.
func logWarnings(t *testing.T, log string) {
	n := 0
	for line := range strings.Lines(log) {
		if !strings.Contains(line, "  WARN  ") && !strings.Contains(line, "  ERROR  ") {
			continue
		}
		if n++; n <= 10 {
			t.Log(strings.TrimSpace(line))
		}
	}
	if n > 10 {
		t.Logf("and %d more", n-10)
	}
}

// waylandRig is a broker that shows its guest in a headless weston whose output
// has the size of the guest's screen.
func waylandRig(t *testing.T, args ...string) *rig {
	t.Helper()
	w := labtest.Weston(t, lab.WestonOptions{W: screenW, H: screenH})
	b := startBroker(t, brokerproc.Options{
		Args: append([]string{"--display", "wayland", "--wayland-display", w.Socket()}, args...),
		Env:  w.Env(), Bind: []string{w.RuntimeDir},
	})
	return &rig{T: t, broker: b, weston: w}
}

// gpu returns QEMU's arguments for a device that the broker is.
func (r *rig) gpu(device string) []string {
	return []string{"-chardev", "socket,id=gpu,path=" + r.broker.Socket, "-device", device + ",chardev=gpu"}
}

// check runs a script that must end with code 0.
func check(t *testing.T, vm *lab.VM, script string) string {
	t.Helper()
	out, err := vm.Check(t.Context(), script)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func qmp(t *testing.T, vm *lab.VM, command string, args any) {
	t.Helper()
	if _, err := vm.QMP(t.Context(), command, args); err != nil {
		t.Fatal(err)
	}
}

// share puts a file where the guest sees it, as /lab/share/NAME.
func share(t *testing.T, vm *lab.VM, file string) {
	t.Helper()
	body, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(vm.Share, filepath.Base(file)), body, 0o755); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) status() broker.Status {
	r.Helper()
	st, err := r.broker.Status()
	if err != nil {
		r.Fatal(err)
	}
	return st
}

// frames is how many frames reached the display.
func frames(st broker.Status) uint64 { return st.Frames.DMABuf + st.Frames.Shm }

// compositorTime is what a compositor in a guest may take to show its picture.
const compositorTime = 60 * time.Second

// eventually polls until ok or the time is up; then the test fails with what why
// says.
func eventually(t *testing.T, limit time.Duration, what string, ok func() bool, why ...func() string) {
	t.Helper()
	end := time.Now().Add(limit)
	for !ok() {
		if time.Now().After(end) {
			text := ""
			for _, f := range why {
				text += "\n" + f()
			}
			t.Fatalf("not within %v: %s%s", limit, what, text)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// settled takes screenshots until two in a row show the same colourful picture.
func settled(t *testing.T, shoot func() (image.Image, error)) image.Image {
	t.Helper()
	var last image.Image
	eventually(t, 20*time.Second, "the picture stands still and is not empty", func() bool {
		img, err := shoot()
		if err != nil {
			t.Fatal(err)
		}
		colours, _ := report.Colours(img)
		same := last != nil && colours > 4 && golden.Compare(img, last, golden.Tolerance{}).OK()
		last = img
		return same
	})
	return last
}

// showsEventually takes screenshots until one is like want.
func showsEventually(t *testing.T, name string, shoot func() (image.Image, error), want image.Image, tol golden.Tolerance) {
	t.Helper()
	end := time.Now().Add(20 * time.Second)
	for {
		img, err := shoot()
		if err != nil {
			t.Fatal(err)
		}
		if golden.Compare(img, want, tol).OK() {
			return
		}
		if time.Now().After(end) {
			golden.Equal(t, name, img, want, tol)
			t.FailNow()
		}
		time.Sleep(200 * time.Millisecond)
	}
}
