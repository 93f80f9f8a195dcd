package qemudisplay

import (
	"fmt"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
)

// maxUpdate limits the pixels of one UPDATE, in bytes, so that neither side needs
// memory for a whole large screen. A full HD frame goes in one piece, because
// QEMU may show what came so far between two.
const maxUpdate = 8 << 20

// show sends a frame in the best way there is; it takes over the frame's read.
// The error is the connection's: a frame that cannot be shown is logged.
func (s *session) show(i int, f frame) error {
	b := f.buf
	if f.damage = f.damage.Intersect(f.src); f.damage.Empty() {
		f.damage = f.src
	}
	if !inside(f.src, b) {
		s.unshowable(i, f, fmt.Errorf("%w: source %+v outside of the buffer", ErrFrame, f.src))
		return nil
	}
	if b.Kind == dmabuf.KindDMABuf && s.accepts(b) {
		why := undirect(&f)
		if why == nil {
			return s.showDMABuf(i, f)
		}
		s.sink.reject(b, why)
	}
	mem, done, err := s.readable(b)
	if err != nil {
		s.unshowable(i, f, err)
		return nil
	}
	err, fatal := s.showPixels(i, &f, mem)
	done()
	if fatal != nil {
		b.EndRead()
		return fatal
	}
	if err != nil {
		s.unshowable(i, f, err)
		return nil
	}
	s.sink.stats.FramesShm.Add(1)
	s.sent(&f)
	b.EndRead()
	return nil
}

func inside(r display.Rect, b *dmabuf.Buffer) bool {
	return r.X <= b.Width && r.Y <= b.Height && r.W <= b.Width-r.X && r.H <= b.Height-r.Y
}

func (s *session) accepts(b *dmabuf.Buffer) bool {
	s.sink.mu.Lock()
	defer s.sink.mu.Unlock()
	return s.sink.accepts(b.Fourcc, b.Modifier)
}

// unshowable skips a frame.
func (s *session) unshowable(i int, f frame, err error) {
	s.sink.log.Warn("frame skipped", zap.Int("head", i), zap.Stringer("buffer", f.buf), zap.Error(err))
	s.sink.skip(f.buf)
}

// sent notes the time from the guest's flush until now.
func (s *session) sent(f *frame) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err == nil && f.flushed != 0 {
		s.sink.stats.Latency.Add(ts.Nano() - f.flushed)
	}
}

// readable gives the bytes of a buffer that the CPU can make sense of.
func (s *session) readable(b *dmabuf.Buffer) (mem []byte, done func(), err error) {
	if b.Kind == dmabuf.KindDMABuf && b.Modifier != dmabuf.ModLinear {
		return nil, nil, fmt.Errorf("%w: the CPU cannot read modifier %v", ErrFrame, b.Modifier)
	}
	if b.Kind == dmabuf.KindShm && b.Mem != nil {
		return b.Mem, func() {}, nil
	}
	return b.CPURead()
}

// showPixels sends the damaged rectangle. err says that the frame is not fit, fatal
// that the connection is not.
func (s *session) showPixels(i int, f *frame, mem []byte) (err, fatal error) {
	conv, err := shmfallback.ConvertFor(f.buf.Fourcc, dmabuf.XRGB8888)
	if err != nil {
		return err, nil
	}
	h := &s.heads[i]
	if h.shows != pixels || h.w != f.src.W || h.h != f.src.H {
		if h.shows == aDMABuf {
			if err := s.disable(i); err != nil {
				return nil, err
			}
		}
		s.out = words(begin(s.out), uint32(i), f.src.W, f.src.H)
		if err := s.send(reqScanout, nil); err != nil {
			return nil, err
		}
		h.shows, h.w, h.h = pixels, f.src.W, f.src.H
		f.damage = f.src // the new surface is empty
	}
	rows := max(maxUpdate/max(f.damage.W*4, 1), 1)
	for y := uint32(0); y < f.damage.H; y += rows {
		band := display.Rect{X: f.damage.X, Y: f.damage.Y + y, W: f.damage.W, H: min(rows, f.damage.H-y)}
		if rows := plain(f.buf, band, mem, conv); rows != nil {
			if err := s.sendRows(i, f, band, rows); err != nil {
				return nil, err
			}
			continue
		}
		if err := s.makeUpdate(i, f, band, mem, conv); err != nil {
			return err, nil
		}
		if err := s.send(reqUpdate, nil); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// smallUpdate is how many bytes are rather copied and sent in one piece, so that QEMU wakes up
// once for them.
const smallUpdate = 64 << 10

// plain returns the bytes of a large rectangle that lie in the buffer as they are sent: whole
// rows, or a single one, that need no conversion. nil if they do not.
func plain(b *dmabuf.Buffer, r display.Rect, mem []byte, conv shmfallback.Convert) []byte {
	plane := b.Planes[0]
	if conv != shmfallback.ConvertNone || b.YInvert || r.H > 1 && plane.Stride != r.W*4 {
		return nil
	}
	from := uint64(plane.Offset) + uint64(r.Y)*uint64(plane.Stride) + uint64(r.X)*4
	n := uint64(r.W) * uint64(r.H) * 4
	if n <= smallUpdate || from > uint64(len(mem)) || n > uint64(len(mem))-from {
		return nil // if it does not fit, CopyRect says so
	}
	return mem[from : from+n : from+n]
}

// sendRows sends an UPDATE whose pixels the kernel takes out of the buffer itself: that is
// their copy, instead of one of ours before it.
func (s *session) sendRows(i int, f *frame, r display.Rect, rows []byte) error {
	s.out = words(begin(s.out), uint32(i), r.X-f.src.X, r.Y-f.src.Y, r.W, r.H)
	s.out = finishWith(s.out, reqUpdate, len(rows))
	if err := s.conn.send(s.out, nil); err != nil {
		return err
	}
	s.sink.stats.BytesCopied.Add(uint64(len(rows)))
	return s.conn.send(rows, nil)
}

// makeUpdate builds an UPDATE with the pixels of a rectangle (in buffer pixels,
// top row first).
func (s *session) makeUpdate(i int, f *frame, r display.Rect, mem []byte, conv shmfallback.Convert) error {
	const fixed = headerSize + 20
	size := fixed + int(r.W)*int(r.H)*4
	if cap(s.out) < size {
		s.out = make([]byte, 0, size)
	}
	s.out = words(begin(s.out), uint32(i), r.X-f.src.X, r.Y-f.src.Y, r.W, r.H)[:size]
	plane := f.buf.Planes[0]
	row := uint64(r.Y)
	if f.buf.YInvert {
		row = uint64(f.buf.Height) - uint64(r.Y) - uint64(r.H)
	}
	s.seg[0] = mem
	return s.sink.meter.CopyRect(&shmfallback.Copy{
		Dst: s.out[fixed:], DstStride: r.W * 4,
		Src: s.seg[:], SrcStride: plane.Stride,
		SrcOffset: uint64(plane.Offset) + row*uint64(plane.Stride) + uint64(r.X)*4,
		W:         r.W, H: r.H, BytesPerPixel: 4, Convert: conv, Flip: f.buf.YInvert,
	})
}

// disable blanks a head that shows something.
func (s *session) disable(i int) error {
	h := &s.heads[i]
	shows := h.shows
	s.unshow(i)
	switch shows {
	case pixels:
		s.out = words(begin(s.out), uint32(i), 0, 0)
		return s.send(reqScanout, nil)
	case aDMABuf:
		s.out = words(begin(s.out), uint32(i), 0, 0, 0, 0, 0, 0, 0, 0, 0)
		return s.send(reqDMABufScanout, nil)
	}
	return nil
}

// unshow forgets what the head shows.
func (s *session) unshow(i int) {
	h := &s.heads[i]
	if h.buf != nil {
		s.sink.stats.ImportsLive.Add(-1)
		h.buf.EndRead()
	}
	h.shows, h.w, h.h, h.buf = nothing, 0, 0, nil
}
