package wayland_test

import (
	"context"
	"fmt"
	"image"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/wayland"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/testing/golden"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

// swaymsg runs a sway command and fails the test if sway refuses it.
func swaymsg(t *testing.T, c *lab.Compositor, command string) {
	t.Helper()
	sockets, _ := filepath.Glob(filepath.Join(c.RuntimeDir, "sway-ipc.*.sock"))
	if len(sockets) != 1 {
		t.Fatalf("sway has %d control sockets", len(sockets))
	}
	client(t, c, "swaymsg", "-s", sockets[0], command)
}

// waitFor waits up to five seconds; what is compared afterwards says more than a timeout.
func waitFor(f func() bool) {
	for end := time.Now().Add(5 * time.Second); !f() && time.Now().Before(end); {
		time.Sleep(2 * time.Millisecond)
	}
}

func client(t *testing.T, c *lab.Compositor, argv ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if out, err := c.Client(ctx, argv...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", argv, err, out)
	}
}

// waitShot waits until the compositor's output contains want.
func waitShot(t *testing.T, c *lab.Compositor, name string, want func(shot image.Image) bool) {
	t.Helper()
	var shot image.Image
	end := time.Now().Add(10 * time.Second)
	for {
		var err error
		if shot, err = c.Screenshot(t.Context()); err != nil {
			t.Fatal(err)
		}
		if want(shot) || time.Now().After(end) {
			break
		}
	}
	if ok := want(shot); !ok || os.Getenv("GPUBROKER_KEEP") != "" {
		golden.Keep(t, name, shot)
		if !ok {
			t.Errorf("%s: the screen does not look right after 10 s", name)
		}
	}
}

// TestSwayInput types, points, clicks and turns the wheel by sway's virtual devices;
// what the guest is told is what was done.
func TestSwayInput(t *testing.T) {
	c := labtest.Sway(t, lab.SwayOptions{W: 640, H: 480, Config: `for_window [app_id="gpubroker"] floating enable, move absolute position 100 50`})
	r := &recorder{}
	s := openSink(t, wayland.Config{Display: c.Socket(), Input: r})
	b := buffer(t, pattern(headW, headH, 1), dmabuf.XRGB8888, false)
	defer b.Release()
	s.Present(frameOf(b))
	waitShot(t, c, "sway input", func(shot image.Image) bool { return find(shot, pattern(headW, headH, 1)) })

	mouse := newVirtualPointer(t, c.Socket())
	eventually(t, "the pointer in the picture's middle", func() bool {
		mouse.to(260, 150, 640, 480) // until the sink knows of the mouse
		return r.has("0:pointer(16384,16384)", "0:frame")
	})
	mouse.to(101, 249, 640, 480)
	x, y := (1*32768+headW-1)/headW, (199*32768+headH-1)/headH
	eventually(t, "the pointer in a corner", func() bool { return r.has(fmt.Sprintf("0:pointer(%d,%d)", x, y), "0:frame") })
	r.take()
	var want []string
	for _, code := range []uint32{0x110, 0x111, 0x112, 0x113} {
		mouse.press(code, true)
		mouse.press(code, false)
		want = append(want, fmt.Sprintf("0:button+%#x", code), "0:frame", fmt.Sprintf("0:button-%#x", code), "0:frame")
	}
	mouse.turn(proto.WlPointerAxisVerticalScroll, 1)
	mouse.turn(proto.WlPointerAxisHorizontalScroll, -2)
	mouse.glide(proto.WlPointerAxisVerticalScroll, wire.FixedInt(-5))
	want = append(want, "0:scroll(120,0)", "0:frame", "0:scroll(0,-240)", "0:frame", "0:scroll(-60,0)", "0:frame")
	waitFor(func() bool { return r.has(want...) })
	if got := r.take(); got != strings.Join(want, " ") {
		t.Errorf("mouse: %s\nwant %s", got, strings.Join(want, " "))
	}

	r.take()
	// wtype makes a keymap of its own, whose codes count from 1 in order of use.
	// The pause lets the sink take the keyboard that wtype brings.
	client(t, c, "wtype", "-s", "500", "abca")
	word := func(keys ...int) (words []string) {
		for _, k := range keys {
			words = append(words, fmt.Sprintf("0:key+%d", k), "0:frame", fmt.Sprintf("0:key-%d", k), "0:frame")
		}
		return words
	}
	want = word(1, 2, 3, 1)
	waitFor(func() bool { return r.has(want...) })
	if got := r.take(); got != strings.Join(want, " ") {
		t.Errorf("keys: %s\nwant %s", got, strings.Join(want, " "))
	}
}

// TestSwayResize tiles, resizes and floats a window: its size becomes the mode, and
// until the guest follows the picture is scaled between bars.
func TestSwayResize(t *testing.T) {
	c := labtest.Sway(t, lab.SwayOptions{W: 640, H: 480, Config: "output HEADLESS-1 bg #ffffff solid_color"})
	ev := &events{}
	waitShot(t, c, "sway wall", func(shot image.Image) bool { return isWhite(shot, 0, 0) && isWhite(shot, 639, 479) })
	s := openSink(t, wayland.Config{Display: c.Socket(), Events: ev, Resize: true})
	show := func(w, h uint32) picture {
		img := pattern(int(w), int(h), 2)
		b := buffer(t, img, dmabuf.XRGB8888, false)
		s.Present(frameOf(b))
		s.Drop(b)
		b.Release()
		return img
	}
	show(headW, headH)
	expectMode(t, s, 640, 480) // sway tiles it
	// 320x200 fits 640x480 as 640x400 with 40 rows of black above and below.
	waitShot(t, c, "sway scaled", func(shot image.Image) bool {
		return isBlack(shot, 320, 20) && isBlack(shot, 320, 460) && isWhite(shot, 2, 42) && isWhite(shot, 70, 80) && !isBlack(shot, 630, 436)
	})
	img := show(640, 480)
	waitShot(t, c, "sway followed", func(shot image.Image) bool { return matches(shot, img, 0, 0) })

	swaymsg(t, c, `[app_id="gpubroker"] floating enable, resize set 400 300, move absolute position 50 60`)
	expectMode(t, s, 400, 300)
	waitShot(t, c, "sway floating", func(shot image.Image) bool { return isWhite(shot, 52, 62) && isWhite(shot, 98, 96) })
	img = show(400, 300)
	waitShot(t, c, "sway floating followed", func(shot image.Image) bool { return matches(shot, img, 50, 60) })
	swaymsg(t, c, `[app_id="gpubroker"] fullscreen enable`)
	expectMode(t, s, 640, 480)
	swaymsg(t, c, `[app_id="gpubroker"] fullscreen disable`)
	expectMode(t, s, 400, 300)
	waitShot(t, c, "sway floating again", func(shot image.Image) bool { return matches(shot, img, 50, 60) })

	swaymsg(t, c, `[app_id="gpubroker"] resize set 500 300, move absolute position 50 60`)
	expectMode(t, s, 500, 300)
	waitShot(t, c, "sway bars", func(shot image.Image) bool {
		return isBlack(shot, 51, 61) && isBlack(shot, 98, 358) && isWhite(shot, 101, 61) && isBlack(shot, 548, 100) && isWhite(shot, 551, 100) && isWhite(shot, 48, 200)
	})
	swaymsg(t, c, `[app_id="gpubroker"] kill`)
	eventually(t, "the window is closed", func() bool { return ev.closed.Load() == 1 })
}

// TestSwayScale shows a picture on a screen of scale 1.5, pixel by pixel.
func TestSwayScale(t *testing.T) {
	c := labtest.Sway(t, lab.SwayOptions{W: 600, H: 480, Config: "output HEADLESS-1 scale 1.5"})
	s := openSink(t, wayland.Config{Display: c.Socket(), Resize: true})
	img := pattern(headW, headH, 3)
	b := buffer(t, img, dmabuf.XRGB8888, false)
	defer b.Release()
	s.Present(frameOf(b))
	expectMode(t, s, 600, 480) // 400x320 at scale 1.5
	img = pattern(600, 480, 4)
	b2 := buffer(t, img, dmabuf.XRGB8888, false)
	defer b2.Release()
	s.Present(frameOf(b2))
	waitShot(t, c, "sway scale 1.5", func(shot image.Image) bool { return matches(shot, img, 0, 0) })
}

// TestSwayHeads shows two heads in two windows.
func TestSwayHeads(t *testing.T) {
	c := labtest.Sway(t, lab.SwayOptions{W: 800, H: 300, Config: `for_window [app_id="gpubroker"] floating enable, move absolute position 10 20
for_window [app_id="gpubroker.1"] floating enable, move absolute position 400 50`})
	mode := display.Mode{Enabled: true, W: headW, H: headH}
	s := openSink(t, wayland.Config{Display: c.Socket(), Modes: []display.Mode{mode, mode}})
	var imgs [2]picture
	for head := range imgs {
		imgs[head] = pattern(headW, headH, 5+head)
		b := buffer(t, imgs[head], dmabuf.XRGB8888, false)
		defer b.Release()
		f := frameOf(b)
		f.Head = head
		s.Present(f)
	}
	waitShot(t, c, "sway heads", func(shot image.Image) bool {
		return matches(shot, imgs[0], 10, 20) && matches(shot, imgs[1], 400, 50)
	})
}

func isBlack(shot image.Image, x, y int) bool { return same(shot.At(x, y), image.Black) }
func isWhite(shot image.Image, x, y int) bool { return same(shot.At(x, y), image.White) }
