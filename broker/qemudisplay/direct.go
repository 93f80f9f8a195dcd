package qemudisplay

import (
	"fmt"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// undirect says why a frame cannot go as a dma-buf although its format can: the
// protocol has one plane without an offset, and QEMU ignores where in the buffer
// the scanout begins.
func undirect(f *frame) error {
	b := f.buf
	if len(b.Planes) != 1 {
		return fmt.Errorf("%w: %d planes, limit 1", ErrFrame, len(b.Planes))
	}
	if b.Planes[0].Offset != 0 {
		return fmt.Errorf("%w: plane offset %d bytes, want 0", ErrFrame, b.Planes[0].Offset)
	}
	if f.src.X != 0 || f.src.Y != 0 {
		return fmt.Errorf("%w: source begins at %d,%d, want 0,0", ErrFrame, f.src.X, f.src.Y)
	}
	if b.YInvert && f.src.H != b.Height {
		return fmt.Errorf("%w: source of %d rows of a buffer of %d that stands on its head", ErrFrame, f.src.H, b.Height)
	}
	return nil
}

// showDMABuf sends a frame without copying; it takes over the frame's read.
func (s *session) showDMABuf(i int, f frame) error {
	h := &s.heads[i]
	if h.shows == aDMABuf && h.buf == f.buf && h.w == f.src.W && h.h == f.src.H {
		f.buf.EndRead() // the head holds one already
		return s.updateDMABuf(i, &f)
	}
	if err := s.scanoutDMABuf(i, &f); err != nil {
		f.buf.EndRead()
		return err
	}
	s.sink.stats.Imports.Add(1)
	if h.shows == aDMABuf {
		// QEMU closed the old one when it read the message, but its display may
		// look at it until the update is answered.
		s.old = h.buf
	} else {
		s.sink.stats.ImportsLive.Add(1)
	}
	h.shows, h.w, h.h, h.buf = aDMABuf, f.src.W, f.src.H, f.buf
	f.damage = f.src
	return s.updateDMABuf(i, &f)
}

// scanoutDMABuf gives QEMU the buffer.
func (s *session) scanoutDMABuf(i int, f *frame) error {
	b := f.buf
	var flags uint32
	if !b.YInvert {
		flags = flagY0Top
	}
	s.out = words(begin(s.out), uint32(i), 0, 0, f.src.W, f.src.H,
		b.Width, b.Height, b.Planes[0].Stride, flags, uint32(b.Fourcc.Opaque()))
	// A layout that only the driver knows is what the older message means.
	if s.features&featureDMABuf2 == 0 || b.Modifier == dmabuf.ModInvalid {
		return s.send(reqDMABufScanout, b.Planes[0].FD)
	}
	s.out = order.AppendUint64(s.out, uint64(b.Modifier))
	return s.send(reqDMABufScanout2, b.Planes[0].FD)
}

// updateDMABuf tells QEMU what changed in the buffer that the head shows. The
// answer is awaited before anything else is sent.
func (s *session) updateDMABuf(i int, f *frame) error {
	r := display.Rect{X: f.damage.X - f.src.X, Y: f.damage.Y - f.src.Y, W: f.damage.W, H: f.damage.H}
	s.out = words(begin(s.out), uint32(i), r.X, r.Y, r.W, r.H)
	s.acking = true
	if err := s.request(reqDMABufUpdate); err != nil {
		return err
	}
	s.sink.stats.FramesDMABuf.Add(1)
	s.sent(f)
	return nil
}

// ackDone hears that QEMU's display has done with the update.
func (s *session) ackDone() {
	s.acking = false
	if s.old != nil {
		s.old.EndRead()
		s.old = nil
	}
}
