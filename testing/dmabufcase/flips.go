package dmabufcase

import (
	"fmt"
	"image"

	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
)

// frame draws the i-th picture of an animation: a colour that changes with i and
// a square that moves. Without look it paints no reference, which in an emulated
// machine takes longer than the drawing.
func frame(t *target, i int, look bool) *reference {
	s := &scene{w: t.bounds.Dx(), h: t.bounds.Dy()}
	back := rgba{uint8(13 * i), uint8(255 - 7*i), uint8(101 * i), 255}
	t.clear(back)
	if look {
		s.ref = newReference(s.w, s.h)
		s.ref.fill(t.bounds, back)
	}
	n := max(1, s.h/6)
	s.rect(image.Rect(0, 0, n, n).Add(image.Pt(11*i%max(1, s.w-n), 5*i%max(1, s.h-n))), rgba{255, uint8(3 * i), 0, 255})
	s.corners()
	t.draw(s)
	return s.ref
}

// flipCase shows n frames in two targets that take turns. The guest waits for
// each to reach the compositor, so none may be skipped; every tenth is looked at.
func flipCase(f *format, sz size, y0top bool, n int) Case {
	return Case{Name: fmt.Sprintf("flip-%d-%s-%dx%d", n, f.name, sz.w, sz.h), Keep: true, Run: func(r *run) error {
		targets, err := r.pair(f, sz, y0top)
		if err != nil {
			return err
		}
		for i := range n {
			t := targets[i%2]
			look := i%10 == 9 || i == n-1
			ref := frame(t, i, look)
			if err := r.guest.submit(); err != nil {
				return err
			}
			if err := r.show(t, t.bounds); err != nil {
				return err
			}
			if err := r.flush(t, t.bounds); err != nil {
				return err
			}
			if look {
				if err := r.look(fmt.Sprintf("frame %d", i), ref); err != nil {
					return err
				}
			}
		}
		return nil
	}}
}

func (r *run) pair(f *format, sz size, y0top bool) (targets [2]*target, err error) {
	for i := range targets {
		if targets[i], err = r.target3D(f, sz, y0top); err != nil {
			return targets, err
		}
	}
	return targets, nil
}

// floodCase shows n frames in two targets as fast as the broker takes commands.
// Frames may be skipped then, but the last one has to be seen.
func floodCase(f *format, sz size, n int) Case {
	return Case{Name: fmt.Sprintf("flood-%d-%s-%dx%d", n, f.name, sz.w, sz.h), Run: func(r *run) error {
		r.unpaced = true
		targets, err := r.pair(f, sz, false)
		if err != nil {
			return err
		}
		var ops []*fakeguest.Op
		var ref *reference
		for i := range n {
			t := targets[i%2]
			ref = frame(t, i, i == n-1)
			scanout := virtiogpu.SetScanout{R: virtioRect(t.bounds), ResourceID: t.id}
			flush := virtiogpu.ResourceFlush{CtrlHdr: r.guest.fenced(virtiogpu.CmdResourceFlush, 0), R: virtioRect(t.bounds), ResourceID: t.id}
			if ops, err = r.guest.laterAll(ops, r.guest.appendSubmit, scanout.Append, flush.Append); err != nil {
				return err
			}
			r.shown = t
			r.frames++
			if i%16 == 15 { // the ring has its limits
				if err := r.guest.await(ops); err != nil {
					return err
				}
				ops = ops[:0]
			}
		}
		r.res.Resources = 2
		if err := r.guest.await(ops); err != nil {
			return err
		}
		return r.settle("the last frame", ref)
	}}
}

// laterAll is later for several commands.
func (d *driver) laterAll(ops []*fakeguest.Op, commands ...func([]byte) []byte) (_ []*fakeguest.Op, err error) {
	for _, c := range commands {
		if ops, err = d.later(ops, c); err != nil {
			return ops, err
		}
	}
	return ops, nil
}

// unrefCase makes a resource, draws on it, shows it and destroys it, all in one
// go, n times: the drawing, the export, the import and the frame are under way
// when the resource goes. Then it shows one that stays.
func unrefCase(f *format, sz size, n int) Case {
	return Case{Name: fmt.Sprintf("unref-%d-%s-%dx%d", n, f.name, sz.w, sz.h), Run: func(r *run) error {
		r.unpaced = true
		for i := range n {
			if err := r.flash(f, sz, i); err != nil {
				return err
			}
		}
		t, err := r.target3D(f, sz, true)
		if err != nil {
			return err
		}
		ref := frame(t, n, true)
		if err := r.guest.submit(); err != nil {
			return err
		}
		if err := r.show(t, t.bounds); err != nil {
			return err
		}
		if err := r.flush(t, t.bounds); err != nil {
			return err
		}
		r.res.Resources = uint64(n) + 1
		return r.settle("the one that stays", ref)
	}}
}

// flash shows a resource that is destroyed in the same moment.
func (r *run) flash(f *format, sz size, i int) error {
	d := r.guest
	t := d.newTarget(f, sz.w, sz.h, i%2 == 1)
	create := t.create()
	attach := virtiogpu.CtxResource{CtrlHdr: ctxHdr(virtiogpu.CmdCtxAttachResource), ResourceID: t.id}
	scanout := virtiogpu.SetScanout{R: virtioRect(t.bounds), ResourceID: t.id}
	flush := virtiogpu.ResourceFlush{CtrlHdr: d.fenced(virtiogpu.CmdResourceFlush, 0), R: virtioRect(t.bounds), ResourceID: t.id}
	unref := virtiogpu.ResourceUnref{ResourceID: t.id}
	frame(t, i, false)
	ops, err := d.laterAll(nil, create.Append, attach.Append, d.appendSubmit, scanout.Append, flush.Append)
	if err != nil {
		return err
	}
	if i%3 == 1 { // now and then the drawing is done by then
		if err := d.await(ops); err != nil {
			return err
		}
		ops = nil
	}
	if ops, err = d.laterAll(ops, unref.Append); err != nil {
		return err
	}
	r.frames++
	return d.await(ops)
}
