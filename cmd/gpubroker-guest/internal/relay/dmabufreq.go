package relay

import (
	"errors"
	"fmt"
	"sync"

	"github.com/gpubroker/gpubroker/broker/link"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/drm"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// maxPlanes is how many planes a buffer may have.
const maxPlanes = 4

// params is a zwp_linux_buffer_params_v1. The client's goroutine fills it; what it
// holds goes to the buffer, which for create is when the host says so.
type params struct {
	broken string // why there can be no buffer, "" if there can

	mu     sync.Mutex
	planes []*drm.Handle
}

// add keeps a plane.
func (p *params) add(h *drm.Handle) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.planes) >= maxPlanes {
		return false
	}
	p.planes = append(p.planes, h)
	return true
}

// take gives the planes away.
func (p *params) take() []*drm.Handle {
	p.mu.Lock()
	defer p.mu.Unlock()
	planes := p.planes
	p.planes = nil
	return planes
}

func paramsError(o *object, code proto.ZwpLinuxBufferParamsV1Error, format string, args ...any) error {
	return &ProtocolError{Object: o.id, Code: uint32(code), Text: fmt.Sprintf(format, args...)}
}

func paramsOf(c *Client, o *object) *params { return c.objects.data(o).(*params) }

func addPlane(c *Client, o *object, m wire.Message) (bool, error) {
	var req proto.ZwpLinuxBufferParamsV1AddRequest
	if err := req.Decode(m); err != nil {
		return false, err
	}
	defer func() { _ = req.Fd.Close() }()
	p := paramsOf(c, o)
	if p.broken != "" {
		return false, nil
	}
	h, device, err := c.importDMABuf(req.Fd)
	if err != nil {
		p.broken = err.Error()
		c.cfg.Log.Warn("a client's dma-buf cannot be shown", "client", c.cfg.Name, "why", err)
		return false, nil
	}
	if !p.add(h) {
		h.Close()
		return false, paramsError(o, proto.ZwpLinuxBufferParamsV1ErrorPlaneSet, "more than %d planes", maxPlanes)
	}
	c.item(link.Item{Kind: link.ItemResource, Device: device, ID: h.Resource()})
	return true, nil
}

// importDMABuf finds the resource that a dma-buf is: one of the GPU's, else what the
// import device makes of it.
func (c *Client) importDMABuf(fd *dmabuf.FD) (*drm.Handle, uint8, error) {
	h, err := c.importGPU(fd)
	if err == nil {
		return h, link.DeviceGPU, nil
	}
	if c.cfg.Store.Import == nil {
		return nil, 0, fmt.Errorf("%w; there is no import device for buffers of other devices", err)
	}
	h, err2 := c.cfg.Store.Import.ImportDMABuf(fd)
	if err2 != nil {
		return nil, 0, errors.Join(err, err2)
	}
	return h, link.DeviceImport, nil
}

func (c *Client) importGPU(fd *dmabuf.FD) (*drm.Handle, error) {
	if c.cfg.GPU == nil {
		return nil, errors.New("no GPU whose buffers the host could name")
	}
	dev, err := c.cfg.GPU()
	if err != nil {
		return nil, err
	}
	return dev.Import(fd)
}

func paramsCreate(c *Client, o *object, m wire.Message) (bool, error) {
	p := paramsOf(c, o)
	if p.broken == "" {
		return true, nil
	}
	return false, c.out.write(func(w *wire.Writer) {
		proto.ZwpLinuxBufferParamsV1(o.id).SendFailed(w)
	})
}

func paramsCreateImmed(c *Client, o *object, m wire.Message) (bool, error) {
	var req proto.ZwpLinuxBufferParamsV1CreateImmedRequest
	if err := req.Decode(m); err != nil {
		return false, err
	}
	p := paramsOf(c, o)
	if p.broken != "" {
		return false, paramsError(o, proto.ZwpLinuxBufferParamsV1ErrorInvalidWlBuffer, "%s", p.broken)
	}
	b := &buffer{planes: p.take(), dma: true}
	if err := c.addBuffer(b); err != nil {
		b.free()
		return false, err
	}
	c.objects.setData(c.objects.get(wire.ID(req.BufferId)), b)
	return true, nil
}

// paramsCreated is the host's answer to create: the planes are the new buffer's.
func paramsCreated(c *Client, o *object, m wire.Message) error {
	var ev proto.ZwpLinuxBufferParamsV1CreatedEvent
	if err := ev.Decode(m); err != nil {
		return err
	}
	b := &buffer{planes: paramsOf(c, o).take(), dma: true}
	if err := c.addBuffer(b); err != nil {
		b.free()
		return err
	}
	c.objects.setData(c.objects.get(wire.ID(ev.Buffer)), b)
	return nil
}

func paramsFailed(c *Client, o *object, _ wire.Message) error {
	closePlanes(paramsOf(c, o).take())
	return nil
}
