package dmabufcase

import (
	"fmt"
	"image"
)

// size is a target's size in pixels.
type size struct{ w, h int }

// pictureCase shows one target: cleared, drawn on, and changed in one part.
func pictureCase(f *format, sz size, y0top bool) Case {
	name := fmt.Sprintf("%s-%dx%d", f.name, sz.w, sz.h)
	if y0top {
		name += "-y0top"
	}
	return Case{Name: name, Keep: sz.w > 600, Run: func(r *run) error {
		t, err := r.target3D(f, sz, y0top)
		if err != nil {
			return err
		}
		ref := newReference(sz.w, sz.h)

		// Half transparent: a scanout is opaque whatever its alpha says.
		c := rgba{uint8(200 - sz.w%100), uint8(60 + sz.h%90), 17, 128}
		t.clear(c)
		ref.fill(t.bounds, c)
		if err := r.present(t, "clear", ref, t.bounds); err != nil {
			return err
		}

		s := newScene(ref)
		s.composite()
		t.draw(s)
		stamp := image.Rect(0, 0, 7, 5).Add(image.Pt(sz.w/2, sz.h/3))
		t.upload(stamp, ref, func(x, y int) rgba { return rgba{uint8(31 * x), uint8(57 * y), uint8(x ^ y), 200} })
		if err := r.present(t, "picture", ref, t.bounds); err != nil {
			return err
		}

		// A change in the upper left part, damaged alone: a compositor repaints
		// only there, so damage that is turned over or shifted shows.
		part := image.Rect(sz.w/5, sz.h/7, sz.w/5+sz.w/4+1, sz.h/7+sz.h/6+1).Intersect(t.bounds)
		s = newScene(ref)
		s.rect(part, rgba{90, 180, 250, 255})
		t.draw(s)
		return r.present(t, "part", ref, part)
	}}
}

// present submits what was drawn, flushes a part and looks.
func (r *run) present(t *target, what string, ref *reference, part image.Rectangle) error {
	if err := r.guest.submit(); err != nil {
		return err
	}
	if r.shown != t {
		if err := r.show(t, t.bounds); err != nil {
			return err
		}
	}
	if err := r.flush(t, part); err != nil {
		return err
	}
	return r.look(what, ref)
}

// pictures crosses formats and sizes; the orientation alternates, and of the
// first two formats each size comes both ways.
func pictures(formats []format, sizes []size) []Case {
	var cases []Case
	for i := range formats {
		for j, sz := range sizes {
			y0top := (i+j)%2 == 1
			cases = append(cases, pictureCase(&formats[i], sz, y0top))
			if i < 2 {
				cases = append(cases, pictureCase(&formats[i], sz, !y0top))
			}
		}
	}
	return cases
}
