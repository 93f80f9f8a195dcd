package windows_test

import (
	"fmt"
	"image"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/golden"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

// guest is a Linux guest on gpubroker in sway.
type guest struct {
	*testing.T
	sway   *lab.Compositor
	broker *brokerproc.Broker
	vm     *lab.VM
}

// start boots a guest whose driver is loaded on a device with the given options of
// gpubroker serve.
func start(t *testing.T, opt lab.SwayOptions, args ...string) *guest {
	t.Helper()
	root := labtest.Root(t)
	binary := filepath.Join(t.TempDir(), "gpubroker")
	if err := brokerproc.Build(t.Context(), binary); err != nil {
		t.Fatal(err)
	}
	g := &guest{T: t, sway: labtest.Sway(t, opt)}
	input := filepath.Join(t.TempDir(), "input")
	var err error
	g.broker, err = brokerproc.Start(t.Context(), root, brokerproc.Options{
		Binary: binary, Env: g.sway.Env(), Bind: []string{g.sway.RuntimeDir, filepath.Dir(input)},
		Args: append([]string{"--display", "wayland", "--wayland-display", g.sway.Socket(), "--virgl=off",
			"--hostmem", "256M", "--input-socket", input}, args...),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := g.broker.Stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
		if t.Failed() {
			t.Logf("gpubroker said:\n%s", g.broker.Log())
		}
	})
	g.vm = labtest.VM(t, lab.VMConfig{Bind: []string{filepath.Dir(input)}, Devices: []string{
		"-chardev", "socket,id=gpu,path=" + g.broker.Socket,
		"-device", lab.GenericGPU + ",chardev=gpu",
		"-chardev", "socket,id=input,path=" + input, "-device", "vhost-user-input-pci,chardev=input",
	}})
	g.run(`modprobe virtio_gpu; modprobe virtio_input; modprobe evdev
for i in $(seq 100); do [ -e /dev/dri/card0 ] && ls /dev/input/event* >/dev/null 2>&1 && exit 0; sleep 0.1; done; ls /dev/dri /dev/input; exit 1`)
	return g
}

func (g *guest) run(script string) string {
	g.Helper()
	out, err := g.vm.Check(g.Context(), script)
	if err != nil {
		g.Fatal(err)
	}
	return out
}

// msg runs a sway command.
func (g *guest) msg(command string) {
	g.Helper()
	sockets, _ := filepath.Glob(filepath.Join(g.sway.RuntimeDir, "sway-ipc.*.sock"))
	if len(sockets) != 1 {
		g.Fatalf("sway has %d control sockets", len(sockets))
	}
	if out, err := g.sway.Client(g.Context(), "swaymsg", "-s", sockets[0], command).CombinedOutput(); err != nil {
		g.Fatalf("swaymsg %s: %v: %s", command, err, out)
	}
}

func (g *guest) eventually(what string, f func() bool) {
	g.Helper()
	for end := time.Now().Add(60 * time.Second); !f(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			g.Fatalf("60 s have passed and still not: %s", what)
		}
	}
}

// scanout returns the size of what a head shows.
func (g *guest) scanout(head int) string {
	g.Helper()
	s, err := g.broker.Status()
	if err != nil {
		g.Fatal(err)
	}
	for _, o := range s.Scanouts {
		if o.Head == head {
			return fmt.Sprintf("%dx%d", o.Source.W, o.Source.H)
		}
	}
	return ""
}

// keep writes a screenshot beside the others if asked to.
func (g *guest) keep(name string) image.Image {
	g.Helper()
	shot, err := g.sway.Screenshot(g.Context())
	if err != nil {
		g.Fatal(err)
	}
	if os.Getenv("GPUBROKER_KEEP") != "" {
		golden.Keep(g.T, name, shot)
	}
	return shot
}

// TestResizeChangesGuest resizes a window; the guest's connector has the new mode
// first, and its console, which may shrink but not grow, takes a smaller one.
func TestResizeChangesGuest(t *testing.T) {
	g := start(t, lab.SwayOptions{W: 1000, H: 700, Config: `for_window [app_id="gpubroker"] floating enable`}, "--size", "800x600")
	g.eventually("the console's picture", func() bool { return g.scanout(0) == "800x600" })
	g.keep("guest before resize")
	g.msg(`[app_id="gpubroker"] resize set 720 400, move absolute position 100 100`)
	g.eventually("the guest's new mode", func() bool {
		return strings.HasPrefix(g.run(`cat /sys/class/drm/card0-Virtual-1/modes`), "720x400\n")
	})
	g.eventually("the console follows", func() bool { return g.scanout(0) == "720x400" })
	g.keep("guest after resize")
	g.msg(`[app_id="gpubroker"] fullscreen enable`)
	g.eventually("the guest's mode fullscreen", func() bool {
		// The console asks for modes no larger than its picture; detect asks for all.
		return strings.HasPrefix(g.run(`cd /sys/class/drm/card0-Virtual-1; echo detect > status; cat modes`), "1000x700\n")
	})
	g.keep("guest fullscreen")
}

// TestTwoHeads: a guest with two heads has two windows.
func TestTwoHeads(t *testing.T) {
	g := start(t, lab.SwayOptions{W: 1000, H: 400}, "--size", "500x400", "--heads", "2")
	g.eventually("two scanouts", func() bool { return g.scanout(0) == "500x400" && g.scanout(1) == "500x400" })
	g.keep("guest with two heads")
	for head, connector := range []string{"Virtual-1", "Virtual-2"} {
		if got := g.run("cat /sys/class/drm/card0-" + connector + "/status /sys/class/drm/card0-" + connector + "/enabled"); got != "connected\nenabled\n" {
			t.Errorf("head %d: %q", head, got)
		}
	}
	tree, err := g.sway.Client(t.Context(), "sh", "-c", "swaymsg -s $XDG_RUNTIME_DIR/sway-ipc.*.sock -t get_tree -r").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, tree)
	}
	for _, title := range []string{"head 0", "head 1"} {
		if !strings.Contains(string(tree), title+`"`) {
			t.Errorf("no window for %s", title)
		}
	}
}

// TestKeysReachGuest types into the window and reads the guest's evdev events.
func TestKeysReachGuest(t *testing.T) {
	g := start(t, lab.SwayOptions{W: 800, H: 600}, "--size", "800x600")
	g.eventually("the console's picture", func() bool { return g.scanout(0) == "800x600" })
	g.run(`for e in /dev/input/event*; do (timeout 60 cat $e > /tmp/$(basename $e) &) ; done; sleep 0.5`)
	// wtype makes a keymap of its own, whose codes count from 1 in order of use.
	if out, err := g.sway.Client(t.Context(), "wtype", "-s", "500", "abca").CombinedOutput(); err != nil {
		t.Fatalf("wtype: %v: %s", err, out)
	}
	// struct input_event of 24 bytes: type at 16, code at 18, value at 20.
	const list = `for f in /tmp/event*; do od -A n -v -t u2 -w24 $f | awk '$9 == 1 {print $10, $11}'; done`
	want := "1 1\n1 0\n2 1\n2 0\n3 1\n3 0\n1 1\n1 0\n"
	got := ""
	g.eventually("eight key events", func() bool { got = g.run(list); return len(got) >= len(want) })
	if got != want {
		t.Errorf("the guest got\n%swant\n%s", got, want)
	}
}
