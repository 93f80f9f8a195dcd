package wayland

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

func TestPlace(t *testing.T) {
	for name, c := range map[string]struct {
		picture, bound extent
		scale          uint32
		noViewport     bool
		want           placement
	}{
		"free":               {picture: extent{640, 480}, scale: 120, want: placement{win: extent{640, 480}, pic: extent{640, 480}}},
		"free, scale 1.5":    {picture: extent{1280, 800}, scale: 180, want: placement{win: extent{853, 533}, pic: extent{853, 533}}},
		"fills":              {picture: extent{640, 480}, bound: extent{640, 480}, scale: 120, want: placement{win: extent{640, 480}, pic: extent{640, 480}}},
		"fills, scale 1.25":  {picture: extent{1251, 626}, bound: extent{1001, 501}, scale: 150, want: placement{win: extent{1001, 501}, pic: extent{1001, 501}}},
		"wider window":       {picture: extent{640, 480}, bound: extent{1280, 480}, scale: 120, want: placement{win: extent{1280, 480}, x: 320, pic: extent{640, 480}, bars: true}},
		"higher window":      {picture: extent{640, 480}, bound: extent{320, 480}, scale: 120, want: placement{win: extent{320, 480}, y: 120, pic: extent{320, 240}, bars: true}},
		"magnified":          {picture: extent{320, 240}, bound: extent{1280, 960}, scale: 120, want: placement{win: extent{1280, 960}, pic: extent{1280, 960}}},
		"rounded mode":       {picture: extent{1000, 500}, bound: extent{1007, 500}, scale: 120, want: placement{win: extent{1007, 500}, x: 3, pic: extent{1000, 500}, bars: true}},
		"just too large":     {picture: extent{1001, 500}, bound: extent{1000, 500}, scale: 120, want: placement{win: extent{1000, 500}, pic: extent{1000, 500}}},
		"no viewport":        {picture: extent{640, 480}, scale: 120, noViewport: true, want: placement{win: extent{640, 480}, pic: extent{640, 480}}},
		"no viewport, 2":     {picture: extent{640, 480}, scale: 240, noViewport: true, want: placement{win: extent{320, 240}, pic: extent{320, 240}, bufferScale: 2}},
		"no viewport, odd":   {picture: extent{641, 480}, scale: 240, noViewport: true, want: placement{win: extent{641, 480}, pic: extent{641, 480}}},
		"no viewport, bound": {picture: extent{640, 480}, bound: extent{800, 600}, scale: 120, noViewport: true, want: placement{win: extent{800, 600}, pic: extent{640, 480}}},
	} {
		c.want.bufferScale = max(c.want.bufferScale, 1)
		if got := place(c.picture, c.bound, c.scale, !c.noViewport); got != c.want {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, c.want)
		}
	}
}

// TestPlaceKeepsShape checks every bound picture: inside the window, in its middle,
// touching two of its edges, of the right shape.
func TestPlaceKeepsShape(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Uint32Range(1, 16384)
		picture := extent{n.Draw(t, "w"), n.Draw(t, "h")}
		bound := extent{n.Draw(t, "window w"), n.Draw(t, "window h")}
		scale := rapid.Uint32Range(minScale, maxScale).Draw(t, "scale")
		p := place(picture, bound, scale, true)
		if p.win != bound || p.pic.empty() || p.x < 0 || p.y < 0 || uint32(p.x)+p.pic.w > bound.w || uint32(p.y)+p.pic.h > bound.h {
			t.Fatalf("%+v is not inside", p)
		}
		if p.bars != (p.pic != bound) {
			t.Fatalf("%+v: wrong about bars", p)
		}
		if left, right := uint32(p.x), bound.w-p.pic.w-uint32(p.x); right-left > 1 {
			t.Fatalf("%+v: %d left and %d right of it", p, left, right)
		}
		room := bound.pixels(scale)
		if room.w-picture.w < snap && room.h-picture.h < snap {
			return // not scaled
		}
		if p.pic.w != bound.w && p.pic.h != bound.h {
			t.Fatalf("%+v could be larger", p)
		}
		// Half a pixel of rounding on one side.
		skew := int64(p.pic.w)*int64(picture.h) - int64(p.pic.h)*int64(picture.w)
		if limit := int64(max(picture.w, picture.h)); p.pic.w > 1 && p.pic.h > 1 && max(skew, -skew) > limit {
			t.Fatalf("%v became %v", picture, p.pic)
		}
	})
}

// TestUserSizeIsExact: a size that the user chose becomes a mode whose picture is
// shown pixel by pixel, at every scale.
func TestUserSizeIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Uint32Range(1, 4000)
		bound := extent{n.Draw(t, "w"), n.Draw(t, "h")}
		scale := rapid.Uint32Range(unscaled, 4*unscaled).Draw(t, "scale")
		if p := place(bound.pixels(scale), bound, scale, true); p.pic != bound || p.bars {
			t.Fatalf("mode %v in a window of %v at %d/120: %+v", bound.pixels(scale), bound, scale, p)
		}
	})
}

// TestPointerFindsPixel: the guest cuts the coordinate off at the pixel that the
// pointer is in.
func TestPointerFindsPixel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Uint32Range(1, dmabufMax).Draw(t, "size")
		at := rapid.Uint32Range(0, size-1).Draw(t, "pixel")
		v := inPicture(wire.FixedInt(int32(at)), size)
		if got := uint32(uint64(v) * uint64(size) / pointerRange); got != at {
			t.Fatalf("pixel %d of %d: %d, which is pixel %d", at, size, v, got)
		}
	})
	for _, c := range []struct {
		at   float64
		size uint32
		want uint16
	}{{-5, 100, 0}, {0, 100, 0}, {50, 100, 16384}, {99.99, 100, 32765}, {100, 100, 32767}, {1e6, 100, 32767}, {3, 0, 32767}} {
		if got := inPicture(wire.FixedFloat(c.at), c.size); got != c.want {
			t.Errorf("%v of %d: %d, want %d", c.at, c.size, got, c.want)
		}
	}
}

const dmabufMax = 16384
