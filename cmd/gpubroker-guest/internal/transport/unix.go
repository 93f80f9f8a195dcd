package transport

import (
	"context"
	"net"
)

// unixSocket leads to a socket on this machine.
type unixSocket string

func (u unixSocket) Name() string { return "unix " + string(u) }

func (u unixSocket) Dial(ctx context.Context) (Stream, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", string(u))
	if err != nil {
		return nil, &OpError{"connect", u.Name(), err}
	}
	return plain{c}, nil
}

func (u unixSocket) Close() error { return nil }
