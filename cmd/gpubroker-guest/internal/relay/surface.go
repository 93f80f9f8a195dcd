package relay

import (
	"image"

	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

// history is how many commits of a surface are remembered: a client with more
// buffers than that has the whole of a buffer copied.
const history = 8

// surface is what the relay knows of a wl_surface: enough to tell which pixels of a
// buffer are new. It belongs to the goroutine that reads from the client.
type surface struct {
	id      wire.ID
	gone    bool
	pending pendingState
	sync    *syncSurface // wp_linux_drm_syncobj_surface_v1, nil if it has none

	scale     int32
	transform bool // other than normal
	viewport  bool // a crop or another size
	current   *buffer
	bufferID  wire.ID     // of current, where its content is sent
	size      image.Point // of the buffer before, in pixels

	seq     uint64          // commits so far
	damages [history]region // what commit seq changed, at seq % history
	changed bool            // scale, transform or viewport, since the last commit
}

// pendingState is what the next commit will bring.
type pendingState struct {
	attached bool
	buffer   *buffer // nil: none, or one that nothing is known of
	id       wire.ID // of the wl_buffer, 0 for none
	moved    bool    // attach or offset with another origin
	surface  region  // damage in the surface's coordinates
	buf      region  // damage in the buffer's
}

// newDamage returns what the commit changes in its buffer compared to the buffer
// before. In doubt it is everything.
func (s *surface) newDamage(size image.Point) region {
	p := &s.pending
	var g region
	if s.changed || p.moved || size != s.size {
		g.all = true
		return g
	}
	g.union(p.buf)
	if p.surface.all || len(p.surface.rects) > 0 {
		if s.transform || s.viewport || s.scale > 64 {
			g.all = true
			return g
		}
		k := int(s.scale)
		for _, r := range p.surface.rects {
			g.add(image.Rectangle{r.Min.Mul(k), r.Max.Mul(k)})
		}
	}
	return g
}

// commit moves what is pending to what is current and returns which pixels of the
// current buffer the host does not have yet.
func (s *surface) commit() (b *buffer, stale region) {
	p := s.pending
	if p.attached {
		if s.current != p.buffer {
			s.current.unhold()
			p.buffer.hold()
		}
		s.current = p.buffer
	}
	b = s.current
	if b == nil || b.shm == nil {
		// Nothing to copy, but buffers of before are out of date.
		s.seq++
		s.damages[s.seq%history] = region{all: true}
		s.size = image.Point{}
		s.pending, s.changed = pendingState{}, false
		return b, region{}
	}
	size := b.shm.Bounds().Size()
	g := s.newDamage(size)
	s.seq++
	s.damages[s.seq%history] = g
	s.size = size
	s.pending, s.changed = pendingState{}, false

	switch {
	case b.lastSurface != s || b.lastSeq == 0 || s.seq-b.lastSeq >= history:
		stale.all = true
	default:
		for n := b.lastSeq + 1; n <= s.seq; n++ {
			stale.union(s.damages[n%history])
		}
	}
	b.lastSurface, b.lastSeq = s, s.seq
	return b, stale
}
