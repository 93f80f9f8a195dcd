package dmabufcase

import (
	"fmt"
	"image"
	"time"

	"github.com/gpubroker/gpubroker/broker"
)

// run is one case in progress.
type run struct {
	*stage
	res     *Result
	frames  uint64 // that were flushed
	unpaced bool   // the guest did not wait for its frames, some may be skipped
	warming bool   // nothing is compared
	sent    uint64 // frames that were gone when the last one was waited for

	before *target   // what the head showed when the case began
	mine   []*target // that the case made and did not drop
	seen   map[*target]bool
}

// newRun begins a case; st is the broker's status at its start.
func (s *stage) newRun(res *Result, st *broker.Status) *run {
	return &run{stage: s, res: res, before: s.shown, seen: map[*target]bool{}, sent: sent(st)}
}

// target3D makes a texture that goes away with the case, or when the next case
// shows its own.
func (r *run) target3D(f *format, sz size, y0top bool) (*target, error) {
	t, err := r.guest.target3D(f, sz.w, sz.h, y0top)
	r.mine = append(r.mine, t)
	return t, err
}

// target2D makes a 2D resource that holds the picture.
func (r *run) target2D(f *format, ref *reference) (*target, error) {
	t, err := r.guest.target2D(f, ref)
	if err == nil {
		r.mine = append(r.mine, t)
	}
	return t, err
}

// show makes a part of the target the head's content.
func (r *run) show(t *target, part image.Rectangle) error {
	r.shown = t
	if !r.seen[t] {
		r.seen[t] = true
		r.res.Resources++
	}
	return r.guest.setScanout(t.id, part)
}

// retire drops the targets that are not shown any more.
func (r *run) retire() error {
	if r.before != nil && r.before != r.shown {
		r.mine = append(r.mine, r.before)
	}
	for _, t := range r.mine {
		if t == r.shown {
			continue
		}
		if err := t.unref(); err != nil {
			return err
		}
	}
	return nil
}

// flush presents a part of the target and waits until the compositor has it.
func (r *run) flush(t *target, part image.Rectangle) error {
	if err := r.guest.flush(t.id, part); err != nil {
		return err
	}
	r.frames++
	return r.waitFrame()
}

// sent counts the frames that are with the compositor or never will be: the
// latency is counted when the commit has left.
func sent(st *broker.Status) uint64 { return st.FlushToCommit.Count + st.Frames.Skipped }

// frameTime is how long a frame may take, in an emulated machine that shares its
// processors with others.
const frameTime = 60 * time.Second

// waitFrame waits for one frame more than there were.
func (r *run) waitFrame() error {
	end := time.Now().Add(frameTime)
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		time.Sleep(pause)
		st, err := r.broker.Status()
		if err != nil {
			return err
		}
		if n := sent(&st); n > r.sent {
			r.sent = n
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("no further frame reached the compositor within %v: %+v", frameTime, st.Frames)
		}
	}
}

// look compares the compositor's picture with the reference.
func (r *run) look(what string, ref *reference) error {
	if r.warming {
		return nil
	}
	if err := r.camera.ShootInto(&r.shot); err != nil {
		return err
	}
	r.res.Pictures++
	d := ref.compare(&r.shot)
	if d.wrong == 0 {
		return nil
	}
	r.res.WrongPixels += d.wrong
	r.res.problem("%s: %v", what, &d)
	return nil
}

// settle is look for what no counter tells of, such as a cursor that moves: it
// looks until the picture is right, for a while.
func (r *run) settle(what string, ref *reference) error {
	if r.warming {
		return nil
	}
	end := time.Now().Add(settleTime)
	for {
		if err := r.camera.ShootInto(&r.shot); err != nil {
			return err
		}
		d := ref.compare(&r.shot)
		if d.wrong > 0 && time.Now().Before(end) {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		r.res.Pictures++
		if d.wrong > 0 {
			r.res.WrongPixels += d.wrong
			r.res.problem("%s: %v after %v", what, &d, settleTime)
		}
		return nil
	}
}

const settleTime = 15 * time.Second
