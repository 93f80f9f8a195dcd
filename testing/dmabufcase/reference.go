package dmabufcase

import (
	"fmt"
	"image"
	"slices"

	"github.com/gpubroker/gpubroker/testing/westoncap"
)

// reference is the picture that the CPU painted, and which of its pixels may be
// off by one in each component.
type reference struct {
	westoncap.Picture
	soft []bool
}

func newReference(w, h int) *reference {
	return &reference{Picture: *westoncap.NewPicture(w, h), soft: make([]bool, w*h)}
}

func (r *reference) set(x, y int, c rgba) {
	r.Pix[y*r.W+x] = c.rgb()
	r.soft[y*r.W+x] = false
}

func (r *reference) soften(x, y int) { r.soft[y*r.W+x] = true }

func (r *reference) fill(area image.Rectangle, c rgba) {
	for y := area.Min.Y; y < area.Max.Y; y++ {
		row := r.Pix[y*r.W+area.Min.X : y*r.W+area.Max.X]
		for x := range row {
			row[x] = c.rgb()
		}
		clear(r.soft[y*r.W+area.Min.X : y*r.W+area.Max.X])
	}
}

// part returns a copy of a rectangle.
func (r *reference) part(area image.Rectangle) *reference {
	out := newReference(area.Dx(), area.Dy())
	for y := range out.H {
		at := (area.Min.Y+y)*r.W + area.Min.X
		copy(out.Pix[y*out.W:][:out.W], r.Pix[at:])
		copy(out.soft[y*out.W:][:out.W], r.soft[at:])
	}
	return out
}

// paste puts the opaque texels of a cursor over the picture with its top left
// corner at x, y, which may be outside.
func (r *reference) paste(cur *cursor, x, y int) *reference {
	out := r.part(image.Rect(0, 0, r.W, r.H))
	for cy := range cur.h {
		for cx := range cur.w {
			at := image.Pt(x+cx, y+cy)
			if c := cur.at(cx, cy); c.a != 0 && at.In(image.Rect(0, 0, r.W, r.H)) {
				out.set(at.X, at.Y, c)
			}
		}
	}
	return out
}

// diff is how a screenshot differs.
type diff struct {
	wrong     int // pixels
	worst     int // largest difference of a component
	first     image.Point
	got, want uint32
}

func (d *diff) String() string {
	return fmt.Sprintf("%d wrong pixels, worst component by %d, first at %v: %06x, want %06x", d.wrong, d.worst, d.first, d.got, d.want)
}

// softness is how far the components of a soft pixel may be off, of 255.
const softness = 1

// compare looks for the reference in the middle of a black output, where a kiosk
// shell puts windows. The output's other pixels have to be black.
func (r *reference) compare(shot *westoncap.Picture) diff {
	var d diff
	window := image.Rect(0, 0, r.W, r.H).Add(image.Pt((shot.W-r.W)/2, (shot.H-r.H)/2))
	black := make([]uint32, shot.W)
	for y := range shot.H {
		row := shot.Pix[y*shot.W:][:shot.W]
		inside := y >= window.Min.Y && y < window.Max.Y
		if r.sameRow(row, black, window, y) {
			continue
		}
		for x, got := range row {
			want, soft := uint32(0), false
			if inside && x >= window.Min.X && x < window.Max.X {
				at := (y-window.Min.Y)*r.W + x - window.Min.X
				want, soft = r.Pix[at], r.soft[at]
			}
			if got == want {
				continue
			}
			off := apart(got, want)
			if soft && off <= softness {
				continue
			}
			if d.wrong == 0 {
				d.first, d.got, d.want = image.Pt(x, y), got, want
			}
			d.wrong++
			d.worst = max(d.worst, off)
		}
	}
	return d
}

// sameRow reports whether row y of a screenshot is exactly right, without a look at
// each pixel.
func (r *reference) sameRow(row, black []uint32, window image.Rectangle, y int) bool {
	if y < window.Min.Y || y >= window.Max.Y {
		return slices.Equal(row, black)
	}
	want := r.Pix[(y-window.Min.Y)*r.W:][:r.W]
	return slices.Equal(row[window.Min.X:window.Max.X], want) &&
		slices.Equal(row[:window.Min.X], black[:window.Min.X]) && slices.Equal(row[window.Max.X:], black[window.Max.X:])
}

// apart is the largest difference of a component.
func apart(a, b uint32) int {
	worst := 0
	for shift := 0; shift < 24; shift += 8 {
		d := int(a>>shift&255) - int(b>>shift&255)
		worst = max(worst, d, -d)
	}
	return worst
}
