package wire_test

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// TestLeave: what was sent last can be read whole, though the peer's own last words were
// not read; libwayland reads until there is no more, and gives up all where that fails.
func TestLeave(t *testing.T) {
	read := func(fd int) (n int, err error) {
		var b [64]byte
		n, _, err = unix.Recvfrom(fd, b[:], 0)
		return n, err
	}
	for name, leave := range map[string]func(*wire.Conn) error{
		"leave":                func(c *wire.Conn) error { return c.Leave(10 * time.Second) },
		"a peer that stays on": func(c *wire.Conn) error { return c.Leave(0) },
		"close":                func(c *wire.Conn) error { return errors.Join(c.Flush(), c.Close()) },
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			c, err := wire.NewConn(dmabuf.NewFD(raw[0], "end"), 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := unix.Write(raw[1], []byte("never read")); err != nil {
				t.Fatal(err)
			}
			c.Out.Begin(1, 0)
			c.Out.Uint(42)
			c.Out.End()
			left := make(chan error)
			go func() { left <- leave(c) }()
			if name != "leave" {
				if err := <-left; err != nil {
					t.Error(err)
				}
			}
			if n, err := read(raw[1]); n != 12 || err != nil {
				t.Errorf("the last message: %d bytes, %v", n, err)
			}
			switch n, err := read(raw[1]); {
			case name == "close":
				if !errors.Is(err, unix.ECONNRESET) {
					t.Errorf("after it: %d bytes, %v; then Leave is not needed", n, err)
				}
			case n != 0 || err != nil:
				t.Errorf("after it: %d bytes, %v, want the end", n, err)
			}
			_ = unix.Close(raw[1])
			if name == "leave" {
				if err := <-left; err != nil {
					t.Error(err)
				}
			}
		})
	}
}
