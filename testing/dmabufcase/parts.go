package dmabufcase

import (
	"fmt"
	"image"
)

// cropCase shows parts of a target that is larger than the screen: the head pans
// over it, changes the size of the part, and damage lies in and beside it.
func cropCase(f *format, sz size, y0top bool) Case {
	name := fmt.Sprintf("crop-%s-%dx%d", f.name, sz.w, sz.h)
	if y0top {
		name += "-y0top"
	}
	return Case{Name: name, Keep: true, Run: func(r *run) error {
		t, err := r.target3D(f, sz, y0top)
		if err != nil {
			return err
		}
		ref := newReference(sz.w, sz.h)
		s := newScene(ref)
		s.composite()
		t.draw(s)
		if err := r.guest.submit(); err != nil {
			return err
		}
		w, h := sz.w/2+1, sz.h/2+1
		parts := []image.Rectangle{
			image.Rect(0, 0, w, h),
			image.Rect(0, 0, w, h).Add(image.Pt(sz.w-w, sz.h-h)),
			image.Rect(0, 0, w, h).Add(image.Pt(17, 9)),
			image.Rect(3, 5, sz.w-1, sz.h/3),
			t.bounds,
			image.Rect(sz.w/3, 1, sz.w/3+1, 2),
			image.Rect(0, 0, w, h).Add(image.Pt(17, 9)),
		}
		for _, part := range parts {
			if err := r.show(t, part); err != nil {
				return err
			}
			if err := r.flush(t, t.bounds); err != nil {
				return err
			}
			if err := r.look(fmt.Sprint("part ", part), ref.part(part)); err != nil {
				return err
			}
		}

		part := parts[len(parts)-1]
		s = newScene(ref)
		change := image.Rect(part.Min.X-4, part.Min.Y+20, part.Min.X+30, part.Min.Y+33).Intersect(t.bounds)
		s.rect(change, rgba{255, 0, 255, 255})
		t.draw(s)
		if err := r.guest.submit(); err != nil {
			return err
		}
		if err := r.flush(t, change); err != nil {
			return err
		}
		return r.look("a change on the edge of the part", ref.part(part))
	}}
}

// case2D shows a classic 2D resource: the guest's CPU draws, TRANSFER_TO_HOST_2D
// copies, first all and then a part.
func case2D(f *format, sz size) Case {
	return Case{Name: fmt.Sprintf("2d-%s-%dx%d", f.name, sz.w, sz.h), Flat: true, Run: func(r *run) error {
		ref := newReference(sz.w, sz.h)
		newScene(ref).composite()
		t, err := r.target2D(f, ref)
		if err != nil {
			return err
		}
		if err := r.show(t, t.bounds); err != nil {
			return err
		}
		if err := r.flush(t, t.bounds); err != nil {
			return err
		}
		if err := r.look("2D", ref); err != nil {
			return err
		}
		part := image.Rect(5, 7, 40, 19).Intersect(t.bounds)
		ref.fill(part, rgba{10, 200, 90, 255})
		t.paint(ref, part)
		if err := t.transfer(part); err != nil {
			return err
		}
		if err := r.flush(t, part); err != nil {
			return err
		}
		return r.look("part of 2D", ref)
	}}
}

// pointerCase moves a pointer over a picture, of a 3D or a 2D resource, beyond its
// edges too, and hides it.
func pointerCase(f *format, sz size, flat bool) Case {
	c := Case{Name: fmt.Sprintf("pointer-3d-%s-%dx%d", f.name, sz.w, sz.h), Keep: true}
	if flat {
		c.Name, c.Flat = fmt.Sprintf("pointer-2d-%s-%dx%d", f.name, sz.w, sz.h), true
	}
	c.Run = func(r *run) error {
		ref := newReference(sz.w, sz.h)
		s := newScene(ref)
		s.composite()
		t, err := r.background(f, s, flat)
		if err != nil {
			return err
		}
		if err := r.show(t, t.bounds); err != nil {
			return err
		}
		if err := r.flush(t, t.bounds); err != nil {
			return err
		}
		if err := r.point(ref); err != nil {
			return err
		}
		if err := r.settle("no pointer", ref); err != nil {
			return err
		}
		if r.warming {
			return nil
		}
		// The file shows the pointer.
		return r.pointerPicture(ref)
	}
	return c
}

func (r *run) background(f *format, s *scene, flat bool) (*target, error) {
	if flat {
		return r.target2D(f, s.ref)
	}
	t, err := r.target3D(f, size{s.w, s.h}, false)
	if err != nil {
		return nil, err
	}
	t.draw(s)
	return t, r.guest.submit()
}

// The hot spot of the pointer, in its pixels. It changes nothing: the position that
// a guest gives is that of the picture's corner.
const hotX, hotY = 3, 5

// point walks a pointer around and takes it away.
func (r *run) point(ref *reference) error {
	arrow := newArrow(64)
	r.res.PointerBytes += 2 * uint64(len(arrow.pix))
	cur, err := r.guest.cursorTarget(arrow)
	if err != nil {
		return err
	}
	if err := r.guest.showCursor(cur.id, 100, 50, hotX, hotY); err != nil {
		return err
	}
	if err := r.settle("pointer", ref.paste(arrow, 100, 50)); err != nil {
		return err
	}
	for _, p := range []image.Point{{0, 0}, {ref.W - 1, ref.H - 1}, {-20, 30}, {ref.W / 2, ref.H / 2}} {
		if err := r.guest.moveCursor(p.X, p.Y); err != nil {
			return err
		}
		if err := r.settle(fmt.Sprint("pointer at ", p), ref.paste(arrow, p.X, p.Y)); err != nil {
			return err
		}
	}
	if err := r.guest.showCursor(0, 0, 0, 0, 0); err != nil {
		return err
	}
	return cur.unref()
}

// pointerPicture leaves a screenshot with a pointer and hides it again.
func (r *run) pointerPicture(ref *reference) error {
	arrow := newArrow(32)
	r.res.PointerBytes += 2 * uint64(len(arrow.pix))
	cur, err := r.guest.cursorTarget(arrow)
	if err != nil {
		return err
	}
	if err := r.guest.showCursor(cur.id, ref.W/2, ref.H/3, 0, 0); err != nil {
		return err
	}
	if err := r.settle("small pointer", ref.paste(arrow, ref.W/2, ref.H/3)); err != nil {
		return err
	}
	if err := r.guest.showCursor(0, 0, 0, 0, 0); err != nil {
		return err
	}
	return cur.unref()
}
