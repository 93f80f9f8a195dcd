package shmfallback

import "fmt"

// Rect is a rectangle in pixels; W or H 0 means empty. It has the fields of the
// display package's Rect, so that each converts to the other.
type Rect struct{ X, Y, W, H uint32 }

// Empty reports whether r covers no pixel.
func (r Rect) Empty() bool { return r.W == 0 || r.H == 0 }

// Union returns the smallest rectangle that covers both. Both must end below
// 2^32.
func (r Rect) Union(o Rect) Rect {
	if r.Empty() {
		return o
	}
	if o.Empty() {
		return r
	}
	x0, y0 := min(r.X, o.X), min(r.Y, o.Y)
	x1, y1 := max(r.X+r.W, o.X+o.W), max(r.Y+r.H, o.Y+o.H)
	return Rect{x0, y0, x1 - x0, y1 - y0}
}

// clip returns the part of r inside a w×h picture.
func (r Rect) clip(w, h uint32) Rect {
	if r.X >= w || r.Y >= h {
		return Rect{}
	}
	return Rect{r.X, r.Y, min(r.W, w-r.X), min(r.H, h-r.Y)}
}

func (r Rect) area() uint64 { return uint64(r.W) * uint64(r.H) }

func (r Rect) String() string { return fmt.Sprintf("%dx%d+%d+%d", r.W, r.H, r.X, r.Y) }
