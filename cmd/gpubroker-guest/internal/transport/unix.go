package transport

import (
	"context"
	"net"
)

// sendBuffer is how many bytes of a picture may be on their way: with the kernel's
// 208 KiB each band of it waits for the host. The system may allow less.
const sendBuffer = 1 << 20

// unixSocket leads to a socket on this machine.
type unixSocket string

func (u unixSocket) Name() string { return "unix " + string(u) }

func (u unixSocket) Dial(ctx context.Context) (Stream, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", string(u))
	if err != nil {
		return nil, &OpError{"connect", u.Name(), err}
	}
	_ = c.(*net.UnixConn).SetWriteBuffer(sendBuffer)
	return plain{c}, nil
}

func (u unixSocket) Close() error { return nil }
