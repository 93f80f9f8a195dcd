package wayland

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// TestBufferDamageModel compares with turning each pixel by hand.
func TestBufferDamageModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Uint32Range(0, 12)
		rect := func(name string) display.Rect {
			return display.Rect{X: n.Draw(t, name+" x"), Y: n.Draw(t, name+" y"), W: n.Draw(t, name+" w"), H: n.Draw(t, name+" h")}
		}
		base, src, damage := rect("base"), rect("src"), rect("damage")
		yInvert := rapid.Bool().Draw(t, "y inverted")
		got := bufferDamage(damage, src, base, yInvert)
		inside := func(r display.Rect, x, y uint32) bool {
			return x >= r.X && x < r.X+r.W && y >= r.Y && y < r.Y+r.H
		}
		pixels := uint32(0)
		for y := range uint32(30) {
			for x := range uint32(30) {
				if !inside(damage, x, y) || !inside(src, x, y) || !inside(base, x, y) {
					continue
				}
				pixels++
				row := y - base.Y
				if yInvert {
					row = base.H - 1 - row
				}
				if !inside(got, x-base.X, row) {
					t.Fatalf("pixel %d,%d in memory row %d is not in %v", x, y, row, got)
				}
			}
		}
		if got.W*got.H != pixels {
			t.Fatalf("%v has %d pixels, want %d", got, got.W*got.H, pixels)
		}
	})
}

func TestCropOffset(t *testing.T) {
	b := &dmabuf.Buffer{Desc: dmabuf.Desc{Width: 100, Height: 50, Fourcc: dmabuf.XRGB8888, Planes: []dmabuf.Plane{{Offset: 64, Stride: 512}}}}
	crop := display.Rect{X: 3, Y: 10, W: 20, H: 5}
	if got, want := cropOffset(b, crop), uint64(64+10*512+3*4); got != want {
		t.Errorf("offset %d, want %d", got, want)
	}
	b.YInvert = true // the crop's lowest row comes first
	if got, want := cropOffset(b, crop), uint64(64+35*512+3*4); got != want {
		t.Errorf("inverted: offset %d, want %d", got, want)
	}
}

func TestClipCursor(t *testing.T) {
	for _, c := range []struct {
		x, y int32
		want clip
	}{
		{50, 40, clip{50, 40, display.Rect{W: 16, H: 8}}},
		{-4, -2, clip{0, 0, display.Rect{X: 4, Y: 2, W: 12, H: 6}}},
		{95, 97, clip{95, 97, display.Rect{W: 5, H: 3}}},
		{100, 50, clip{}},
		{-16, 0, clip{}},
		{math.MaxInt32, math.MaxInt32, clip{}},
		{math.MinInt32, 0, clip{}},
	} {
		if got := clipCursor(c.x, c.y, 16, 8, 100, 100); got != c.want {
			t.Errorf("cursor at %d,%d: %+v, want %+v", c.x, c.y, got, c.want)
		}
	}
}

func TestFrameReplace(t *testing.T) {
	r := func(x, w uint32) display.Rect { return display.Rect{X: x, W: w, H: 1} }
	a, b := &dmabuf.Buffer{}, &dmabuf.Buffer{}
	var f frame
	if old := f.replace(frame{buf: a, src: r(0, 9), damage: r(0, 1)}); old.buf != nil {
		t.Error("an empty frame had a buffer")
	}
	if old := f.replace(frame{buf: b, src: r(0, 9), damage: r(3, 1)}); old.buf != a || f.buf != b || f.damage != r(0, 4) {
		t.Errorf("damage %v, want the union", f.damage)
	}
	if f.replace(frame{buf: a, src: r(0, 5), damage: r(3, 1)}); f.damage != r(0, 5) {
		t.Errorf("damage %v after a change of size, want all", f.damage)
	}
}
