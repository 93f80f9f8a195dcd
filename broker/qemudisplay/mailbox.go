package qemudisplay

import (
	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// mailbox is what the render thread left for one head since the session last
// looked.
type mailbox struct {
	disable bool  // Disable was called; next, if set, came after it
	next    frame // the newest frame
	cursor  cursorBox
}

// frame is a picture that waits to be sent; buf is nil if there is none.
type frame struct {
	buf     *dmabuf.Buffer // holds one BeginRead
	src     display.Rect
	damage  display.Rect // in buffer pixels, like src
	flushed int64        // nanoseconds of CLOCK_MONOTONIC
}

// replace puts in in f's place and returns the buffer whose read the caller has
// to end. The damage of the picture that nobody saw is added, and the wait of the
// older one counts.
func (f *frame) replace(in frame) *dmabuf.Buffer {
	old := f.buf
	if old != nil {
		if f.src == in.src {
			in.damage = in.damage.Union(f.damage)
		} else {
			in.damage = in.src
		}
		in.flushed = f.flushed
	}
	*f = in
	return old
}

// cursorBox is the pointer that the render thread last asked for. QEMU's is
// 64×64, so it is cut or padded on the way in.
type cursorBox struct {
	picture    bool // the picture changed
	moved      bool // the position changed
	visible    bool
	x, y       int32
	hotX, hotY uint32
	pixels     []byte // cursorSize² pixels of four bytes once a picture came
}
