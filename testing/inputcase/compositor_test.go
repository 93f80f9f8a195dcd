package inputcase_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker/input"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/inputcase"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

// Size of the compositor's output, of the window that fills it, and of the guest's
// screen. A pixel is 32 units of the guest's axes wide.
const screenW, screenH = 1024, 512

// desk is a user at a compositor, whose only window is a guest's screen.
type desk struct {
	rig
	sway *lab.Compositor
	user *inputcase.Virtual
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	root := labtest.Root(t)
	dir := t.TempDir()
	bin, sock := filepath.Join(dir, "gpubroker"), filepath.Join(dir, "in.sock")
	if err := brokerproc.Build(t.Context(), bin); err != nil {
		t.Fatal(err)
	}
	sway := labtest.Sway(t, lab.SwayOptions{W: screenW, H: screenH})
	b, err := brokerproc.Start(t.Context(), root, brokerproc.Options{
		Binary: bin, Env: sway.Env(), Bind: []string{sway.RuntimeDir},
		Args: []string{
			"--display", "wayland", "--wayland-display", sway.Socket(), "--size", fmt.Sprintf("%dx%d", screenW, screenH),
			"--virgl=off", "--input-socket", sock,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := b.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("gpubroker said:\n%s", b.Log())
		}
	})
	devices := append(inputcase.Devices(sock, ""), "-chardev", "socket,id=gpu,path="+b.Socket, "-device", "vhost-user-gpu-pci,chardev=gpu")
	vm := labtest.VM(t, lab.VMConfig{Devices: devices})
	g, err := inputcase.Prepare(t.Context(), vm)
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{rig: rig{T: t, guest: g}, sway: sway}
	d.check(t, "modprobe virtio_gpu; for i in $(seq 100); do [ -e /dev/fb0 ] && exit 0; sleep 0.1; done; exit 1")
	d.waitWindow(b)
	if d.user, err = inputcase.NewVirtual(sway.Socket()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.user.Close)
	return d
}

// waitWindow waits until the guest's console is on the screen.
func (d *desk) waitWindow(b *brokerproc.Broker) {
	d.Helper()
	for end := time.Now().Add(wait); ; time.Sleep(50 * time.Millisecond) {
		st, err := b.Status()
		if err != nil {
			d.Fatal(err)
		}
		if st.Frames.Shm+st.Frames.DMABuf > 0 && strings.Contains(d.swaymsg("-t", "get_tree"), `"app_id": "gpubroker"`) {
			return
		}
		if time.Now().After(end) {
			d.Fatalf("the guest has no window: %+v", st.Frames)
		}
	}
}

func (d *desk) swaymsg(args ...string) string {
	d.Helper()
	sockets, _ := filepath.Glob(filepath.Join(d.sway.RuntimeDir, "sway-ipc.*.sock"))
	if len(sockets) != 1 {
		d.Fatalf("sway has %d control sockets", len(sockets))
	}
	return d.client(append([]string{"swaymsg", "-s", sockets[0]}, args...)...)
}

func (d *desk) client(argv ...string) string {
	d.Helper()
	ctx, cancel := context.WithTimeout(d.Context(), wait)
	defer cancel()
	out, err := d.sway.Client(ctx, argv...).CombinedOutput()
	if err != nil {
		d.Fatalf("%v: %v: %s", argv, err, out)
	}
	return string(out)
}

// reads does what the user does and compares what the guest reads of it.
func (d *desk) reads(t *testing.T, do func() error, want ...input.Event) {
	t.Helper()
	reads(t, d.main, func() {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}, want...)
}

// TestCompositor types, points, clicks and turns the wheel at a compositor; the
// programs in the guest read just that.
func TestCompositor(t *testing.T) {
	d := newDesk(t)
	rec, err := d.guest.Record(t.Context(), inputcase.MainName, "events")
	if err != nil {
		t.Fatal(err)
	}
	d.main = rec
	t.Run("keyboard", d.testKeyboard)
	t.Run("pointer", d.testPointer)
	t.Run("wtype", func(t *testing.T) {
		// wtype makes a keymap of its own, whose codes count from 1 in order of use.
		want := append(append(tapped(1), tapped(2)...), append(tapped(3), tapped(1)...)...)
		d.reads(t, func() error { d.client("wtype", "-s", "500", "abca"); return nil }, want...)
	})
	t.Run("focus lost", d.testFocus)
	t.Run("libinput", d.testLibinput)
}

func (d *desk) testKeyboard(t *testing.T) {
	type stroke struct {
		code uint16
		down bool
	}
	const shift, rightAlt, left = 42, 100, 105
	strokes := []stroke{{shift, true}, {keyA, true}, {keyA, false}, {shift, false}, {rightAlt, true}, {left, true}, {left, false}, {rightAlt, false}}
	var want []input.Event
	for _, s := range strokes {
		v := int32(0)
		if s.down {
			v = 1
		}
		want = append(want, ev(input.EvKey, s.code, v), syn)
	}
	d.reads(t, func() error {
		for _, s := range strokes {
			if err := d.user.Key(uint32(s.code), s.down); err != nil {
				return err
			}
		}
		return nil
	}, want...)
}

func (d *desk) testPointer(t *testing.T) {
	at := func(x, y int32) []input.Event {
		return []input.Event{ev(input.EvAbs, input.AbsX, 32*x), ev(input.EvAbs, input.AbsY, 64*y), syn}
	}
	// sway's pointer starts at 100,100: an axis that stays is no event.
	for _, p := range [][2]int32{{300, 200}, {100, 110}, {101, 111}, {0, 0}, {1023, 511}, {512, 256}} {
		d.reads(t, func() error { return d.user.To(uint32(p[0]), uint32(p[1]), screenW, screenH) }, at(p[0], p[1])...)
	}
	for _, button := range []uint16{input.BtnLeft, input.BtnRight} {
		d.reads(t, func() error { return d.user.Button(uint32(button), true) }, ev(input.EvKey, button, 1), syn)
		d.reads(t, func() error { return d.user.Button(uint32(button), false) }, ev(input.EvKey, button, 0), syn)
	}
	d.reads(t, func() error { return d.user.Turn(proto.WlPointerAxisVerticalScroll, 1) },
		ev(input.EvRel, input.RelWheelHiRes, -120), ev(input.EvRel, input.RelWheel, -1), syn)
	d.reads(t, func() error { return d.user.Turn(proto.WlPointerAxisHorizontalScroll, -2) },
		ev(input.EvRel, input.RelHWheelHiRes, -240), ev(input.EvRel, input.RelHWheel, -2), syn)
}

// testFocus takes the keyboard away while a key is down.
func (d *desk) testFocus(t *testing.T) {
	d.reads(t, func() error { return d.user.Key(keyB, true) }, ev(input.EvKey, keyB, 1), syn)
	d.reads(t, func() error { d.swaymsg("workspace", "2"); return nil }, ev(input.EvKey, keyB, 0), syn)
	d.reads(t, func() error { return d.user.Key(keyB, false) })
	d.swaymsg("workspace", "1")
	d.reads(t, func() error { return d.user.Key(keyC, true) }, ev(input.EvKey, keyC, 1), syn)
	d.reads(t, func() error { return d.user.Key(keyC, false) }, ev(input.EvKey, keyC, 0), syn)
}

// testLibinput lets a compositor in the guest say what libinput makes of the device.
func (d *desk) testLibinput(t *testing.T) {
	d.check(t, `/lib/systemd/systemd-udevd --daemon; udevadm trigger; udevadm settle
export XDG_RUNTIME_DIR=/tmp/run; mkdir -p -m 700 /tmp/run
seatd -g root >/tmp/seatd.log 2>&1 </dev/null & sleep 0.5
weston --backend=drm --renderer=pixman --idle-time=0 --log=/tmp/weston.log >/dev/null 2>&1 </dev/null &
for i in $(seq 300); do grep -q 'gpubroker keyboard.*device is a keyboard' /tmp/weston.log 2>/dev/null && exit 0; sleep 0.1; done
cat /tmp/weston.log /tmp/seatd.log; exit 1`)
	log := d.check(t, "grep gpubroker /tmp/weston.log")
	for _, want := range []string{"is tagged by udev as: Keyboard Mouse", "device is a keyboard", "device is a pointer"} {
		if !strings.Contains(log, want) {
			t.Errorf("weston does not say %q:\n%s", want, log)
		}
	}
}
