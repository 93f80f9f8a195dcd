package proxy

import (
	"context"
	"math"
	"slices"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
)

// surface is the data of a wl_surface: what commits need to know.
type surface struct {
	obj    *object
	parent *surface // of a sub-surface or a popup
	window *window  // of a toplevel

	attached bool    // something was attached since the last commit
	next     *buffer // what; nil for nothing or a buffer without memory
	x, y     int32   // attach's offset, for a buffer that is attached at commit

	scale     int32
	transform uint32
	viewport  bool // it has, or had, a wp_viewport
	release   bool // get_release was asked for
	onSurface box  // damage since the last commit, in surface coordinates
	onBuffer  box  // the same in buffer coordinates

	slots slots
}

func createSurface(c *client, m *message) error {
	if len(c.surfaces) >= c.limits.Surfaces {
		return over(m.obj.guest, "surfaces", int64(len(c.surfaces)+1), int64(c.limits.Surfaces))
	}
	s := &surface{obj: m.refs[0], scale: 1}
	s.obj.data = s
	c.surfaces = append(c.surfaces, s)
	return c.forward(m)
}

// free ends the surface's part in the client.
func (s *surface) free(c *client) {
	c.surfaces = slices.DeleteFunc(c.surfaces, func(o *surface) bool { return o == s })
	for _, o := range c.surfaces {
		if o.parent == s {
			o.parent = nil
		}
	}
	s.slots.free(c)
	s.next, s.parent, s.window = nil, nil, nil
}

// attach is sent on at once, but for buffers whose copy is made at commit.
func attach(c *client, m *message) error {
	s := m.obj.data.(*surface)
	s.attached, s.next = true, nil
	if o := m.refs[0]; o != nil {
		s.next, _ = o.data.(*buffer)
	}
	if s.next != nil && s.next.copy != nil {
		s.x, s.y = m.int(1), m.int(2)
		if (s.x != 0 || s.y != 0) && m.obj.version >= 5 {
			return fault(m.obj.guest, uint32(proto.WlSurfaceErrorInvalidOffset), "wl_surface.attach: offset %d,%d, want 0,0 since version 5", s.x, s.y)
		}
		return nil
	}
	return c.forward(m)
}

func damageSurface(c *client, m *message) error {
	s := m.obj.data.(*surface)
	s.onSurface.add(m.int(0), m.int(1), m.int(2), m.int(3))
	return c.forward(m)
}

func damageBuffer(c *client, m *message) error {
	s := m.obj.data.(*surface)
	s.onBuffer.add(m.int(0), m.int(1), m.int(2), m.int(3))
	return c.forward(m)
}

func setBufferScale(c *client, m *message) error {
	m.obj.data.(*surface).scale = m.int(0)
	return c.forward(m)
}

func setBufferTransform(c *client, m *message) error {
	m.obj.data.(*surface).transform = m.uint(0)
	return c.forward(m)
}

func getRelease(c *client, m *message) error {
	m.obj.data.(*surface).release = true
	return c.forward(m)
}

func getViewport(c *client, m *message) error {
	m.refs[1].data.(*surface).viewport = true
	return c.forward(m)
}

// commit is held until the GPU has drawn what was attached.
func commit(c *client, m *message) error {
	s := m.obj.data.(*surface)
	if s.attached && s.next != nil {
		if err := c.show(s, s.next); err != nil {
			return err
		}
	} else if s.attached {
		s.slots.spoil()
	}
	released := s.next != nil && s.attached && s.next.copy != nil
	if err := c.forward(m); err != nil {
		return err
	}
	if released {
		proto.WlBuffer(s.next.obj.guest).SendRelease(&c.out) // it was copied
	}
	s.attached, s.next, s.release = false, nil, false
	s.onSurface, s.onBuffer = box{}, box{}
	return nil
}

// show makes a newly attached buffer ready and counts it.
func (c *client) show(s *surface, b *buffer) error {
	if b.copy != nil {
		if err := c.showCopy(s, b); err != nil {
			return err
		}
	} else {
		if b.drawn {
			if err := c.unlocked(func() error { return b.res.Drawn(c.ctx) }); err != nil {
				if c.ctx.Err() != nil {
					return context.Canceled
				}
				return fault(s.obj.guest, codeBroken, "wl_surface.commit: resource %d: %w", b.res.ID(), err)
			}
		}
		s.slots.spoil()
		b.busy = true
		b.callbacks = b.callbacks || s.release
	}
	c.count(s, b)
	return nil
}

// box is a rectangle that grows; empty at first.
type box struct{ x0, y0, x1, y1 int64 }

func (b box) empty() bool { return b.x1 <= b.x0 || b.y1 <= b.y0 }

func (b *box) add(x, y, w, h int32) {
	if w <= 0 || h <= 0 {
		return
	}
	b.join(box{int64(x), int64(y), int64(x) + int64(w), int64(y) + int64(h)})
}

func (b *box) join(o box) {
	switch {
	case o.empty():
	case b.empty():
		*b = o
	default:
		*b = box{min(b.x0, o.x0), min(b.y0, o.y0), max(b.x1, o.x1), max(b.y1, o.y1)}
	}
}

// in returns the part of b that lies in a picture.
func (b box) in(w, h int32) box {
	b = box{max(b.x0, 0), max(b.y0, 0), min(b.x1, int64(w)), min(b.y1, int64(h))}
	if b.empty() {
		return box{}
	}
	return b
}

func (b box) rect() display.Rect {
	return display.Rect{X: uint32(b.x0), Y: uint32(b.y0), W: uint32(b.x1 - b.x0), H: uint32(b.y1 - b.y0)}
}

func (b box) area() int64 { return (b.x1 - b.x0) * (b.y1 - b.y0) }

// damage returns what the pending commit changes of a buffer, in its coordinates: all
// of it where the surface's coordinates are not easily told from the buffer's, and
// where the client names nothing.
func (s *surface) damage(b *buffer) box {
	whole := box{0, 0, int64(b.w), int64(b.h)}
	d := s.onBuffer
	if on := s.onSurface; !on.empty() {
		k := int64(s.scale)
		if s.transform != 0 || s.viewport || k < 1 || k > 64 || on.x1 > math.MaxInt32 || on.y1 > math.MaxInt32 {
			return whole
		}
		d.join(box{on.x0 * k, on.y0 * k, on.x1 * k, on.y1 * k})
	}
	if d = d.in(b.w, b.h); d.empty() {
		return whole
	}
	return d
}
