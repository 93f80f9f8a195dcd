package proxy

import (
	"context"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
)

// conversion says how a buffer is copied for a compositor that does not take it.
type conversion struct {
	as     Layout        // for Resource.Read; zero for textures
	fourcc dmabuf.Fourcc // of the copy
	w, h   uint32        // of the copy; a texture's own
}

// convert makes b a buffer that is copied at each commit; why is the reason.
func (c *client) convert(b *buffer, s spec, why string) error {
	b.export.Release()
	b.export = nil
	tw, th, tex, ok := b.res.Texture()
	conv := &conversion{w: tw, h: th}
	from := tex
	if ok && tex.Opaque() != s.fourcc.Opaque() {
		return refuse("%s, and %v cannot be copied as %v", why, tex, s.fourcc)
	}
	if !ok {
		from = s.fourcc
		conv.as = Layout{Fourcc: s.fourcc, Offset: blobOffset(s), Stride: s.first.stride}
		conv.w, conv.h = uint32(s.w), uint32(s.h)
	}
	if _, ok := converted(from); !ok {
		return refuse("%s, and %v cannot be copied", why, from)
	}
	if s.flags != 0 {
		return refuse("%s, and flags %#x cannot be copied", why, uint32(s.flags))
	}
	conv.fourcc, _ = converted(s.fourcc)
	b.copy, b.tier, b.why = conv, tierShm, why
	return nil
}

// maxSlots is how many copies a surface may have: the compositor holds one or two,
// and a cached sub-surface state one more.
const maxSlots = 6

// slots are the copies of a surface's content. Each knows what has changed since it
// was made. They are the surface's and not the buffer's, because damage says what
// changed on the surface.
type slots struct {
	list []*slot
	conv conversion // of all of them
	pic  [2]int32   // the part that is shown
}

type slot struct {
	obj   *object
	buf   *dmabuf.Buffer
	busy  bool // the compositor looks at it
	stale box  // not as the surface's content is
	gone  bool // of another size or a dead surface: ends when released
}

// spoil notes that the surface shows something else, so that all of each copy is old.
func (l *slots) spoil() {
	for _, s := range l.list {
		s.stale = box{0, 0, int64(s.buf.Width), int64(s.buf.Height)}
	}
}

// free ends all copies, those that the compositor looks at when it has released them.
func (l *slots) free(c *client) {
	for _, s := range l.list {
		s.gone = true
		if !s.busy {
			s.end(c)
		}
	}
	l.list = nil
}

// end destroys a copy.
func (s *slot) end(c *client) {
	if c.conn != nil && !s.obj.dead {
		c.dropHost(s.obj)
	}
	s.obj.data, s.obj.own = nil, nil
	s.free(c)
}

// free lets go of the memory.
func (s *slot) free(c *client) {
	if s.buf == nil {
		return
	}
	c.hostBytes -= int64(len(s.buf.Mem))
	s.buf.Release()
	s.buf = nil
}

// slotRelease is the compositor's wl_buffer.release.
func slotRelease(c *client, m *message) error {
	s := m.obj.data.(*slot)
	s.busy = false
	if s.gone {
		s.end(c)
	}
	c.changed.Broadcast()
	return nil
}

// showCopy brings a free copy up to date and attaches it.
func (c *client) showCopy(s *surface, b *buffer) error {
	l := &s.slots
	if l.conv != *b.copy || l.pic != [2]int32{b.w, b.h} {
		l.free(c)
		l.conv, l.pic = *b.copy, [2]int32{b.w, b.h}
	}
	damage := s.damage(b)
	for _, x := range l.list {
		x.stale.join(damage)
	}
	k, err := c.freeSlot(s, b)
	if err != nil {
		return err
	}
	stale := k.stale.in(b.w, b.h)
	var n uint64
	k.busy = true // nobody else takes it while mu is free
	err = c.unlocked(func() (err error) {
		n, err = b.res.Read(c.ctx, b.copy.as, stale.rect(), k.buf)
		return err
	})
	if err != nil {
		k.busy = false
		if c.ctx.Err() != nil {
			return context.Canceled
		}
		return fault(s.obj.guest, codeBroken, "wl_surface.commit: resource %d: %w", b.res.ID(), err)
	}
	k.stale = box{}
	c.copied(b, n)
	proto.WlSurface(s.obj.host).Attach(&c.conn.Out, proto.WlBuffer(k.obj.host), s.x, s.y)
	return c.conn.Out.Err()
}

// freeSlot returns the copy that needs the least work, a new one, or waits.
func (c *client) freeSlot(s *surface, b *buffer) (*slot, error) {
	l := &s.slots
	var best *slot
	pick := func() bool {
		for _, k := range l.list {
			if !k.busy && (best == nil || k.stale.area() < best.stale.area()) {
				best = k
			}
		}
		return best != nil
	}
	if pick() {
		return best, nil
	}
	if len(l.list) < maxSlots {
		return c.newSlot(s, b)
	}
	if err := c.flush(); err != nil {
		return nil, err
	}
	err := c.waitFor(pick)
	return best, err
}

// newSlot makes a copy, all of it stale.
func (c *client) newSlot(s *surface, b *buffer) (*slot, error) {
	conv := b.copy
	size := dmabuf.PageAlign(int64(shmfallback.Stride(conv.w, 4)) * int64(conv.h))
	if c.hostBytes+size > c.limits.HostBytes {
		return nil, over(s.obj.guest, "bytes of host memory", c.hostBytes+size, c.limits.HostBytes)
	}
	buf, err := shmfallback.Alloc(conv.w, conv.h, conv.fourcc, "copy for a guest")
	if err != nil {
		return nil, fault(s.obj.guest, codeMemory, "wl_surface.commit: %w", err)
	}
	fd, err := buf.Planes[0].FD.Dup()
	if err != nil {
		buf.Release()
		return nil, fault(s.obj.guest, codeMemory, "wl_surface.commit: %w", err)
	}
	c.hostBytes += int64(len(buf.Mem))
	k := &slot{buf: buf, stale: box{0, 0, int64(b.w), int64(b.h)}}
	k.obj = &object{iface: proto.IWlBuffer, version: 1, own: slotRelease, data: k}
	s.slots.list = append(s.slots.list, k)
	format := proto.WlShmFormatXrgb8888
	if conv.fourcc.HasAlpha() {
		format = proto.WlShmFormatArgb8888
	}
	return k, c.hostShm(k.obj, fd, 0, shmBuffer{w: b.w, h: b.h, stride: int32(buf.Planes[0].Stride), format: format, bpp: 4})
}
