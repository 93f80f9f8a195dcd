package qemudisplay_test

import (
	"encoding/binary"
	"testing"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/qemudisplay"
	"github.com/gpubroker/gpubroker/broker/qemudisplay/qemudisplaytest"
)

func TestCursor(t *testing.T) {
	r := newRig(t, qemudisplaytest.Options{}, qemudisplay.Config{})
	pix := func(w, h uint32) []byte {
		p := make([]byte, w*h*4)
		for i := range w * h {
			binary.LittleEndian.PutUint32(p[i*4:], 0xff000000|i%w<<8|i/w)
		}
		return p
	}
	for i, c := range []struct {
		w, h, hotX, hotY   uint32
		x0, y0             uint32 // first pixel that is shown
		wantHotX, wantHotY uint32
	}{
		{64, 64, 3, 4, 0, 0, 3, 4},
		{24, 32, 5, 6, 0, 0, 5, 6},
		{128, 128, 10, 11, 0, 0, 10, 11},
		{128, 96, 64, 95, 32, 32, 32, 63},
		{256, 256, 255, 130, 192, 98, 63, 32},
		{65, 1, 0xffffffff, 0xffffffff, 1, 0, 63, 63},
	} {
		r.s.ShowCursor(&display.Cursor{Head: 0, X: 100, Y: int32(200 + i), HotX: c.hotX, HotY: c.hotY, W: c.w, H: c.h, Pixels: pix(c.w, c.h)})
		r.q.Wait("cursor", func() bool { return r.q.Cursor(0).Y == uint32(200+i) })
		got := r.q.Cursor(0)
		if !got.Visible || got.X != 100 || got.HotX != c.wantHotX || got.HotY != c.wantHotY {
			t.Errorf("%dx%d: visible %v, hot spot %d,%d, want %d,%d", c.w, c.h, got.Visible, got.HotX, got.HotY, c.wantHotX, c.wantHotY)
		}
		for y := range uint32(64) {
			for x := range uint32(64) {
				var want uint32
				if x < c.w && y < c.h {
					want = 0xff000000 | (c.x0+x)<<8 | (c.y0 + y)
				}
				if v := binary.LittleEndian.Uint32(got.Pixels[(y*64+x)*4:]); v != want {
					t.Fatalf("%dx%d: pixel %d,%d is %#x, want %#x", c.w, c.h, x, y, v, want)
				}
			}
		}
	}
	r.s.MoveCursor(0, 1, 2)
	r.q.Wait("move", func() bool { c := r.q.Cursor(0); return c.X == 1 && c.Y == 2 && c.Visible })
	if n := r.q.Count("CURSOR_UPDATE"); n != 6 {
		t.Errorf("%d pictures sent", n)
	}
	// A new display gets the picture again.
	r.attach()
	r.q.Wait("cursor again", func() bool { return r.q.Count("CURSOR_UPDATE") == 7 })
	r.s.ShowCursor(&display.Cursor{Head: 0, X: 9, Y: 9})
	r.q.Wait("hide", func() bool { return !r.q.Cursor(0).Visible })
	// Too few pixels: hidden, not read past the end.
	r.s.ShowCursor(&display.Cursor{Head: 0, W: 64, H: 64, Pixels: make([]byte, 64)})
	if r.logs.FilterMessage("cursor hidden").Len() != 1 {
		t.Error("a cursor without pixels was shown")
	}
	r.s.ShowCursor(&display.Cursor{Head: 99, W: 1, H: 1, Pixels: make([]byte, 4)})
	r.s.MoveCursor(-1, 0, 0)
}
