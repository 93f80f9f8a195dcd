package proxy

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// pool is the data of a wl_shm_pool. With BufferItems it is a number that offsets
// are checked against; else a resource stands for its memory.
type pool struct {
	size int64
	res  Resource // nil with BufferItems
}

func (p *pool) free(c *client) {
	c.nPools--
	closeResource(p.res)
}

// Codes of wl_shm.error, which wl_shm_pool uses too.
const (
	shmFormatCode = uint32(proto.WlShmErrorInvalidFormat)
	shmStrideCode = uint32(proto.WlShmErrorInvalidStride)
	shmFDCode     = uint32(proto.WlShmErrorInvalidFd)
)

// shmFormat tells of formats that we understand, where we have to.
func shmFormat(c *client, m *message) error {
	if !c.dialect.BufferItems || pixelBytes(shmFourcc(proto.WlShmFormat(m.uint(0)))) > 0 {
		c.relay(m)
	}
	return nil
}

func createPool(c *client, m *message) error {
	o, size := m.refs[0], m.int(2)
	if size <= 0 {
		return fault(m.obj.guest, shmStrideCode, "wl_shm.create_pool: size %d, want 1 or more", size)
	}
	if c.nPools >= c.limits.Pools {
		return over(m.obj.guest, "pools", int64(c.nPools+1), int64(c.limits.Pools))
	}
	p := &pool{size: int64(size)}
	if !c.dialect.BufferItems {
		res, err := c.open(m, shmFDCode)
		if err != nil {
			return err
		}
		p.res = res
		fd, _, err := c.memoryOf(res, m, shmFDCode, 0, uint64(size))
		if err != nil {
			closeResource(res)
			return err
		}
		proto.WlShm(m.obj.host).CreatePool(&c.conn.Out, proto.WlShmPool(c.objs.allot(o)), fd, size)
	}
	c.nPools++
	o.data = p
	return c.conn.Out.Err()
}

func poolResize(c *client, m *message) error {
	p, size := m.obj.data.(*pool), int64(m.int(0))
	if size < p.size {
		return fault(m.obj.guest, shmFDCode, "wl_shm_pool.resize: size %d, it has %d already", size, p.size)
	}
	p.size = size
	if p.res == nil {
		return nil
	}
	if have := p.res.Size(); uint64(size) > have {
		return fault(m.obj.guest, shmFDCode, "wl_shm_pool.resize: size %d, the resource has %d bytes", size, have)
	}
	return c.forward(m)
}

func poolDestroy(c *client, m *message) error {
	if m.obj.host == 0 {
		return nil
	}
	return c.forward(m)
}

// shmBuffer is the picture of a wl_shm_pool.create_buffer.
type shmBuffer struct {
	offset, w, h, stride int32
	format               proto.WlShmFormat
	bpp                  uint32 // 0 if the format is not known
}

func (s *shmBuffer) size() int64 { return int64(s.stride) * int64(s.h) }

// pictureOf checks the numbers as libwayland does, and those of known formats better.
func pictureOf(m *message, p *pool) (shmBuffer, error) {
	s := shmBuffer{m.int(1), m.int(2), m.int(3), m.int(4), proto.WlShmFormat(m.uint(5)), 0}
	s.bpp = pixelBytes(shmFourcc(s.format))
	switch {
	case s.w <= 0, s.h <= 0, s.w > dmabuf.MaxDimension, s.h > dmabuf.MaxDimension:
		return s, fault(m.obj.guest, shmStrideCode, "wl_shm_pool.create_buffer: %dx%d, want 1x1 to %dx%[3]d", s.w, s.h, dmabuf.MaxDimension)
	case s.stride < s.w && s.bpp == 0, int64(s.stride) < int64(s.w)*int64(s.bpp):
		return s, fault(m.obj.guest, shmStrideCode, "wl_shm_pool.create_buffer: stride %d, rows have %d pixels of %d bytes", s.stride, s.w, s.bpp)
	case s.size() > math.MaxInt32, s.offset < 0, int64(s.offset)+s.size() > p.size:
		return s, fault(m.obj.guest, shmStrideCode, "wl_shm_pool.create_buffer: %d bytes at %d, the pool has %d", s.size(), s.offset, p.size)
	}
	return s, nil
}

func poolCreateBuffer(c *client, m *message) error {
	o, p := m.refs[0], m.obj.data.(*pool)
	o.version = 1
	s, err := pictureOf(m, p)
	if err != nil {
		return err
	}
	if !c.dialect.BufferItems {
		b, err := c.newBuffer(o, nil, s.w, s.h)
		if err != nil {
			return err
		}
		b.tier = tierShared
		return c.forward(m)
	}
	if _, ok := c.host.shmFormats[s.format]; !ok || s.bpp == 0 {
		return fault(m.obj.guest, shmFormatCode, "wl_shm_pool.create_buffer: format %#x was not offered", uint32(s.format))
	}
	if m.item.Kind == ItemMemory {
		return c.createMemory(o, s)
	}
	res, err := c.open(m, shmFDCode)
	if err != nil {
		return err
	}
	at := m.item.Offset
	fd, isDMABuf, err := c.memoryOf(res, m, shmFDCode, at, uint64(s.size()))
	if err != nil {
		closeResource(res)
		return err
	}
	b, err := c.newBuffer(o, res, s.w, s.h)
	if err != nil {
		_ = fd.Close()
		return err
	}
	if isDMABuf {
		planes := []dmabuf.Plane{{FD: fd, Offset: uint32(at), Stride: uint32(s.stride)}}
		srv, why, err := c.importHost(planes, s.w, s.h, Format{shmFourcc(s.format), dmabuf.ModLinear}, 0)
		if err != nil {
			_ = fd.Close()
			return err
		}
		if srv != nil {
			_ = fd.Close()
			b.tier = tierUDMABuf
			c.become(o, srv)
			return nil
		}
		b.why = why
	} else {
		b.why = "the memory is no dma-buf"
	}
	b.tier = tierShared
	return c.hostShm(o, fd, int32(at), s)
}

// hostShm makes a wl_buffer on the host of memory that begins at offset; it owns fd.
func (c *client) hostShm(o *object, fd *dmabuf.FD, offset int32, s shmBuffer) error {
	out := &c.conn.Out
	p := c.objs.addOwn(proto.IWlShmPool, 1, nil)
	proto.WlShm(c.host.shm.host).CreatePool(out, proto.WlShmPool(p.host), fd, int32(int64(offset)+s.size()))
	proto.WlShmPool(p.host).CreateBuffer(out, proto.WlBuffer(c.objs.allot(o)), offset, s.w, s.h, s.stride, s.format)
	proto.WlShmPool(p.host).Destroy(out)
	p.dead = true
	return out.Err()
}

// open finds the resource that a request's item names, waiting for it a while. code
// is for the error.
func (c *client) open(m *message, code uint32) (Resource, error) {
	return c.openItem(m, &m.item, code)
}

func (c *client) openItem(m *message, it *Item, code uint32) (Resource, error) {
	if it.Kind != ItemResource || it.Resource == 0 || it.Device > DeviceImport {
		return nil, fault(m.obj.guest, code, "%s brings item kind %d, device %d, resource %d; want a resource", m.name(), it.Kind, it.Device, it.Resource)
	}
	if c.p.cfg.Resources == nil {
		return nil, fault(m.obj.guest, code, "%s: %w", m.name(), ErrUnknownResource)
	}
	ctx, cancel := context.WithTimeout(c.ctx, time.Duration(c.limits.ParkTime))
	defer cancel()
	var res Resource
	err := c.unlocked(func() (err error) {
		res, err = c.p.cfg.Resources.Open(ctx, c.owner, it.Device, it.Resource)
		return err
	})
	if err != nil {
		if c.ctx.Err() != nil {
			return nil, context.Canceled
		}
		return nil, fault(m.obj.guest, code, "%s: resource %d: %w", m.name(), it.Resource, err)
	}
	return res, nil
}

// memoryOf returns a descriptor of a blob that holds size bytes at an offset.
func (c *client) memoryOf(res Resource, m *message, code uint32, at, size uint64) (fd *dmabuf.FD, isDMABuf bool, err error) {
	if have := res.Size(); at > have || size > have-at || at+size > math.MaxInt32 {
		return nil, false, fault(m.obj.guest, code, "%s: %d bytes at %d, the resource has %d, limit %d", m.name(), size, at, have, math.MaxInt32)
	}
	err = c.unlocked(func() (err error) {
		fd, isDMABuf, err = res.Memory(c.ctx)
		return err
	})
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return nil, false, err
		}
		return nil, false, fault(m.obj.guest, code, "%s: resource %d: %w", m.name(), res.ID(), err)
	}
	return fd, isDMABuf, nil
}

// memory is that of a buffer whose content comes as bytes.
type memory struct {
	fd   *dmabuf.FD
	mem  []byte
	size int64
	pic  shmBuffer
}

func (m *memory) close() {
	_ = dmabuf.Unmap(m.mem)
	_ = m.fd.Close()
}

// createMemory makes a buffer that updates fill.
func (c *client) createMemory(o *object, s shmBuffer) error {
	size := dmabuf.PageAlign(s.size())
	if c.hostBytes+size > c.limits.HostBytes {
		return over(o.guest, "bytes of host memory", c.hostBytes+size, c.limits.HostBytes)
	}
	fd, err := dmabuf.NewMemfd("guest wl_buffer", size)
	if err != nil {
		return fault(o.guest, codeMemory, "wl_shm_pool.create_buffer: %w", err)
	}
	mem, err := dmabuf.Map(fd, size, true)
	if err != nil {
		_ = fd.Close()
		return fault(o.guest, codeMemory, "wl_shm_pool.create_buffer: %w", err)
	}
	own := &memory{fd: fd, mem: mem, size: size, pic: s}
	host, err := fd.Dup()
	if err != nil {
		own.close()
		return fault(o.guest, codeMemory, "wl_shm_pool.create_buffer: %w", err)
	}
	b, err := c.newBuffer(o, nil, s.w, s.h)
	if err != nil {
		_ = host.Close()
		own.close()
		return err
	}
	b.mem, b.tier, b.why = own, tierShm, "the content comes as bytes"
	c.hostBytes += size
	return c.hostShm(o, host, 0, s)
}

// update writes new content into a buffer.
func (c *client) update(u *Update) error {
	o := c.objs.guest[wire.ID(u.Buffer)]
	if o == nil || o.dead {
		return fault(wire.DisplayID, codeObject, "update of object %d, which does not exist", u.Buffer)
	}
	b, ok := o.data.(*buffer)
	if !ok || b.mem == nil {
		return fault(wire.DisplayID, codeObject, "update of object %d, which has no content from updates", u.Buffer)
	}
	s, r := &b.mem.pic, u.Rect
	if r.Empty() || uint64(r.X)+uint64(r.W) > uint64(s.w) || uint64(r.Y)+uint64(r.H) > uint64(s.h) {
		return fault(o.guest, codeMethod, "update of %v, the buffer has %dx%d", r, s.w, s.h)
	}
	row := int(r.W * s.bpp)
	if len(u.Pixels) != row*int(r.H) {
		return fault(o.guest, codeMethod, "update of %v has %d bytes, want %d", r, len(u.Pixels), row*int(r.H))
	}
	at := int(r.Y)*int(s.stride) + int(r.X*s.bpp)
	for src := u.Pixels; len(src) > 0; src = src[row:] {
		copy(b.mem.mem[at:at+row], src)
		at += int(s.stride)
	}
	c.copied(b, uint64(len(u.Pixels)))
	return nil
}

// copied counts bytes for the buffer's next commit, and for the whole proxy.
func (c *client) copied(b *buffer, n uint64) {
	b.fresh += n
	c.p.stats.BytesCopied.Add(n)
}
