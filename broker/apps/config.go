package apps

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
)

// Handler serves one client until it ends, and returns why: nil or io.EOF is the
// client's orderly end. Many run at the same time.
type Handler interface {
	Serve(ctx context.Context, g proxy.Guest, o proxy.Owner) error
}

// Limits bound what a VM's clients may take. A zero field is its default.
type Limits struct {
	Clients   int           // at a time; 64
	Pipes     int           // of all clients together, each a descriptor; 1024
	Queued    int64         // bytes of pipes that nobody has read yet, together; 64 MiB
	Handshake time.Duration // until a connection has said Hello; 10 s
	Linger    time.Duration // for data of pipes to be taken after a client has gone; 5 s
}

func (l Limits) filled() Limits {
	or := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	or(&l.Clients, 64)
	or(&l.Pipes, 1024)
	if l.Queued <= 0 {
		l.Queued = 64 << 20
	}
	if l.Handshake <= 0 {
		l.Handshake = 10 * time.Second
	}
	if l.Linger <= 0 {
		l.Linger = 5 * time.Second
	}
	return l
}

// Config says where clients come from and who serves them.
type Config struct {
	Handler Handler
	Log     *zap.Logger

	Socket string // path of a unix socket; empty: none
	VSock  string // see ParseVSock; empty: none
	Serial string // path of a unix socket for QEMU's chardev of a virtio-serial port; empty: none

	// GPU and Import say which resources a client may name.
	GPU, Import bool

	Limits Limits
}

var (
	// ErrFull says that as many clients as are allowed are there.
	ErrFull = errors.New("too many clients")
	// ErrTokenInUse says that another client has the token of a Hello.
	ErrTokenInUse = errors.New("another client uses this token")
	// ErrStranger says that a vsock port is for another guest.
	ErrStranger = errors.New("not this guest's port")
	// ErrClosed says that the service was closed. Clients are told so.
	ErrClosed = errors.New("shut down on the host")
)

// OpError is the error type of this package.
type OpError struct {
	Op  string // "listen", "send"
	Err error
}

func (e *OpError) Error() string { return "apps: " + e.Op + ": " + e.Err.Error() }

func (e *OpError) Unwrap() error { return e.Err }
