package wayland

import "github.com/gpubroker/gpubroker/broker/wayland/wire"

// unscaled is the scale 1: scales are in 1/120, as in wp_fractional_scale_v1.
const unscaled = 120

// Scales beyond these are a compositor's mistake.
const (
	minScale = unscaled / 4
	maxScale = unscaled * 16
)

// snap is how many pixels a picture may be smaller than its window and still be
// shown unscaled: guests round modes, CVT timings to multiples of 8 pixels.
const snap = 8

// extent is a width and height, in surface-local coordinates unless said otherwise.
type extent struct{ w, h uint32 }

func (e extent) empty() bool { return e.w == 0 || e.h == 0 }

// toPixels returns the device pixels of a length, rounded as
// wp_fractional_scale_v1 says.
func toPixels(v, scale uint32) uint32 {
	return uint32((uint64(v)*uint64(scale) + unscaled/2) / unscaled)
}

// toLocal returns the length of a number of device pixels, at least 1.
func toLocal(px, scale uint32) uint32 {
	return max(uint32((uint64(px)*unscaled+uint64(scale)/2)/uint64(scale)), 1)
}

func (e extent) pixels(scale uint32) extent {
	return extent{toPixels(e.w, scale), toPixels(e.h, scale)}
}

// placement is where a window has its picture, in surface-local coordinates.
type placement struct {
	win         extent // the window
	x, y        int32  // the picture's top left corner in the window
	pic         extent // the picture's size, which is the surface's
	bufferScale uint32 // wl_surface.set_buffer_scale; 1 with a viewport
	bars        bool   // the picture does not fill the window
}

// place puts a picture of so many pixels into a window. bound is the window's size
// if somebody else decides it, empty if it follows the picture. Without a viewport
// a picture cannot be scaled but by whole numbers; it is at the top left then.
func place(picture, bound extent, scale uint32, viewport bool) placement {
	if !viewport {
		p := placement{bufferScale: max(scale/unscaled, 1)}
		if picture.w%p.bufferScale != 0 || picture.h%p.bufferScale != 0 {
			p.bufferScale = 1 // wl_surface: the buffer's size must be a multiple of its scale
		}
		p.pic = extent{picture.w / p.bufferScale, picture.h / p.bufferScale}
		if p.win = bound; bound.empty() {
			p.win = p.pic
		}
		return p
	}
	p := placement{bufferScale: 1, pic: extent{toLocal(picture.w, scale), toLocal(picture.h, scale)}}
	if bound.empty() {
		p.win = p.pic
		return p
	}
	p.win = bound
	room := bound.pixels(scale)
	if room.w-picture.w < snap && room.h-picture.h < snap { // a larger picture wraps around
		p.pic = extent{min(p.pic.w, bound.w), min(p.pic.h, bound.h)}
	} else {
		p.pic = fit(picture, bound)
	}
	p.x, p.y = int32((bound.w-p.pic.w)/2), int32((bound.h-p.pic.h)/2)
	p.bars = p.pic != bound
	return p
}

// fit returns the largest extent of the picture's shape within bound.
func fit(picture, bound extent) extent {
	if uint64(bound.w)*uint64(picture.h) <= uint64(bound.h)*uint64(picture.w) {
		return extent{bound.w, scaled(picture.h, bound.w, picture.w, bound.h)}
	}
	return extent{scaled(picture.w, bound.h, picture.h, bound.w), bound.h}
}

// scaled returns v*num/den rounded, from 1 to limit.
func scaled(v, num, den, limit uint32) uint32 {
	n := (uint64(v)*uint64(num) + uint64(den)/2) / uint64(den)
	return uint32(min(max(n, 1), uint64(limit)))
}

// pointerRange is one more than the largest coordinate of a pointer.
const pointerRange = 1 << 15

// inPicture returns a coordinate on a surface that is size long as a part of that,
// from 0 to pointerRange-1. It rounds up, so that a guest that turns it into whole
// pixels by cutting off comes out at the pixel that the pointer is in, and not at
// the one before.
func inPicture(at wire.Fixed, size uint32) uint16 {
	n := (int64(at)*(pointerRange/256) + int64(size) - 1) / int64(max(size, 1))
	if at <= 0 {
		n = 0
	}
	return uint16(min(n, pointerRange-1))
}
