package wayland

import (
	"time"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
)

// blankTime is how long a disabled head shows black before its window closes: long
// enough for firmware to hand over to a driver without the window jumping.
const blankTime = 2 * time.Second

// head is what one scanout shows. It outlives connections.
type head struct {
	n    int
	next frame // the newest frame that is not committed; holds a BeginRead
	last frame // what to show after a reconnect; buf holds a Retain
	win  *window

	cursor  cursorBox // what the guest wants; picture and moved tell what the window lacks
	blankAt int64     // when the window of a disabled head closes, 0 if enabled
	flushed int64     // FlushedAt of the commit that is not sent yet, 0 if none

	committed  uint64 // serial of the newest frame on its way to the screen
	unreported bool   // Events.Shown does not know

	mode  extent // the size of Sink.Mode, empty if the head is disabled
	asked int64  // when a resize changed it last

	// hidden: the user closed the window when its picture had the size hiddenAt.
	hidden   bool
	hiddenAt extent
}

// keep makes f the head's last frame. f's read stays as it is.
func (h *head) keep(f frame) {
	if f.blank || f.dropped {
		h.forget()
		return
	}
	if h.last.buf != f.buf {
		h.last.buf.Release()
		f.buf.Retain()
	}
	h.last = f
}

func (h *head) forget() {
	h.last.buf.Release()
	h.last = frame{}
}

// shelve takes the next frame out of the way of a head that has no window: it is
// kept for later, its read ends.
func (h *head) shelve(s *Sink) {
	f := h.next
	if f.buf == nil {
		return
	}
	h.next = frame{}
	h.keep(f)
	s.supersede(f)
}

// restore makes the last frame the next one, for a new window.
func (h *head) restore() {
	if h.next.buf != nil {
		h.next.damage = h.next.src
		return
	}
	if h.last.buf == nil || h.hidden {
		return
	}
	h.last.buf.BeginRead()
	h.next = h.last
	h.next.damage = h.next.src
	h.next.flushed = 0
}

// disable blanks the window, if there is one.
func (h *head) disable(l *loop) {
	h.skip(l.s, &h.next)
	l.s.supersede(h.next)
	h.next = frame{}
	h.forget()
	h.hidden = false
	if h.win == nil {
		return
	}
	if h.win.current == nil {
		h.win.destroy()
		return
	}
	h.blankAt = l.now + int64(blankTime)
	black, err := shmfallback.Alloc(h.win.picture.w, h.win.picture.h, dmabuf.XRGB8888, "gpubroker blank") // zeros are black
	if err != nil {
		l.s.log.Warn("cannot blank the window, closing it", zap.Int("head", h.n), zap.Error(err))
		h.blankAt = l.now
		return
	}
	black.BeginRead()
	black.Release() // the read holds it now
	h.next = frame{buf: black, src: whole(black), damage: whole(black), opaque: true, dropped: true, blank: true}
}

// hide closes the window because the user said so. The guest keeps running; the
// window is back when the mode changes or the head was disabled and enabled.
func (h *head) hide(l *loop) {
	l.s.log.Info("window closed; the guest keeps running, the window returns with its next mode change", zap.Int("head", h.n))
	h.hidden, h.hiddenAt = true, h.win.picture
	h.win.destroy()
	h.shelve(l.s)
	if l.s.cfg.Events != nil {
		l.s.cfg.Events.Closed(h.n)
	}
}
