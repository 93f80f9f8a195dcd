package waylandtest

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Sandbox is what a security context says of the clients that come by it.
type Sandbox struct{ Engine, App, Instance string }

// secure is a wp_security_context_v1: a listener of its own, which closes when the
// other end of closing does.
type secure struct {
	Sandbox
	listener, closing *dmabuf.FD
	committed         bool
}

func createListener(cl *client, _ *object, m wire.Message) error {
	var a proto.WpSecurityContextManagerV1CreateListenerRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	s := &secure{listener: a.ListenFd, closing: a.CloseFd}
	cl.c.secure = append(cl.c.secure, s)
	cl.objects[wire.ID(a.Id)].data = s
	if cl.sandbox != nil {
		return fmt.Errorf("a security context within one")
	}
	return nil
}

func setEngine(_ *client, o *object, m wire.Message) error {
	var a proto.WpSecurityContextV1SetSandboxEngineRequest
	err := a.Decode(m)
	o.data.(*secure).Engine = a.Name
	return err
}

func setSandboxApp(_ *client, o *object, m wire.Message) error {
	var a proto.WpSecurityContextV1SetAppIdRequest
	err := a.Decode(m)
	o.data.(*secure).App = a.AppId
	return err
}

func setInstance(_ *client, o *object, m wire.Message) error {
	var a proto.WpSecurityContextV1SetInstanceIdRequest
	err := a.Decode(m)
	o.data.(*secure).Instance = a.InstanceId
	return err
}

func commitContext(_ *client, o *object, _ wire.Message) error {
	o.data.(*secure).committed = true
	return nil
}

// polls adds what to wait for.
func (s *secure) polls(p []unix.PollFd) []unix.PollFd {
	return append(p, unix.PollFd{Fd: int32(s.listener.Int()), Events: unix.POLLIN}, unix.PollFd{Fd: int32(s.closing.Int())})
}

// serveSecure accepts the clients of security contexts and ends those that are over.
func (c *Compositor) serveSecure() {
	var left []*secure
	for _, s := range c.secure {
		if s.committed {
			c.accept(s.listener, &s.Sandbox)
		}
		over := []unix.PollFd{{Fd: int32(s.closing.Int())}}
		if n, _ := unix.Poll(over, 0); n > 0 {
			s.close()
			continue
		}
		left = append(left, s)
	}
	c.secure = left
}

func (s *secure) close() {
	_ = s.listener.Close()
	_ = s.closing.Close()
}

// Sandboxes returns the sandboxes of the clients that are connected by one.
func (c *Compositor) Sandboxes() (out []Sandbox) {
	c.call(func() {
		for _, cl := range c.clients {
			if cl.sandbox != nil {
				out = append(out, *cl.sandbox)
			}
		}
	})
	return out
}

// Listeners returns how many security contexts are open.
func (c *Compositor) Listeners() (n int) {
	c.call(func() { n = len(c.secure) })
	return n
}
