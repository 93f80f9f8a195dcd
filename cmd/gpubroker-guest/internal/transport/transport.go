package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/link"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/drm"
)

// ErrUnavailable says that a transport does not exist on this machine; the text says
// what is missing.
var ErrUnavailable = errors.New("not available")

// OpError is the error type of this package.
type OpError struct {
	Op        string // "connect", "open"
	Transport string
	Err       error
}

func (e *OpError) Error() string { return e.Transport + ": " + e.Op + ": " + e.Err.Error() }

func (e *OpError) Unwrap() error { return e.Err }

// Stream carries one client.
type Stream interface {
	io.ReadWriteCloser
	// GPU returns the open render node that the stream itself is a context of; nil for
	// others. It lives as long as the stream.
	GPU() *drm.Device
}

// Transport makes streams. Safe for concurrent use.
type Transport interface {
	// Name says which it is and where it leads to.
	Name() string
	// Dial connects a stream.
	Dial(ctx context.Context) (Stream, error)
	Close() error
}

// plain is a stream that is no context.
type plain struct{ io.ReadWriteCloser }

func (plain) GPU() *drm.Device { return nil }

// DefaultPort is the vsock port of gpubroker ("GPB"), that of package apps on the host.
const DefaultPort = 0x475042

// Usage describes what Open takes.
const Usage = "auto|cross-domain|vsock[:CID:PORT]|serial[:PATH]|unix:PATH"

// Open makes the transport that spec names, see Usage. For "auto" it takes the first of
// cross-domain, vsock and serial that works; why says why not the better ones.
func Open(ctx context.Context, spec string, nodes []drm.Node) (t Transport, why error, err error) {
	kind, arg, _ := strings.Cut(spec, ":")
	switch kind {
	case "auto":
		if arg != "" {
			break
		}
		return openAuto(ctx, nodes)
	case "cross-domain":
		if arg != "" {
			break
		}
		t, err = openCrossDomain(nodes)
		return t, nil, err
	case "vsock":
		cid, port, perr := parseVsock(arg)
		if perr != nil {
			return nil, nil, perr
		}
		return &vsock{cid: cid, port: port}, nil, nil
	case "serial":
		t, err = openSerial(arg)
		return t, nil, err
	case "unix":
		if arg == "" {
			break
		}
		return unixSocket(arg), nil, nil
	}
	return nil, nil, fmt.Errorf("transport %q: want %s", spec, Usage)
}

func parseVsock(arg string) (cid, port uint32, err error) {
	if arg == "" {
		return unix.VMADDR_CID_HOST, DefaultPort, nil
	}
	c, p, ok := strings.Cut(arg, ":")
	cid64, err1 := strconv.ParseUint(c, 10, 32)
	port64, err2 := strconv.ParseUint(p, 10, 32)
	if !ok || err1 != nil || err2 != nil {
		return 0, 0, fmt.Errorf("transport vsock:%s: want vsock:CID:PORT with two numbers", arg)
	}
	return uint32(cid64), uint32(port64), nil
}

// openAuto tries the transports, best first, each with a stream that is closed again.
func openAuto(ctx context.Context, nodes []drm.Node) (Transport, error, error) {
	var why []error
	for _, open := range []func() (Transport, error){
		func() (Transport, error) { return openCrossDomain(nodes) },
		func() (Transport, error) { return &vsock{cid: unix.VMADDR_CID_HOST, port: DefaultPort}, nil },
		func() (Transport, error) { return openSerial("") },
	} {
		t, err := open()
		if err == nil {
			if err = probe(ctx, t); err == nil {
				return t, errors.Join(why...), nil
			}
			_ = t.Close()
		}
		why = append(why, err)
	}
	return nil, nil, fmt.Errorf("%w: no way to the host:\n%w", ErrUnavailable, errors.Join(why...))
}

// probeTime bounds how long a transport is tried.
const probeTime = 5 * time.Second

// probe makes a connection and ends it again: somebody has to speak the protocol there.
func probe(ctx context.Context, t Transport) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	s, err := t.Dial(ctx)
	if err != nil {
		return err
	}
	c, _, err := link.ClientHandshake(ctx, s, link.Hello{Name: "gpubroker-guest looks for the host"}, link.Limits{})
	if err != nil {
		return &OpError{"try", t.Name(), err}
	}
	return c.Close()
}
