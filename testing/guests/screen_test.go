package guests_test

import (
	"fmt"
	"image"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gpubroker/gpubroker/testing/golden"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

// TestScreen shows what needs no 3D, in a window of a Wayland compositor: the Linux
// console, a picture in the frame buffer, a mode with a cursor plane, compositors
// that draw with the CPU.
func TestScreen(t *testing.T) {
	t.Parallel()
	for _, virgl := range []string{"on", "off"} {
		t.Run("virgl="+virgl, func(t *testing.T) {
			r := waylandRig(t, "--virgl="+virgl)
			r.vm = labtest.VM(t, lab.VMConfig{Devices: append(r.gpu("vhost-user-gpu-pci"), "-device", "virtio-tablet-pci")})
			share(t, r.vm, bin(t, "guestpaint"))
			check(t, r.vm, loadDriver)
			t.Run("console", func(t *testing.T) { testConsole(t, r) })
			t.Run("frame buffer", func(t *testing.T) {
				check(t, r.vm, "/lab/share/guestpaint fb")
				showsEventually(t, "frame buffer", r.shoot(t), painted(screenW, screenH), exact)
			})
			t.Run("cursor plane", func(t *testing.T) { testCursorPlane(t, r) })
			t.Run("compositors", func(t *testing.T) { testCompositors(t, r) })
			r.noErrors(t)
		})
	}
}

// loadDriver loads the driver and waits for its console, which shall not blink.
const loadDriver = `modprobe virtio_gpu
for i in $(seq 100); do [ -e /dev/fb0 ] && break; sleep 0.1; done
[ -e /dev/fb0 ]
printf '\033[?25l' >/dev/tty1
`

func testConsole(t *testing.T, r *rig) {
	check(t, r.vm, `{ printf '\033[2J\033[H'
		printf 'gpubroker shows \033[31mred \033[32mgreen \033[34mblue \033[1;37;44m bold on blue \033[0m \033[7mreverse\033[0m\n'
		printf '\033[10;5H+--------+\033[11;5H| 0123@# |\033[12;5H+--------+'
		printf '\033[48;128H.'
	} >/dev/tty1`)
	golden.Check(t, "console", settled(t, r.shoot(t)), exact)
}

// paintServer runs guestpaint kms; paint gives it a command.
const paintServer = `mkfifo /tmp/kms; sleep 10000 >/tmp/kms &
/lab/share/guestpaint kms </tmp/kms >/tmp/kms.out 2>&1 &
echo $! >/tmp/kms.pid
`

// endPaint ends it; the console has the screen back.
const endPaint = "cat /tmp/kms.out; kill $(cat /tmp/kms.pid); rm /tmp/kms"

func paint(t *testing.T, vm *lab.VM, format string, args ...any) {
	t.Helper()
	check(t, vm, fmt.Sprintf("echo '"+format+"' >/tmp/kms", args...))
}

// testCursorPlane shows guestpaint's cursor, whose every pixel is known.
func testCursorPlane(t *testing.T, r *rig) {
	picture := painted(screenW, screenH)
	expect := func(what string, want image.Image, tol golden.Tolerance) {
		t.Helper()
		showsEventually(t, "cursor "+what, r.shoot(t), want, tol)
	}
	check(t, r.vm, paintServer)
	paint(t, r.vm, "cursor 300 200 0 0")
	expect("shown", withCursor(picture, 300, 200), blended)
	before := r.status()
	// The hot spot is for those who move a pointer; it does not move the picture.
	paint(t, r.vm, "cursor 301 203 10 20")
	expect("with a hot spot", withCursor(picture, 301, 203), blended)
	for _, at := range []image.Point{{-20, -10}, {screenW - 24, screenH - 8}, {640, 0}} {
		paint(t, r.vm, "move %d %d", at.X, at.Y)
		expect("at "+at.String(), withCursor(picture, at.X, at.Y), blended)
	}
	if st := r.status(); frames(st) != frames(before) {
		t.Errorf("moving the cursor took %d frames, want none", frames(st)-frames(before))
	}
	paint(t, r.vm, "hide")
	expect("hidden", picture, exact)
	paint(t, r.vm, "flip")
	expect("hidden, black", black(), exact)
	out := check(t, r.vm, endPaint)
	if want := strings.Repeat("ok\n", 8); out != want {
		t.Errorf("guestpaint said %q", out)
	}
}

// black is an empty screen.
func black() *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, screenW, screenH))
	for i := 3; i < len(img.Pix); i += 4 {
		img.Pix[i] = 255
	}
	return img
}

// prepareSeat gives the guest's compositors what they need.
const prepareSeat = `modprobe evdev; modprobe virtio_input
/lib/systemd/systemd-udevd --daemon; udevadm trigger; udevadm settle
seatd -g root >/tmp/seatd.log 2>&1 &
for i in $(seq 50); do [ -e /run/seatd.sock ] && break; sleep 0.1; done
cat >/tmp/weston.ini <<END
[core]
idle-time=0
[shell]
panel-position=none
background-image=/lab/share/pattern.png
background-type=scale
locking=false
animation=none
startup-animation=none
END
cat >/tmp/sway.conf <<END
output * bg /lab/share/pattern.png stretch
END
`

// A guest compositor and how it draws its pointer.
var compositors = []struct {
	name, start, stop string
	virgl             bool // draws with the GPU
}{
	{"weston with GL", `LIBSEAT_BACKEND=seatd weston --backend=drm --renderer=gl --config=/tmp/weston.ini --log=/tmp/weston.log &`, "pkill -x weston", true},
	{"weston", `LIBSEAT_BACKEND=seatd weston --backend=drm --renderer=pixman --config=/tmp/weston.ini --log=/tmp/weston.log &`, "pkill -x weston", false},
	{"sway", `LIBSEAT_BACKEND=seatd WLR_RENDERER=pixman sway -c /tmp/sway.conf >/tmp/sway.log 2>&1 &`, "pkill -x sway", false},
	{"sway without a cursor plane", `LIBSEAT_BACKEND=seatd WLR_RENDERER=pixman WLR_NO_HARDWARE_CURSORS=1 sway -c /tmp/sway.conf >/tmp/sway.log 2>&1 &`, "pkill -x sway", false},
}

// testCompositors shows the guest's own compositors. With GL weston's picture goes
// through virgl, texture by texture, and comes out the same. Weston draws its pointer into
// its picture; sway uses the cursor plane and must look the same without it.
func testCompositors(t *testing.T, r *rig) {
	picture := painted(screenW, screenH)
	if err := golden.WritePNG(filepath.Join(r.vm.Share, "pattern.png"), picture); err != nil {
		t.Fatal(err)
	}
	check(t, r.vm, prepareSeat)
	shots := map[string]image.Image{}
	for _, c := range compositors {
		if c.virgl && !r.status().Renderer.GL {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			check(t, r.vm, c.start)
			// Half way across and down; QEMU's axes end at 32767.
			var last string
			eventually(t, compositorTime, c.name+" shows its background and pointer", func() bool {
				pointAt(t, r.vm, 0, 0) // the guest's kernel drops events without news
				pointAt(t, r.vm, 1<<14, 1<<14)
				img, err := r.shoot(t)()
				if err != nil {
					t.Fatal(err)
				}
				shots[c.name] = img
				last = pointerOn(img, picture, image.Pt(screenW/2, screenH/2))
				return last == ""
			}, func() string { return last + "\n" + r.try("tail -n 30 /tmp/weston.log /tmp/sway.log") })
			check(t, r.vm, c.stop+"; while "+c.stop+"; do sleep 0.1; done; true")
		})
	}
	if hw, sw := shots["sway"], shots["sway without a cursor plane"]; hw != nil && sw != nil {
		golden.Equal(t, "sway with and without a cursor plane", hw, sw, blended)
	}
}

// pointAt moves the guest's tablet.
func pointAt(t *testing.T, vm *lab.VM, x, y int) {
	t.Helper()
	type abs struct {
		Axis  string `json:"axis"`
		Value int    `json:"value"`
	}
	type event struct {
		Type string `json:"type"`
		Data abs    `json:"data"`
	}
	qmp(t, vm, "input-send-event", map[string]any{"events": []event{{"abs", abs{"x", x}}, {"abs", abs{"y", y}}}})
}

// pointerOn says what is wrong about a screenshot of a background with an arrow at
// a point, "" if nothing is: the arrow is a black shape with a white rim, at most 32
// pixels wide and high, and every other pixel is the background's.
func pointerOn(got, background image.Image, at image.Point) string {
	box := image.Rect(-4, -4, 32, 32).Add(at)
	outside, dark, white := 0, 0, 0
	var first image.Point
	for y := range screenH {
		for x := range screenW {
			p := image.Pt(x, y)
			r, g, b, _ := got.At(x, y).RGBA()
			wr, wg, wb, _ := background.At(x, y).RGBA()
			same := r == wr && g == wg && b == wb
			switch {
			case p.In(box) && !same && r+g+b < 3*0x1000:
				dark++
			case p.In(box) && !same && r+g+b > 3*0xe000:
				white++
			case !p.In(box) && !same:
				if outside == 0 {
					first = p
				}
				outside++
			}
		}
	}
	if outside == 0 && dark >= 20 && white >= 20 {
		return ""
	}
	return fmt.Sprintf("%d pixels outside of %v differ, first at %v; the pointer has %d black and %d white ones", outside, box, first, dark, white)
}
