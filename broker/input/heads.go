package input

import (
	"sync/atomic"

	"github.com/gpubroker/gpubroker/broker/display"
)

// Size is a head's size in pixels; 0 for a head that is off.
type Size struct{ W, H uint32 }

// heads maps a place in a head's picture to a place on the axes, which cover all
// heads.
type heads struct {
	layout atomic.Pointer[layout]
}

type layout struct {
	off, w, h     [display.MaxHeads]uint64 // pixels
	width, height uint64                   // of the whole; never 0
}

// set places the heads side by side. nil, or only one head, is no mapping at all.
func (h *heads) set(sizes []Size) {
	l := &layout{}
	on := 0
	for i, s := range sizes[:min(len(sizes), display.MaxHeads)] {
		if s.W == 0 || s.H == 0 {
			continue
		}
		on++
		l.off[i], l.w[i], l.h[i] = l.width, uint64(s.W), uint64(s.H)
		l.width += uint64(s.W)
		l.height = max(l.height, uint64(s.H))
	}
	if on < 2 {
		l = nil
	}
	h.layout.Store(l)
}

// place maps a point of a head; a head that is off, and any before set, is taken
// for the whole.
func (h *heads) place(head int, x, y uint16) point {
	x, y = min(x, AxisMax), min(y, AxisMax)
	l := h.layout.Load()
	if l == nil || head < 0 || head >= display.MaxHeads || l.w[head] == 0 {
		return point{int32(x), int32(y)}
	}
	const parts = AxisMax + 1
	return point{
		x: int32((l.off[head]*parts + uint64(x)*l.w[head]) / l.width),
		y: int32(uint64(y) * l.h[head] / l.height),
	}
}
