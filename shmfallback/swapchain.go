package shmfallback

import (
	"fmt"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// Swapchain is a few buffers of one size and format that take turns, for
// pictures that are copied: while a display reads one, the next frame is drawn
// into another. It remembers for each buffer what changed since it was last drawn,
// so that only that needs copying.
//
// All methods are called on one goroutine (the render thread); what other
// goroutines do is BeginRead and EndRead on the buffers.
type Swapchain struct {
	bufs   []*dmabuf.Buffer
	missed []Rect
}

// NewSwapchain makes a chain of the given buffers and takes over one reference
// of each, on error too. They must be equal in size and format.
func NewSwapchain(bufs ...*dmabuf.Buffer) (*Swapchain, error) {
	s := &Swapchain{bufs: bufs, missed: make([]Rect, len(bufs))}
	if len(bufs) == 0 {
		return nil, &OpError{"make swap chain", "", fmt.Errorf("%w: no buffers", ErrInvalid)}
	}
	first := bufs[0]
	for _, b := range bufs[1:] {
		if b.Width != first.Width || b.Height != first.Height || b.Fourcc != first.Fourcc {
			s.Close()
			return nil, &OpError{"make swap chain", "", fmt.Errorf("%w: %v differs from %v", ErrInvalid, b, first)}
		}
	}
	s.Invalidate()
	return s, nil
}

// AllocSwapchain makes a chain of n buffers of shared memory. Two are enough for
// a display that releases a buffer when it shows the next; the third lets the
// guest draw while one is shown and one is queued.
func AllocSwapchain(n int, width, height uint32, fourcc dmabuf.Fourcc, name string) (*Swapchain, error) {
	bufs := make([]*dmabuf.Buffer, 0, n)
	for range n {
		b, err := Alloc(width, height, fourcc, name)
		if err != nil {
			for _, b := range bufs {
				b.Release()
			}
			return nil, err
		}
		bufs = append(bufs, b)
	}
	return NewSwapchain(bufs...)
}

// Buffers returns the chain's buffers; it keeps its references.
func (s *Swapchain) Buffers() []*dmabuf.Buffer { return s.bufs }

// Damage says that a rectangle of the picture changed.
func (s *Swapchain) Damage(r Rect) {
	if len(s.bufs) == 0 {
		return
	}
	r = r.clip(s.bufs[0].Width, s.bufs[0].Height)
	for i := range s.missed {
		s.missed[i] = s.missed[i].Union(r)
	}
}

// Invalidate says that the whole picture changed.
func (s *Swapchain) Invalidate() {
	s.Damage(Rect{0, 0, dmabuf.MaxDimension, dmabuf.MaxDimension})
}

// Acquire returns a buffer that nobody reads and the rectangle that it has
// missed, which the caller draws before anybody else sees the buffer; the chain
// regards it as drawn. Of several it takes the one with the least to draw. It
// returns nil if all are being read: try again when one falls idle (OnIdle).
// The chain keeps the reference.
func (s *Swapchain) Acquire() (*dmabuf.Buffer, Rect) {
	best := -1
	for i, b := range s.bufs {
		if b.Reading() {
			continue
		}
		if best < 0 || s.missed[i].area() < s.missed[best].area() {
			best = i
		}
	}
	if best < 0 {
		return nil, Rect{}
	}
	missed := s.missed[best]
	s.missed[best] = Rect{}
	return s.bufs[best], missed
}

// Undrawn takes back an Acquire whose drawing failed: b has missed everything.
func (s *Swapchain) Undrawn(b *dmabuf.Buffer) {
	for i := range s.bufs {
		if s.bufs[i] == b {
			s.missed[i] = Rect{0, 0, b.Width, b.Height}
		}
	}
}

// OnIdle sets the function that runs when a buffer falls idle; it is called on
// the goroutine of the last reader and must not block.
func (s *Swapchain) OnIdle(f func(*dmabuf.Buffer)) {
	for _, b := range s.bufs {
		b.OnIdle(f)
	}
}

// Close gives up the chain's references. Buffers that are still being read live
// until their readers are done. A closed chain has no buffer
// to acquire; a second Close does nothing.
func (s *Swapchain) Close() {
	for _, b := range s.bufs {
		b.OnIdle(nil)
		b.Release()
	}
	s.bufs, s.missed = nil, nil
}
