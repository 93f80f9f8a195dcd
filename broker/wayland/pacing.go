package wayland

import "github.com/gpubroker/gpubroker/broker/display"

var _ display.Pacer = (*Sink)(nil)

// Paces reports whether the head has a window that the compositor sends frame
// callbacks for. Called on the render thread.
func (s *Sink) Paces(head int) bool {
	return head >= 0 && head < display.MaxHeads && s.pacing[head].Load()
}

// taken runs at a frame callback: the compositor has taken what was committed last.
func (win *window) taken() {
	win.se.s.pacing[win.h.n].Store(true)
	win.h.report(win.se.s)
}

// report tells the broker that the head's newest committed frame, and with it all
// before, is shown.
func (h *head) report(s *Sink) {
	if !h.unreported {
		return
	}
	h.unreported = false
	if s.cfg.Events != nil {
		s.cfg.Events.Shown(h.n, h.committed)
	}
}

// skip tells the broker not to wait for a frame that will not be committed.
func (h *head) skip(s *Sink, f *frame) {
	if f.buf != nil && f.serial != 0 {
		h.committed, h.unreported = f.serial, true
		h.report(s)
	}
}

// stopPacing is for a head that will hear of no frame callback any more: nobody has
// to wait for its frames, shown or not.
func (h *head) stopPacing(s *Sink) {
	s.pacing[h.n].Store(false)
	h.skip(s, &h.next)
	h.report(s)
}
