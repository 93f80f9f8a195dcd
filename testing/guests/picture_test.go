package guests_test

import (
	"image"
	"image/color"
	"image/draw"

	"github.com/gpubroker/gpubroker/testing/golden"
	"github.com/gpubroker/gpubroker/testing/guests/pattern"
)

// painted is the pattern as a screen shows it.
func painted(w, h int) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			img.SetNRGBA(x, y, pattern.At(x, y, w, h))
		}
	}
	return img
}

// withCursor draws guestpaint's cursor with its top left corner at x, y.
func withCursor(img *image.NRGBA, x, y int) *image.NRGBA {
	return drawCursor(img, x, y, func(c color.NRGBA) color.NRGBA { return c })
}

func drawCursor(img *image.NRGBA, x, y int, look func(color.NRGBA) color.NRGBA) *image.NRGBA {
	out := cut(img, img.Rect)
	for cy := range pattern.CursorSize {
		for cx := range pattern.CursorSize {
			at := image.Pt(x+cx, y+cy)
			if !at.In(img.Rect) {
				continue
			}
			c, below := look(pattern.CursorAt(cx, cy)), img.NRGBAAt(at.X, at.Y)
			out.SetNRGBA(at.X, at.Y, color.NRGBA{
				R: over(c.R, below.R, c.A), G: over(c.G, below.G, c.A), B: over(c.B, below.B, c.A), A: 255,
			})
		}
	}
	return out
}

// cut copies a part of a picture.
func cut(img image.Image, r image.Rectangle) *image.NRGBA {
	out := image.NewNRGBA(image.Rectangle{Max: r.Size()})
	draw.Draw(out, out.Rect, img, r.Min, draw.Src)
	return out
}

func over(top, below, alpha uint8) uint8 {
	return uint8((int(top)*int(alpha) + int(below)*(255-int(alpha)) + 127) / 255)
}

// exact allows nothing.
var exact = golden.Tolerance{}

// blended allows for the rounding of half transparent pixels.
var blended = golden.Tolerance{Channel: 2}
