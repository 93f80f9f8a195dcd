package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// params is the data of a guest's zwp_linux_buffer_params_v1, which the compositor
// does not know.
type params struct {
	planes [dmabuf.MaxPlanes]paramsPlane
	used   bool
}

type paramsPlane struct {
	set            bool
	item           Item
	offset, stride uint32
	modifier       dmabuf.Modifier
}

// Codes of zwp_linux_buffer_params_v1.error.
const (
	paramsUsed       = uint32(proto.ZwpLinuxBufferParamsV1ErrorAlreadyUsed)
	paramsPlaneIdx   = uint32(proto.ZwpLinuxBufferParamsV1ErrorPlaneIdx)
	paramsPlaneSet   = uint32(proto.ZwpLinuxBufferParamsV1ErrorPlaneSet)
	paramsIncomplete = uint32(proto.ZwpLinuxBufferParamsV1ErrorIncomplete)
	paramsFormat     = uint32(proto.ZwpLinuxBufferParamsV1ErrorInvalidFormat)
	paramsDimensions = uint32(proto.ZwpLinuxBufferParamsV1ErrorInvalidDimensions)
	paramsBounds     = uint32(proto.ZwpLinuxBufferParamsV1ErrorOutOfBounds)
	paramsBuffer     = uint32(proto.ZwpLinuxBufferParamsV1ErrorInvalidWlBuffer)
)

func createParams(_ *client, m *message) error {
	m.refs[0].data = &params{}
	return nil
}

func paramsAdd(_ *client, m *message) error {
	p, i := m.obj.data.(*params), m.uint(1)
	switch {
	case p.used:
		return fault(m.obj.guest, paramsUsed, "%s: a buffer was made of it already", m.name())
	case i >= dmabuf.MaxPlanes:
		return fault(m.obj.guest, paramsPlaneIdx, "%s: plane %d, limit %d", m.name(), i, dmabuf.MaxPlanes-1)
	case p.planes[i].set:
		return fault(m.obj.guest, paramsPlaneSet, "%s: plane %d is set already", m.name(), i)
	case m.item.Kind != ItemResource:
		return fault(m.obj.guest, codeMethod, "%s brings item kind %d, want a resource (%d)", m.name(), m.item.Kind, ItemResource)
	}
	p.planes[i] = paramsPlane{set: true, item: m.item, offset: m.uint(2), stride: m.uint(3),
		modifier: dmabuf.Modifier(uint64(m.uint(4))<<32 | uint64(m.uint(5)))}
	return nil
}

// setSamplingDevice: the guest has one device, and it is not the host's.
func setSamplingDevice(c *client, m *message) error {
	if dev := m.bytes(0); !slices.Equal(dev, c.deviceBytes()) {
		return fault(m.obj.guest, codeMethod, "%s: device % x, offered was % x", m.name(), dev[:min(len(dev), 16)], c.deviceBytes())
	}
	return nil
}

func paramsCreate(c *client, m *message) error {
	b := c.objs.make()
	*b = object{iface: proto.IWlBuffer, version: 1}
	err := c.createGPU(m, b, 0)
	var refused *refusal
	if errors.As(err, &refused) {
		c.log.Info("a buffer of the guest is not shown", zap.Error(err))
		proto.ZwpLinuxBufferParamsV1(m.obj.guest).SendFailed(&c.out)
		return nil
	}
	if err != nil {
		return err
	}
	proto.ZwpLinuxBufferParamsV1(m.obj.guest).SendCreated(&c.out, proto.WlBuffer(c.objs.announce(b)))
	return nil
}

func paramsCreateImmed(c *client, m *message) error {
	o := m.refs[0]
	o.version = 1
	err := c.createGPU(m, o, 1)
	var refused *refusal
	if errors.As(err, &refused) {
		return fault(m.obj.guest, paramsBuffer, "%s: %w", m.name(), refused.err)
	}
	return err
}

// refusal says that a buffer cannot be shown, which is not the client's fault.
type refusal struct{ err error }

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

func refuse(format string, args ...any) error { return &refusal{fmt.Errorf(format, args...)} }

// spec is what a guest says of a buffer.
type spec struct {
	w, h   int32
	fourcc dmabuf.Fourcc
	flags  proto.ZwpLinuxBufferParamsV1Flags
	planes []paramsPlane
	first  paramsPlane
}

// specOf checks a create request whose arguments begin at arg.
func (c *client) specOf(m *message, arg int) (spec, error) {
	p := m.obj.data.(*params)
	if p.used {
		return spec{}, fault(m.obj.guest, paramsUsed, "%s: a buffer was made of it already", m.name())
	}
	p.used = true
	s := spec{m.int(arg), m.int(arg + 1), dmabuf.Fourcc(m.uint(arg + 2)), proto.ZwpLinuxBufferParamsV1Flags(m.uint(arg + 3)), nil, p.planes[0]}
	n := 0
	for n < len(p.planes) && p.planes[n].set {
		n++
	}
	for i := n; i < len(p.planes); i++ {
		if p.planes[i].set {
			n = 0
		}
	}
	if n == 0 {
		return s, fault(m.obj.guest, paramsIncomplete, "%s: planes are missing", m.name())
	}
	s.planes = p.planes[:n]
	if s.w <= 0 || s.h <= 0 || s.w > dmabuf.MaxDimension || s.h > dmabuf.MaxDimension {
		return s, fault(m.obj.guest, paramsDimensions, "%s: %dx%d, want 1x1 to %dx%[4]d", m.name(), s.w, s.h, dmabuf.MaxDimension)
	}
	if !c.offers(Format{s.fourcc, s.first.modifier}) {
		return s, fault(m.obj.guest, paramsFormat, "%s: %v with modifier %v was not offered", m.name(), s.fourcc, s.first.modifier)
	}
	for i := range s.planes {
		if q := &s.planes[i]; q.modifier != s.first.modifier {
			return s, fault(m.obj.guest, paramsFormat, "%s: plane %d has modifier %v, plane 0 %v", m.name(), i, q.modifier, s.first.modifier)
		}
	}
	return s, nil
}

// createGPU makes o a wl_buffer of what the planes name: as it is if the compositor
// takes it, else to be copied at each commit. A *refusal says that neither goes.
func (c *client) createGPU(m *message, o *object, arg int) error {
	s, err := c.specOf(m, arg)
	if err != nil {
		return err
	}
	for i := range s.planes {
		if q := &s.planes[i].item; q.Device != s.first.item.Device || q.Resource != s.first.item.Resource {
			return refuse("plane %d is in resource %d, plane 0 in %d", i, q.Resource, s.first.item.Resource)
		}
	}
	res, err := c.openItem(m, &s.first.item, paramsBuffer)
	if err != nil {
		if errors.Is(err, ErrUnknownResource) || errors.Is(err, ErrGone) {
			return &refusal{err}
		}
		return err
	}
	b, err := c.newBuffer(o, res, s.w, s.h)
	if err != nil {
		return err
	}
	if err := c.placeGPU(m, b, s); err != nil {
		o.data = nil
		b.free(c)
		return err
	}
	return nil
}

// placeGPU decides how a buffer goes to the compositor.
func (c *client) placeGPU(m *message, b *buffer, s spec) error {
	tw, th, tex, isTexture := b.res.Texture()
	if isTexture && (uint32(s.w) > tw || uint32(s.h) > th) {
		return fault(m.obj.guest, paramsBounds, "%s: %dx%d, the resource has %dx%d", m.name(), s.w, s.h, tw, th)
	}
	if !isTexture {
		if err := checkBlob(m, b.res.Size(), s); err != nil {
			return err
		}
	}
	b.drawn = s.first.item.Device == DeviceGPU
	err := c.unlocked(func() (err error) {
		b.export, err = b.res.Buffer(c.ctx)
		return err
	})
	switch {
	case c.ctx.Err() != nil:
		return context.Canceled
	case errors.Is(err, ErrNotExportable) && !isTexture:
		return c.placeBlob(b, s)
	case err != nil:
		return c.convert(b, s, err.Error())
	}
	planes, f := b.export.Planes, Format{b.export.Fourcc, b.export.Modifier}
	if isTexture {
		var ok bool
		if f.Fourcc, ok = exportFormat(b.export.Fourcc, tex, s.fourcc); !ok {
			return refuse("resource %d is %v, exported as %v, not %v", b.res.ID(), tex, b.export.Fourcc, s.fourcc)
		}
	} else {
		f.Fourcc = s.fourcc
		planes = slices.Clone(planes[:1])
		planes[0].Offset, planes[0].Stride = blobOffset(s), s.first.stride
	}
	flags := s.flags
	if b.export.YInvert {
		flags ^= proto.ZwpLinuxBufferParamsV1FlagsYInvert
	}
	srv, why, err := c.importHost(planes, s.w, s.h, f, flags)
	if err != nil {
		return err
	}
	if srv == nil {
		return c.convert(b, s, why)
	}
	b.tier = tierDMABuf
	c.become(b.obj, srv)
	return nil
}

// blobOffset returns where plane 0 begins in the resource.
func blobOffset(s spec) uint32 { return s.first.offset + uint32(s.first.item.Offset) }

// checkBlob checks that a picture lies in a blob.
func checkBlob(m *message, have uint64, s spec) error {
	if len(s.planes) != 1 {
		return refuse("blob with %d planes of %v", len(s.planes), s.fourcc)
	}
	row := uint64(s.w) * uint64(pixelBytes(s.fourcc))
	start := uint64(s.first.offset) + s.first.item.Offset
	end := start + uint64(s.first.stride)*uint64(s.h-1) + row
	if row == 0 || uint64(s.first.stride) < row || s.first.item.Offset > have || end > have {
		return fault(m.obj.guest, paramsBounds, "%s: %dx%d with stride %d at %d ends at %d, the resource has %d bytes", m.name(), s.w, s.h, s.first.stride, start, end, have)
	}
	return nil
}

// placeBlob shows guest memory that the renderer does not draw.
func (c *client) placeBlob(b *buffer, s spec) error {
	var fd *dmabuf.FD
	var isDMABuf bool
	err := c.unlocked(func() (err error) {
		fd, isDMABuf, err = b.res.Memory(c.ctx)
		return err
	})
	if c.ctx.Err() != nil {
		_ = fd.Close()
		return context.Canceled
	}
	if err != nil {
		return c.convert(b, s, err.Error())
	}
	defer fd.Close()
	if !isDMABuf {
		return c.convert(b, s, "the memory is no dma-buf")
	}
	planes := []dmabuf.Plane{{FD: fd, Offset: blobOffset(s), Stride: s.first.stride}}
	srv, why, err := c.importHost(planes, s.w, s.h, Format{s.fourcc, dmabuf.ModLinear}, s.flags)
	if err != nil {
		return err
	}
	if srv == nil {
		return c.convert(b, s, why)
	}
	b.tier = tierUDMABuf
	c.become(b.obj, srv)
	return nil
}
