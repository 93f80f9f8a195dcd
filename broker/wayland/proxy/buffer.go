package proxy

import (
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// tier is the way in which frames go to the compositor, best first.
type tier uint8

const (
	tierDMABuf  tier = iota // the GPU's memory
	tierUDMABuf             // the guest's pages as a dma-buf
	tierShared              // the guest's pages, or memory that it has mapped, as wl_shm
	tierShm                 // a copy
	tiers
)

var tierNames = [tiers]string{"dmabuf", "udmabuf", "shared", "shm"}

// buffer is the data of a guest's wl_buffer that has memory. Its host object and its
// resource stay until it is destroyed and released.
type buffer struct {
	obj    *object
	res    Resource       // nil for memory of ours
	export *dmabuf.Buffer // reference; nil if the memory is not an export
	w, h   int32
	tier   tier
	why    string // why not a better tier

	drawn     bool // the GPU draws it: commits wait
	busy      bool // committed and not released since
	callbacks bool // its releases come by wl_surface.get_release

	mem   *memory
	copy  *conversion // the compositor does not take it as it is
	fresh uint64      // bytes copied since the last commit
}

// newBuffer makes the data of a wl_buffer. It owns res also on error.
func (c *client) newBuffer(o *object, res Resource, w, h int32) (*buffer, error) {
	if c.nBuffers >= c.limits.Buffers {
		closeResource(res)
		return nil, over(o.guest, "buffers", int64(c.nBuffers+1), int64(c.limits.Buffers))
	}
	c.nBuffers++
	b := &buffer{obj: o, res: res, w: w, h: h}
	o.data = b
	return b, nil
}

func closeResource(res Resource) {
	if res != nil {
		_ = res.Close()
	}
}

// free lets go of the memory.
func (b *buffer) free(c *client) {
	c.nBuffers--
	b.export.Release()
	closeResource(b.res)
	if b.mem != nil {
		c.hostBytes -= b.mem.size
		b.mem.close()
	}
	b.obj, b.res, b.export, b.mem = nil, nil, nil, nil
}

// bufferDestroy ends a wl_buffer for the guest. The compositor keeps it while it may
// still look at it.
func bufferDestroy(c *client, m *message) error {
	b, ok := m.obj.data.(*buffer)
	if !ok {
		return c.forward(m) // without memory
	}
	m.sent = true
	o := m.obj
	for _, s := range c.surfaces {
		if s.next == b {
			s.next = nil
		}
	}
	c.deleteID(o)
	switch {
	case o.host == 0:
		o.data, o.dead = nil, true
		b.free(c)
	case b.busy && !b.callbacks:
		o.own = orphanRelease
	default:
		c.dropHost(o)
		o.data = nil
		b.free(c)
	}
	return nil
}

// dropHost destroys a wl_buffer on the host's side.
func (c *client) dropHost(o *object) {
	proto.WlBuffer(o.host).Destroy(&c.conn.Out)
	o.dead = true
}

// orphanRelease ends a buffer that the guest destroyed earlier.
func orphanRelease(c *client, m *message) error {
	b := m.obj.data.(*buffer)
	c.dropHost(m.obj)
	m.obj.data, m.obj.own = nil, nil
	b.free(c)
	return nil
}

func bufferRelease(c *client, m *message) error {
	if b, ok := m.obj.data.(*buffer); ok {
		b.busy = false
	}
	c.relay(m)
	return nil
}
