package wayland

import (
	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// mailbox is what the render thread left for one head since the loop last looked.
type mailbox struct {
	disable bool  // Disable was called; next, if set, came after it
	next    frame // the newest frame
	cursor  cursorBox
}

// frame is a picture that waits to be committed; buf is nil if there is none.
type frame struct {
	buf     *dmabuf.Buffer // holds one BeginRead
	src     display.Rect
	damage  display.Rect
	opaque  bool
	serial  uint64
	flushed int64 // 0 if the latency does not count
	dropped bool  // Drop was called since
	blank   bool  // made by the sink for a disabled head, not counted
}

// replace puts in in f's place and returns the old frame, which the caller has
// to supersede. The damage of the picture that nobody saw is added.
func (f *frame) replace(in frame) (old frame) {
	old = *f
	if old.buf != nil {
		if old.src == in.src {
			in.damage = in.damage.Union(old.damage)
		} else {
			in.damage = in.src
		}
	}
	*f = in
	return old
}

// cursorBox is the cursor that the render thread last asked for.
type cursorBox struct {
	picture bool // the picture changed
	moved   bool // the position changed
	x, y    int32
	w, h    uint32 // 0 hides
	pixels  []byte
}

// maxCursor is the largest width or height of a cursor, in pixels: four times
// what virtio-gpu allows, so that a pool cannot grow without bound.
const maxCursor = 256

func (b *cursorBox) show(c *display.Cursor) {
	b.picture, b.moved = true, true
	b.x, b.y = c.X, c.Y
	b.w, b.h = c.W, c.H
	if c.W > maxCursor || c.H > maxCursor || uint64(len(c.Pixels)) < uint64(c.W)*uint64(c.H)*4 {
		b.w, b.h = 0, 0
	}
	b.pixels = append(b.pixels[:0], c.Pixels[:b.w*b.h*4]...)
}

func (b *cursorBox) move(x, y int32) {
	b.moved = true
	b.x, b.y = x, y
}

// take copies b's news into dst and marks them as seen. The pixel buffers change
// places, so that neither side allocates.
func (b *cursorBox) take(dst *cursorBox) {
	if b.picture {
		dst.pixels, b.pixels = b.pixels, dst.pixels
		dst.w, dst.h = b.w, b.h
		dst.picture = true
	}
	if b.moved {
		dst.x, dst.y = b.x, b.y
		dst.moved = true
	}
	b.picture, b.moved = false, false
}
