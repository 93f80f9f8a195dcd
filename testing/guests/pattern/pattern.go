// Package pattern defines pictures that a guest paints and the host looks for.
package pattern

import "image/color"

// Mark is the size of the coloured squares in the corners of a screen, in pixels.
const Mark = 24

// At returns the colour of a pixel of a w x h screen: every channel takes every
// value, no two neighbours are the same, and each corner has its own colour, so
// that swapped channels, a wrong stride and a turned picture show.
func At(x, y, w, h int) color.NRGBA {
	left, right, top, bottom := x < Mark, x >= w-Mark, y < Mark, y >= h-Mark
	switch {
	case left && top:
		return color.NRGBA{R: 255, A: 255}
	case right && top:
		return color.NRGBA{G: 255, A: 255}
	case left && bottom:
		return color.NRGBA{B: 255, A: 255}
	case right && bottom:
		return color.NRGBA{R: 255, G: 255, B: 255, A: 255}
	}
	return color.NRGBA{R: uint8(x), G: uint8(y), B: uint8(x/4 + y/2), A: 255}
}

// Size of the cursor, in pixels: what virtio-gpu's cursors have.
const CursorSize = 64

// CursorAt returns a pixel of the cursor, alpha not premultiplied: an opaque frame
// that is yellow above and left and cyan below and right, a half transparent
// white square in the middle, and nothing elsewhere.
func CursorAt(x, y int) color.NRGBA {
	const edge, far, inner = 4, 40, 12
	switch {
	case x >= far || y >= far:
		return color.NRGBA{}
	case x < edge || y < edge:
		return color.NRGBA{R: 255, G: 255, A: 255}
	case x >= far-edge || y >= far-edge:
		return color.NRGBA{G: 255, B: 255, A: 255}
	case x >= inner && x < far-inner && y >= inner && y < far-inner:
		return color.NRGBA{R: 255, G: 255, B: 255, A: 128}
	}
	return color.NRGBA{}
}
