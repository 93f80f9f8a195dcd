package wayland_test

import (
	"testing"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/wayland"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/waylandtest"
)

// TestFractionalScale: one pixel of the guest is one of the screen, and a resized
// window's mode counts pixels of the screen.
func TestFractionalScale(t *testing.T) {
	c, s, ev := oneWindow(t, waylandtest.Config{Fractional: 180, Scale: 2}, wayland.Config{Resize: true}, 1280, 800)
	expectLook(t, c, "scale 1.5", look{geometry: waylandtest.Geometry{W: 853, H: 533}, dest: [2]int32{853, 533}})
	k := c.Frames()[0]
	if k.MinW != 43 || k.MinH != 43 {
		t.Errorf("least size %dx%d, want 64 pixels at scale 1.5: 43x43", k.MinW, k.MinH)
	}
	if k.Opaque != (display.Rect{W: 853, H: 533}) || k.Scale != 1 {
		t.Errorf("opaque %v, buffer scale %d", k.Opaque, k.Scale)
	}
	c.Resize(853, 533, proto.XdgToplevelStateActivated)
	c.Resize(901, 501)
	expectMode(t, s, 1352, 752)
	present(t, s, 1352, 752)
	expectLook(t, c, "the guest followed", look{geometry: waylandtest.Geometry{W: 901, H: 501}, dest: [2]int32{901, 501}})
	c.Rescale(120, 1) // to another screen
	expectMode(t, s, 901, 501)
	present(t, s, 901, 501)
	expectLook(t, c, "scale 1", look{geometry: waylandtest.Geometry{W: 901, H: 501}, dest: unset})
	if n := ev.modes.Load(); n != 2 {
		t.Errorf("%d mode changes, want 2", n)
	}
	// The cursor is scaled with the picture.
	c.Rescale(240, 2)
	expectMode(t, s, 1802, 1002)
	present(t, s, 1802, 1002)
	s.ShowCursor(&display.Cursor{X: 100, Y: 51, W: 16, H: 16, Pixels: argb(arrow(16))})
	waylandtest.Eventually(t, "the cursor", func() bool {
		all := c.Commits()
		ch := all[len(all)-1].Children
		return len(ch) == 1 && ch[0].X == 50 && ch[0].Y == 25 && ch[0].Dest == [2]int32{8, 8}
	})
}

// TestIntegerScale: without wp_fractional_scale_v1 the surface's own scale counts, or
// with an old wl_compositor that of the output; without a viewport only whole numbers
// that divide the picture.
func TestIntegerScale(t *testing.T) {
	for name, c := range map[string]struct {
		comp  waylandtest.Config
		w, h  uint32
		want  look
		scale int32
	}{
		"surface": {waylandtest.Config{Scale: 2}, 640, 400,
			look{geometry: waylandtest.Geometry{W: 320, H: 200}, dest: [2]int32{320, 200}}, 1},
		"output": {waylandtest.Config{Scale: 2, Compositor: 5}, 640, 400,
			look{geometry: waylandtest.Geometry{W: 320, H: 200}, dest: [2]int32{320, 200}}, 1},
		"surface without viewport": {waylandtest.Config{Scale: 2, NoViewporter: true, Fractional: 180}, 640, 400,
			look{geometry: waylandtest.Geometry{W: 320, H: 200}, dest: unset}, 2},
		"output without viewport": {waylandtest.Config{Scale: 2, NoViewporter: true, Compositor: 4}, 640, 400,
			look{geometry: waylandtest.Geometry{W: 320, H: 200}, dest: unset}, 2},
		"odd picture without viewport": {waylandtest.Config{Scale: 2, NoViewporter: true}, 641, 400,
			look{geometry: waylandtest.Geometry{W: 641, H: 400}, dest: unset}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			comp, s, _ := oneWindow(t, c.comp, wayland.Config{}, c.w, c.h)
			present(t, s, c.w, c.h)
			frames := comp.WaitFrames(t, 2)
			expectLook(t, comp, name, c.want)
			if got := frames[1].Scale; got != c.scale {
				t.Errorf("buffer scale %d, want %d", got, c.scale)
			}
		})
	}
}
