// Package headless is the sink for a VM without a display: it counts frames and
// keeps the last picture of each head, for screenshots.
package headless

import (
	"fmt"
	"image"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Sink implements display.Sink. It never holds a buffer for reading, so the
// device always finds one to draw into.
type Sink struct {
	mode  display.Mode
	stats display.Stats

	mu    sync.Mutex
	heads [display.MaxHeads]shown // guarded by mu
}

type shown struct {
	buf    *dmabuf.Buffer
	source display.Rect
}

// New makes a sink whose heads want the given mode.
func New(mode display.Mode) *Sink { return &Sink{mode: mode} }

var _ display.Sink = (*Sink)(nil)

// Name returns "headless".
func (s *Sink) Name() string { return "headless" }

// Accepts takes every dma-buf: nobody has to show it.
func (s *Sink) Accepts(dmabuf.Fourcc, dmabuf.Modifier) bool { return true }

// Present keeps the frame as the head's picture.
func (s *Sink) Present(f *display.Frame) {
	s.mu.Lock()
	h := &s.heads[f.Head]
	if h.buf != f.Buffer {
		h.buf.Release()
		h.buf = f.Buffer.Retain()
	}
	h.source = f.Source
	s.mu.Unlock()
	if f.Buffer.Kind == dmabuf.KindDMABuf {
		s.stats.FramesDMABuf.Add(1)
	} else {
		s.stats.FramesShm.Add(1)
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err == nil {
		s.stats.Latency.Add(ts.Nano() - f.FlushedAt)
	}
}

// Disable forgets the head's picture.
func (s *Sink) Disable(head int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heads[head].buf.Release()
	s.heads[head] = shown{}
}

// ShowCursor does nothing.
func (s *Sink) ShowCursor(*display.Cursor) {}

// MoveCursor does nothing.
func (s *Sink) MoveCursor(int, int32, int32) {}

// Drop forgets every head that shows the buffer.
func (s *Sink) Drop(b *dmabuf.Buffer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.heads {
		if s.heads[i].buf == b {
			b.Release()
			s.heads[i] = shown{}
		}
	}
}

// Mode returns the mode given to New; only the first head is on.
func (s *Sink) Mode(head int) display.Mode {
	m := s.mode
	m.Enabled = head == 0
	return m
}

// EDID returns nil: the broker makes one.
func (s *Sink) EDID(int) []byte { return nil }

// Stats returns the counters.
func (s *Sink) Stats() *display.Stats { return &s.stats }

// Close forgets every picture.
func (s *Sink) Close() error {
	for i := range s.heads {
		s.Disable(i)
	}
	return nil
}

// Screenshot copies the head's picture. It needs a buffer that the CPU can map
// and one of the XRGB8888 and ARGB8888 formats in either byte order.
func (s *Sink) Screenshot(head int) (*image.NRGBA, error) {
	s.mu.Lock()
	h := s.heads[head]
	if h.buf != nil {
		h.buf.BeginRead()
		defer h.buf.EndRead()
	}
	s.mu.Unlock()
	if h.buf == nil {
		return nil, fmt.Errorf("headless: head %d shows nothing", head)
	}
	return Picture(h.buf, h.source)
}

// Picture converts a part of a CPU-mapped buffer to an opaque image.
func Picture(b *dmabuf.Buffer, part display.Rect) (*image.NRGBA, error) {
	var r, g, bl int
	switch b.Fourcc.Opaque() {
	case dmabuf.XRGB8888:
		r, g, bl = 2, 1, 0
	case dmabuf.XBGR8888:
		r, g, bl = 0, 1, 2
	default:
		return nil, fmt.Errorf("headless: picture of %v: %w: format", b, dmabuf.ErrNotSupported)
	}
	mem, done, err := b.CPURead()
	if err != nil {
		return nil, err
	}
	defer done()
	p := b.Planes[0]
	img := image.NewNRGBA(image.Rect(0, 0, int(part.W), int(part.H)))
	for y := range int(part.H) {
		row := int(part.Y) + y
		if b.YInvert {
			row = int(b.Height) - 1 - row
		}
		src := mem[int(p.Offset)+row*int(p.Stride)+int(part.X)*4:]
		dst := img.Pix[y*img.Stride:]
		for x := range int(part.W) {
			dst[4*x], dst[4*x+1], dst[4*x+2], dst[4*x+3] = src[4*x+r], src[4*x+g], src[4*x+bl], 255
		}
	}
	return img, nil
}

// settle is how long WaitFrames polls between looks.
const settle = 2 * time.Millisecond

// WaitFrames waits until n frames were presented, or the time is up.
func (s *Sink) WaitFrames(n uint64, limit time.Duration) error {
	end := time.Now().Add(limit)
	for {
		got := s.stats.FramesDMABuf.Load() + s.stats.FramesShm.Load()
		if got >= n {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("headless: %d of %d frames after %v", got, n, limit)
		}
		time.Sleep(settle)
	}
}
