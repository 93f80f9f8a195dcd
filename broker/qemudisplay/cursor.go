package qemudisplay

import (
	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/shmfallback"
)

const (
	cursorStride = cursorSize * 4
	cursorBytes  = cursorSize * cursorStride
)

// show takes a picture: larger ones lose what is far from the hot spot, smaller
// ones get transparent margins.
func (b *cursorBox) show(c *display.Cursor) error {
	b.moved = true
	b.x, b.y = c.X, c.Y
	b.visible, b.picture = false, false
	if c.W == 0 || c.H == 0 {
		return nil
	}
	if b.pixels == nil {
		b.pixels = make([]byte, cursorBytes)
	}
	clear(b.pixels)
	x0, w := cut(c.HotX, c.W)
	y0, h := cut(c.HotY, c.H)
	// Cursor pictures are not frames: nobody's count of copied bytes has them.
	var uncounted shmfallback.Meter
	src := [1][]byte{c.Pixels}
	err := uncounted.CopyRect(&shmfallback.Copy{
		Dst: b.pixels, DstStride: cursorStride,
		Src: src[:], SrcStride: c.W * 4, SrcOffset: (uint64(y0)*uint64(c.W) + uint64(x0)) * 4,
		W: w, H: h, BytesPerPixel: 4,
	})
	if err != nil {
		return err
	}
	b.hotX, b.hotY = min(c.HotX-x0, cursorSize-1), min(c.HotY-y0, cursorSize-1)
	b.visible, b.picture = true, true
	return nil
}

// cut returns which part of a line of n pixels is kept: the first 64, or those
// around a hot spot that lies outside of these.
func cut(hot, n uint32) (from, size uint32) {
	if n <= cursorSize {
		return 0, n
	}
	if hot >= cursorSize {
		from = min(min(hot, n)-cursorSize/2, n-cursorSize)
	}
	return from, cursorSize
}

func (b *cursorBox) move(x, y int32) {
	b.moved = true
	b.x, b.y = x, y
}

// renew makes everything news again, for a display that knows nothing.
func (b *cursorBox) renew() {
	if b.visible {
		b.picture, b.moved = true, true
	}
}

// take copies b's news to dst and marks them as seen.
func (b *cursorBox) take(dst *cursorBox) {
	if !b.moved {
		return
	}
	if b.picture {
		dst.pixels = append(dst.pixels[:0], b.pixels...)
		dst.hotX, dst.hotY = b.hotX, b.hotY
		dst.picture = true
	}
	dst.x, dst.y, dst.visible, dst.moved = b.x, b.y, b.visible, true
	b.picture, b.moved = false, false
}

// sendCursor tells QEMU what is new about a head's pointer.
func (s *session) sendCursor(i int) error {
	c := &s.heads[i].cursor
	if !c.moved {
		return nil
	}
	pos := [3]uint32{uint32(i), uint32(c.x), uint32(c.y)}
	msg := words(begin(s.out), pos[:]...)
	req := reqCursorPos
	switch {
	case !c.visible:
		req = reqCursorPosHide
	case c.picture:
		msg = append(words(msg, c.hotX, c.hotY), c.pixels...)
		req = reqCursorUpdate
	}
	c.moved = false
	if c.visible {
		c.picture = false
	}
	s.out = msg
	return s.send(req, nil)
}
