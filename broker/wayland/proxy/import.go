package proxy

import (
	"context"
	"fmt"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// importing is the data of a zwp_linux_buffer_params_v1 of ours, until the
// compositor's answer.
type importing struct {
	format   Format
	answered bool
	buffer   *object // nil if it failed
}

// importHost asks the compositor for a wl_buffer of dma-bufs and waits for the
// answer. It uses create, not create_immed: a refusal then is an event instead of the
// end of the connection. The result is nil, with the reason, if the compositor does
// not take it. The descriptors stay the caller's.
func (c *client) importHost(planes []dmabuf.Plane, w, h int32, f Format, flags proto.ZwpLinuxBufferParamsV1Flags) (*object, string, error) {
	if !c.hostTakes(f) {
		return nil, fmt.Sprintf("the compositor does not take %v with modifier %v", f.Fourcc, f.Modifier), nil
	}
	var fds [dmabuf.MaxPlanes]*dmabuf.FD
	for i := range planes {
		fd, err := planes[i].FD.Dup()
		if err != nil {
			for _, fd := range fds {
				_ = fd.Close()
			}
			return nil, err.Error(), nil
		}
		fds[i] = fd
	}
	out := &c.conn.Out
	imp := &importing{format: f}
	o := c.objs.addOwn(proto.IZwpLinuxBufferParamsV1, c.host.version, paramsAnswer)
	o.data = imp
	params := proto.ZwpLinuxBufferParamsV1(o.host)
	proto.ZwpLinuxDmabufV1(c.host.dmabuf.host).CreateParams(out, params)
	for i := range planes {
		params.Add(out, fds[i], uint32(i), planes[i].Offset, planes[i].Stride, uint32(f.Modifier>>32), uint32(f.Modifier))
	}
	params.Create(out, w, h, uint32(f.Fourcc), flags)
	if err := c.flush(); err != nil {
		return nil, "", err
	}
	if err := c.waitFor(func() bool { return imp.answered }); err != nil {
		return nil, "", err
	}
	if c.ctx.Err() != nil {
		return nil, "", context.Canceled
	}
	params.Destroy(out)
	o.dead, o.data = true, nil
	if imp.buffer == nil {
		delete(c.host.formats, f) // it is not offered again
		return nil, fmt.Sprintf("the compositor failed to import %v with modifier %v", f.Fourcc, f.Modifier), out.Err()
	}
	return imp.buffer, "", out.Err()
}

// paramsAnswer takes the compositor's answer.
func paramsAnswer(c *client, m *message) error {
	imp, ok := m.obj.data.(*importing)
	if !ok || imp.answered {
		return hostFault("%s: a second answer", m.name())
	}
	imp.answered = true
	if m.opcode() == proto.EvZwpLinuxBufferParamsV1Created {
		imp.buffer = m.refs[0]
	}
	c.changed.Broadcast()
	return nil
}

// become makes the compositor's object srv the host's side of the guest's o.
func (c *client) become(o, srv *object) {
	o.host = srv.host
	c.objs.server[o.host] = o
}
