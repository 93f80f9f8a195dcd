package relay

import "image"

// maxRects is how many rectangles are kept apart; more become one around them.
const maxRects = 16

// region is a set of rectangles, in pixels of a buffer. All says everything.
type region struct {
	rects []image.Rectangle
	all   bool
}

// add adds a rectangle.
func (g *region) add(r image.Rectangle) {
	if g.all || r.Empty() {
		return
	}
	for _, have := range g.rects {
		if r.In(have) {
			return
		}
	}
	kept := g.rects[:0]
	for _, have := range g.rects {
		if !have.In(r) {
			kept = append(kept, have)
		}
	}
	g.rects = append(kept, r)
	if len(g.rects) > maxRects {
		box := g.rects[0]
		for _, have := range g.rects[1:] {
			box = box.Union(have)
		}
		g.rects = append(g.rects[:0], box)
	}
}

// union adds another region.
func (g *region) union(o region) {
	if o.all {
		g.all, g.rects = true, nil
	}
	for _, r := range o.rects {
		g.add(r)
	}
}

// within returns the rectangles of g inside bounds.
func (g region) within(bounds image.Rectangle) []image.Rectangle {
	if g.all {
		return []image.Rectangle{bounds}
	}
	var out []image.Rectangle
	for _, r := range g.rects {
		if r = r.Intersect(bounds); !r.Empty() {
			out = append(out, r)
		}
	}
	return out
}

// rect is a rectangle as requests give it: any numbers.
func rect(x, y, w, h int32) image.Rectangle {
	if w <= 0 || h <= 0 {
		return image.Rectangle{}
	}
	return image.Rect(int(x), int(y), int(x)+int(w), int(y)+int(h))
}
