package unixsock

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// connector is how the process connects, if it may not do so itself.
var connector atomic.Pointer[func(path string) (*dmabuf.FD, error)]

// SetConnector has f make the connections of this process: its sandbox forbids it to
// make some. It must be safe for concurrent use.
func SetConnector(f func(path string) (*dmabuf.FD, error)) { connector.Store(&f) }

// Connect connects to the stream socket at path. It does not wait: a full backlog is the
// error EAGAIN. The caller owns the connection, which does not block either. Errors
// are errnos, or those of a connector.
func Connect(path string) (*dmabuf.FD, error) {
	if f := connector.Load(); f != nil {
		return (*f)(path)
	}
	return connect(path)
}

func connect(path string) (*dmabuf.FD, error) {
	raw, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	fd := dmabuf.NewFD(raw, "connection to "+path)
	if err := unix.Connect(raw, &unix.SockaddrUnix{Name: path}); err != nil {
		_ = fd.Close()
		return nil, err
	}
	return fd, nil
}
