// Package scene defines the pictures that blobguest draws in a guest and that the
// host compares with a screenshot.
package scene

import (
	"image"
	"image/color"
)

// At returns a pixel of frame n: no two neighbours are the same, and neither are
// the same places of frames that follow each other.
func At(x, y, n int) color.NRGBA {
	return color.NRGBA{R: uint8(x + 7*n), G: uint8(y + 13*n), B: uint8(x/4 + y/2 + 31*n), A: 255}
}

// Rect returns the i-th rectangle of those that are redrawn one by one; each is
// inside a w x h picture.
func Rect(i, w, h int) image.Rectangle {
	rw, rh := 16+i*37%120, 8+i*23%90
	x, y := i*211%(w-rw), i*97%(h-rh)
	return image.Rect(x, y, x+rw, y+rh)
}

// Picture is what a w x h screen shows after frame n, and rects rectangles of
// the frames after it.
func Picture(w, h, n, rects int) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	draw := func(r image.Rectangle, n int) {
		for y := r.Min.Y; y < r.Max.Y; y++ {
			for x := r.Min.X; x < r.Max.X; x++ {
				img.SetNRGBA(x, y, At(x, y, n))
			}
		}
	}
	draw(img.Rect, n)
	for i := range rects {
		draw(Rect(i, w, h), n+1+i)
	}
	return img
}

// Area returns the pixels of the first rects rectangles.
func Area(w, h, rects int) (pixels uint64) {
	for i := range rects {
		r := Rect(i, w, h)
		pixels += uint64(r.Dx()) * uint64(r.Dy())
	}
	return pixels
}
