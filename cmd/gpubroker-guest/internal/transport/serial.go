package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/link"
	"github.com/gpubroker/gpubroker/dmabuf"
)

const (
	// PortName is the name of the virtio-serial port.
	PortName = "org.gpubroker.0"
	// reopen is the time between two tries to open a port that nobody serves.
	reopen = 200 * time.Millisecond
)

// serial leads to a virtio-serial port, which all clients share.
type serial struct {
	path string

	mu     sync.Mutex
	mux    *link.Mux // nil before the first stream, and when it has ended
	closed bool
}

// openSerial finds the port; path is "" for the one with our name.
func openSerial(path string) (Transport, error) {
	if path == "" {
		var err error
		if path, err = findPort("/dev/virtio-ports", "/sys/class/virtio-ports"); err != nil {
			return nil, &OpError{"open", "serial", err}
		}
	}
	if err := unix.Access(path, unix.R_OK|unix.W_OK); err != nil {
		return nil, &OpError{"open", "serial " + path, fmt.Errorf("%w: %w", ErrUnavailable, err)}
	}
	s := &serial{path: path}
	// The hello ends what a server before this one left on the host. If the port cannot be
	// opened now, Dial says so.
	_, _ = s.port()
	return s, nil
}

// findPort finds the device of the port: by udev's link, or by the kernel's list.
func findPort(links, class string) (string, error) {
	if path := filepath.Join(links, PortName); exists(path) {
		return path, nil
	}
	names, err := filepath.Glob(filepath.Join(class, "*", "name"))
	if err != nil {
		return "", err
	}
	for _, file := range names {
		name, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(name)) == PortName {
			return filepath.Join("/dev", filepath.Base(filepath.Dir(file))), nil
		}
	}
	return "", fmt.Errorf("%w: the machine has no virtio-serial port with the name %s (of %d ports)", ErrUnavailable, PortName, len(names))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (s *serial) Name() string { return "serial " + s.path }

// Dial opens a stream in the port. While the host has not opened its end the port is at
// its end for us, and is opened anew until ctx ends.
func (s *serial) Dial(ctx context.Context) (Stream, error) {
	for {
		mux, err := s.port()
		if err != nil {
			return nil, &OpError{"open", s.Name(), err}
		}
		stream, err := mux.Open(ctx)
		if err == nil {
			return plain{stream}, nil
		}
		if !errors.Is(err, io.EOF) || ctx.Err() != nil {
			return nil, &OpError{"connect", s.Name(), err}
		}
		select {
		case <-ctx.Done():
			return nil, &OpError{"connect", s.Name(), fmt.Errorf("the host has not opened its end: %w", ctx.Err())}
		case <-time.After(reopen):
		}
	}
}

// port returns the open port.
func (s *serial) port() (*link.Mux, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, os.ErrClosed
	}
	if s.mux != nil {
		select {
		case <-s.mux.Done():
			_ = s.mux.Close()
			s.mux = nil
		default:
			return s.mux, nil
		}
	}
	raw, err := unix.Open(s.path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		if errors.Is(err, unix.EBUSY) {
			err = fmt.Errorf("another program has the port: %w", err)
		}
		return nil, err
	}
	fd := dmabuf.NewFD(raw, s.path)
	s.mux = link.NewMux(context.Background(), os.NewFile(uintptr(fd.Disown()), s.path))
	return s.mux, nil
}

func (s *serial) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.mux == nil {
		return nil
	}
	return s.mux.Close()
}
