package wayland_test

import (
	"testing"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/wayland/waylandtest"
)

func TestHostPointerHidden(t *testing.T) {
	b := shm(t, 1)
	c, s, _ := connect(t, waylandtest.Config{Seat: true})
	defer closeSink(t, s)
	s.Present(frameOf(b))
	c.WaitFrames(t, 1)
	c.Enter(42)
	waylandtest.Eventually(t, "the pointer is hidden", func() bool {
		p := c.Pointers()
		return len(p) == 1 && p[0] == waylandtest.Pointer{Serial: 42}
	})
}

// last returns the newest commit of a toplevel.
func last(c *waylandtest.Compositor) waylandtest.Commit {
	k := c.Commits()
	return k[len(k)-1]
}

func TestCursor(t *testing.T) {
	for _, viewporter := range []bool{true, false} {
		b := shm(t, 1)
		c, s, _ := connect(t, waylandtest.Config{NoViewporter: !viewporter})
		s.Present(frameOf(b))
		c.WaitFrames(t, 1)
		pixels := make([]byte, 16*16*4)
		pixels[0] = 0x42
		s.ShowCursor(&display.Cursor{X: 20, Y: 10, HotX: 2, HotY: 1, W: 16, H: 16, Pixels: pixels})
		at := func(x, y int32) bool {
			k := last(c)
			return len(k.Children) == 1 && k.Children[0].X == x && k.Children[0].Y == y
		}
		waylandtest.Eventually(t, "the cursor is there", func() bool { return at(20, 10) })
		if k := last(c); k.Children[0].Pixel != 0x42 || k.Attached {
			t.Errorf("cursor pixel %#x; a scanout buffer was attached for it: %v", k.Children[0].Pixel, k.Attached)
		}
		s.MoveCursor(0, -2, -1)
		if viewporter {
			waylandtest.Eventually(t, "the cursor is cut off", func() bool {
				return at(0, 0) && last(c).Children[0].Source == [4]float64{2, 1, 14, 15}
			})
			s.MoveCursor(0, 64, 4)
			waylandtest.Eventually(t, "the cursor is outside", func() bool { return len(last(c).Children) == 0 })
			s.MoveCursor(0, 63, 4)
			waylandtest.Eventually(t, "the cursor is one column", func() bool {
				return at(63, 4) && last(c).Children[0].Source == [4]float64{0, 0, 1, 16}
			})
		} else {
			waylandtest.Eventually(t, "the cursor reaches out", func() bool { return at(-2, -1) })
		}
		// Many pictures: slots are used again, none while it is shown.
		for i := range 20 {
			pixels[0] = byte(i)
			s.ShowCursor(&display.Cursor{X: 20, Y: 10, W: 16, H: 16, Pixels: pixels})
			waylandtest.Eventually(t, "the picture changes", func() bool { return at(20, 10) && last(c).Children[0].Pixel == uint32(i) })
		}
		s.ShowCursor(&display.Cursor{W: 1 << 31, H: 1 << 31})
		waylandtest.Eventually(t, "an absurd cursor hides it", func() bool { return len(last(c).Children) == 0 })
		if n := s.Stats().FramesShm.Load(); n != 1 {
			t.Errorf("%d frames, want 1", n)
		}
		closeSink(t, s)
	}
}
