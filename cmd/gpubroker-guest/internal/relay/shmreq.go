package relay

import (
	"errors"
	"image"

	"github.com/gpubroker/gpubroker/broker/link"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/shm"
)

// maxPools and maxBuffers bound what a client may have.
const (
	maxPools   = 4096
	maxBuffers = 16384
)

func shmError(o *object, code proto.WlShmError, text string) error {
	return &ProtocolError{Object: o.id, Code: uint32(code), Text: text}
}

func createPool(c *Client, o *object, m wire.Message) (bool, error) {
	var req proto.WlShmCreatePoolRequest
	if err := req.Decode(m); err != nil {
		return false, err
	}
	if c.pools >= maxPools {
		_ = req.Fd.Close()
		return false, displayError(codeNoMemory, "%d wl_shm_pool objects, the limit", maxPools)
	}
	pool, err := shm.NewPool(req.Fd, req.Size)
	if err != nil {
		code := proto.WlShmErrorInvalidFd
		if req.Size <= 0 {
			code = proto.WlShmErrorInvalidStride
		}
		return false, shmError(o, code, err.Error())
	}
	c.pools++
	c.objects.setData(c.objects.get(wire.ID(req.Id)), pool)
	return true, nil
}

func resizePool(c *Client, o *object, m wire.Message) (bool, error) {
	var req proto.WlShmPoolResizeRequest
	if err := req.Decode(m); err != nil {
		return false, err
	}
	if err := o.data.(*shm.Pool).Resize(req.Size); err != nil {
		return false, shmError(o, proto.WlShmErrorInvalidFd, err.Error())
	}
	return true, nil
}

func destroyPool(c *Client, o *object, _ wire.Message) (bool, error) {
	c.pools--
	pool := o.data.(*shm.Pool)
	c.objects.setData(o, nil)
	pool.Release()
	return true, nil
}

func createBuffer(c *Client, o *object, m wire.Message) (bool, error) {
	var req proto.WlShmPoolCreateBufferRequest
	if err := req.Decode(m); err != nil {
		return false, err
	}
	g := shm.Geometry{Offset: req.Offset, Width: req.Width, Height: req.Height, Stride: req.Stride,
		Format: shm.Fourcc(uint32(req.Format))}
	mem, err := c.cfg.Store.NewBuffer(o.data.(*shm.Pool), g)
	if err != nil {
		code := proto.WlShmErrorInvalidStride
		if g.Format.BytesPerPixel() == 0 {
			code = proto.WlShmErrorInvalidFormat
		}
		return false, shmError(o, code, err.Error())
	}
	b := &buffer{shm: mem}
	if err := c.addBuffer(b); err != nil {
		b.free()
		return false, err
	}
	c.objects.setData(c.objects.get(wire.ID(req.Id)), b)
	switch mem.Tier {
	case shm.TierImport:
		c.item(link.Item{Kind: link.ItemResource, Device: link.DeviceImport, ID: mem.Resource(), Offset: mem.InPage})
	case shm.TierBlob:
		c.item(link.Item{Kind: link.ItemResource, Device: link.DeviceGPU, ID: mem.Resource()})
	default:
		c.item(link.Item{Kind: link.ItemMemory})
	}
	return true, nil
}

func destroyBuffer(c *Client, o *object, _ wire.Message) (bool, error) {
	if b, ok := c.objects.data(o).(*buffer); ok {
		b.destroy()
	}
	return true, nil
}

// copyOut brings the pixels of a commit to the host. Messages that wait go first, so
// that the host knows the buffer.
func (c *Client) copyOut(id wire.ID, b *buffer, stale region) error {
	if b.shm.Tier == shm.TierImport {
		return nil
	}
	rects := stale.within(b.shm.Bounds())
	if len(rects) == 0 {
		return nil
	}
	if b.shm.Tier == shm.TierStream {
		if err := c.flush(); err != nil {
			return err
		}
	}
	bpp := int(b.shm.Format.BytesPerPixel())
	u := link.Update{Buffer: uint32(id), BytesPerPixel: uint8(bpp)}
	n, err := b.shm.Copy(rects, func(r image.Rectangle, pixels []byte) error {
		u.X, u.Y, u.W, u.H = uint32(r.Min.X), uint32(r.Min.Y), uint32(r.Dx()), uint32(r.Dy())
		return c.host.WriteUpdate(u, pixels, r.Dx()*bpp)
	})
	c.stats.Bytes[b.shm.Tier].Add(n)
	if errors.Is(err, shm.ErrUnreadable) {
		return shmError(&object{id: c.shm}, proto.WlShmErrorInvalidFd, err.Error())
	}
	return err
}
