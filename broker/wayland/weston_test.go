package wayland_test

import (
	"image"
	"image/color"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/wayland"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/testing/golden"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

const (
	headW = 320
	headH = 200
)

func newSink(t *testing.T, socket string, ev display.Events) *wayland.Sink {
	t.Helper()
	return openSink(t, wayland.Config{Display: socket, Events: ev})
}

// openSink makes a sink with one head of headW x headH unless cfg has others.
func openSink(t *testing.T, cfg wayland.Config) *wayland.Sink {
	t.Helper()
	cfg.Title, cfg.Log = "test", zaptest.NewLogger(t)
	if cfg.Modes == nil {
		cfg.Modes = []display.Mode{{Enabled: true, W: headW, H: headH}}
	}
	s, err := wayland.NewSink(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// expect waits until the compositor's output looks like want.
func expect(t *testing.T, c *lab.Compositor, name string, want image.Image) {
	t.Helper()
	end := time.Now().Add(40 * time.Second) // an emulated guest's compositor takes its time
	for {
		got, err := c.Screenshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if golden.Compare(got, want, golden.Tolerance{}).OK() {
			if os.Getenv("GPUBROKER_KEEP") != "" {
				golden.Keep(t, name, got)
			}
			return
		}
		if time.Now().After(end) {
			golden.Equal(t, name, got, want, golden.Tolerance{})
			return
		}
	}
}

// onWestons runs a test against both renderers: gl copies damaged rectangles,
// pixman reads our memory when it repaints.
func onWestons(t *testing.T, f func(t *testing.T, c *lab.Compositor, s *wayland.Sink)) {
	for _, renderer := range []string{"pixman", "gl"} {
		t.Run(renderer, func(t *testing.T) {
			c := labtest.Weston(t, lab.WestonOptions{Renderer: renderer, W: headW, H: headH})
			f(t, c, newSink(t, c.Socket(), nil))
		})
	}
}

func TestWestonColours(t *testing.T) {
	onWestons(t, func(t *testing.T, c *lab.Compositor, s *wayland.Sink) {
		for i, f := range []dmabuf.Fourcc{dmabuf.XRGB8888, dmabuf.ARGB8888, dmabuf.XBGR8888, dmabuf.ABGR8888} {
			for _, yInvert := range []bool{false, true} {
				img := pattern(headW, headH, 2*i)
				if yInvert {
					img = pattern(headW, headH, 2*i+1)
				}
				b := buffer(t, img, f, yInvert)
				s.Present(frameOf(b))
				expect(t, c, "colours "+f.String(), img)
				s.Drop(b)
				b.Release()
			}
		}
		if n := s.Stats().FramesShm.Load(); n != 8 {
			t.Errorf("%d frames as shared memory, want 8", n)
		}
	})
}

// TestWestonDamage changes the whole buffer but damages a part: the gl renderer
// then shows the change in just that part, whatever the buffer's orientation.
func TestWestonDamage(t *testing.T) {
	c := labtest.Weston(t, lab.WestonOptions{Renderer: "gl", W: headW, H: headH})
	s := newSink(t, c.Socket(), nil)
	before, after := pattern(headW, headH, 1), pattern(headW, headH, 2)
	for _, yInvert := range []bool{false, true} {
		b := buffer(t, before, dmabuf.XRGB8888, yInvert)
		s.Present(frameOf(b))
		expect(t, c, "before damage", before)
		draw(b, after, whole(b))
		f := frameOf(b)
		f.Damage = display.Rect{X: 40, Y: 24, W: 100, H: 60}
		s.Present(f)
		expect(t, c, "damage", paste(before, part(after, f.Damage), 40, 24))
		s.Drop(b)
		b.Release()
	}
}

func TestWestonCrop(t *testing.T) {
	onWestons(t, func(t *testing.T, c *lab.Compositor, s *wayland.Sink) {
		for i, yInvert := range []bool{false, true} {
			img := pattern(headW+100, headH+50, 3+i)
			b := buffer(t, img, dmabuf.XRGB8888, yInvert)
			f := frameOf(b)
			f.Source = display.Rect{X: 70, Y: 15, W: headW, H: headH}
			f.Damage = f.Source
			s.Present(f)
			expect(t, c, "crop", part(img, f.Source))
			s.Drop(b)
			b.Release()
		}
	})
}

func TestWestonCursor(t *testing.T) {
	onWestons(t, func(t *testing.T, c *lab.Compositor, s *wayland.Sink) {
		img := pattern(headW, headH, 5)
		for _, yInvert := range []bool{false, true} {
			b := buffer(t, img, dmabuf.XRGB8888, yInvert)
			s.Present(frameOf(b))
			ptr := arrow(32)
			cur := &display.Cursor{X: 100, Y: 50, HotX: 3, HotY: 5, W: 32, H: 32, Pixels: argb(ptr)}
			s.ShowCursor(cur)
			clear(cur.Pixels)
			expect(t, c, "cursor", paste(img, ptr, 100, 50))
			for _, p := range []image.Point{{-3, -5}, {headW - 4, headH - 9}, {200, 100}} {
				s.MoveCursor(0, int32(p.X), int32(p.Y))
				expect(t, c, "cursor moved", paste(img, ptr, p.X, p.Y))
			}
			big := arrow(96)
			s.ShowCursor(&display.Cursor{X: 150, Y: 60, W: 96, H: 96, Pixels: argb(big)})
			expect(t, c, "large cursor", paste(img, big, 150, 60))
			s.ShowCursor(&display.Cursor{X: 150, Y: 60})
			expect(t, c, "no cursor", img)
			s.Drop(b)
			b.Release()
		}
		if n := s.Stats().FramesShm.Load(); n != 2 {
			t.Errorf("%d frames committed, want 2: a cursor needs no frame", n)
		}
	})
}

// TestWestonRestart takes the compositor away and brings another one: the window
// is back with its picture and its cursor, without a new frame.
func TestWestonRestart(t *testing.T) {
	first := labtest.Weston(t, lab.WestonOptions{W: headW, H: headH})
	link := filepath.Join(t.TempDir(), "socket")
	if err := os.Symlink(first.Socket(), link); err != nil {
		t.Fatal(err)
	}
	ev := &events{}
	s := newSink(t, link, ev)
	img, ptr := pattern(headW, headH, 7), arrow(32)
	b := buffer(t, img, dmabuf.XRGB8888, false)
	defer b.Release()
	s.Present(frameOf(b))
	s.ShowCursor(&display.Cursor{X: 10, Y: 20, W: 32, H: 32, Pixels: argb(ptr)})
	expect(t, first, "before restart", paste(img, ptr, 10, 20))
	first.Stop()
	eventually(t, "the read ends", func() bool { return !b.Reading() })

	second := labtest.Weston(t, lab.WestonOptions{W: headW, H: headH})
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(second.Socket(), link); err != nil {
		t.Fatal(err)
	}
	expect(t, second, "after restart", paste(img, ptr, 10, 20))
	if n := s.Stats().Reconnects.Load(); n != 1 {
		t.Errorf("%d reconnects, want 1", n)
	}
	if n := ev.refreshes.Load(); n != 1 {
		t.Errorf("%d refreshes asked for, want 1", n)
	}
	if n := s.Stats().ImportsLive.Load(); n != 1 {
		t.Errorf("%d imports live, want 1", n)
	}
}

// TestWestonDisable blanks the head, cursor included, and brings it back.
func TestWestonDisable(t *testing.T) {
	c := labtest.Weston(t, lab.WestonOptions{W: headW, H: headH})
	s := newSink(t, c.Socket(), nil)
	black := pattern(headW, headH, 0)
	for i := range black.Pix {
		black.Pix[i] = 255 * uint8(i%4/3)
	}
	img := pattern(headW, headH, 8)
	b := buffer(t, img, dmabuf.XRGB8888, false)
	defer b.Release()
	ptr := arrow(32)
	s.ShowCursor(&display.Cursor{X: 9, Y: 9, W: 32, H: 32, Pixels: argb(ptr)})
	for range 2 {
		s.Present(frameOf(b))
		expect(t, c, "enabled", paste(img, ptr, 9, 9))
		s.Disable(0)
		expect(t, c, "disabled", black)
		eventually(t, "the buffer is free", func() bool { return !b.Reading() })
	}
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	end := time.Now().Add(10 * time.Second)
	for !f() {
		if time.Now().After(end) {
			t.Fatalf("10 s have passed and still not: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// TestSway shows a window on a compositor of another family (wlroots), which
// floats it because its size is fixed: the picture must be somewhere, whole.
func TestSway(t *testing.T) {
	c := labtest.Sway(t, lab.SwayOptions{W: 640, H: 480})
	s := newSink(t, c.Socket(), nil)
	img, ptr := pattern(headW, headH, 9), arrow(32)
	for _, yInvert := range []bool{false, true} {
		b := buffer(t, img, dmabuf.XRGB8888, yInvert)
		s.Present(frameOf(b))
		s.ShowCursor(&display.Cursor{X: 100, Y: 50, W: 32, H: 32, Pixels: argb(ptr)})
		want := paste(img, ptr, 100, 50)
		var shot image.Image
		eventually(t, "the picture is on the screen", func() bool {
			var err error
			if shot, err = c.Screenshot(t.Context()); err != nil {
				t.Fatal(err)
			}
			return find(shot, want)
		})
		if os.Getenv("GPUBROKER_KEEP") != "" {
			golden.Keep(t, "sway", shot)
		}
		s.Drop(b)
		b.Release()
	}
	if n := s.Stats().Reconnects.Load(); n != 0 {
		t.Errorf("%d reconnects", n)
	}
}

// find reports whether want is a part of shot.
func find(shot image.Image, want picture) bool {
	size, limit := want.Bounds().Size(), shot.Bounds()
	for y := limit.Min.Y; y <= limit.Max.Y-size.Y; y++ {
		for x := limit.Min.X; x <= limit.Max.X-size.X; x++ {
			if same(shot.At(x, y), want.At(0, 0)) && same(shot.At(x+size.X-1, y+size.Y-1), want.At(size.X-1, size.Y-1)) && matches(shot, want, x, y) {
				return true
			}
		}
	}
	return false
}

func matches(shot image.Image, want picture, x, y int) bool {
	for wy := range want.Rect.Dy() {
		for wx := range want.Rect.Dx() {
			if !same(shot.At(x+wx, y+wy), want.At(wx, wy)) {
				return false
			}
		}
	}
	return true
}

func same(a, b color.Color) bool {
	ar, ag, ab, _ := a.RGBA()
	br, bg, bb, _ := b.RGBA()
	return ar == br && ag == bg && ab == bb
}
