package transport

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// vsock leads to a port of the host, or of a machine that the host forwards to.
type vsock struct{ cid, port uint32 }

func (v *vsock) Name() string { return fmt.Sprintf("vsock %d:%d", v.cid, v.port) }

// Dial connects. The kernel waits for two seconds at most.
func (v *vsock) Dial(context.Context) (Stream, error) {
	raw, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, unix.EAFNOSUPPORT) {
			err = fmt.Errorf("%w: the kernel has no vsock, or its module is not loaded: %w", ErrUnavailable, err)
		}
		return nil, &OpError{"connect", v.Name(), err}
	}
	fd := dmabuf.NewFD(raw, v.Name())
	for {
		err = unix.Connect(raw, &unix.SockaddrVM{CID: v.cid, Port: v.port})
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err == nil {
		err = unix.SetNonblock(raw, true)
	}
	if err != nil {
		_ = fd.Close()
		switch {
		case errors.Is(err, unix.ENODEV), errors.Is(err, unix.EADDRNOTAVAIL):
			err = fmt.Errorf("%w: the machine has no vsock device: %w", ErrUnavailable, err)
		case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.ECONNREFUSED):
			err = fmt.Errorf("nobody listens there: %w", err)
		}
		return nil, &OpError{"connect", v.Name(), err}
	}
	return plain{os.NewFile(uintptr(fd.Disown()), v.Name())}, nil
}

func (v *vsock) Close() error { return nil }
