package unixsock_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/unixsock"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
)

func TestMain(m *testing.M) { fdtest.Main(m) }

// listening is a socket as systemd passes it.
func listening(t *testing.T, network, addr string) *dmabuf.FD {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	defer func() { _ = l.Close() }()
	file, err := l.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	raw, err := unix.Dup(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return dmabuf.NewFD(raw, "systemd socket")
}

// TestInherited: it accepts, and leaves the path to its maker.
func TestInherited(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd := listening(t, "unix", path)
	l, err := unixsock.Inherited(fd)
	if err != nil {
		t.Fatal(err)
	}
	if fd.Valid() {
		t.Error("the descriptor is the caller's still")
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	got, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = got.Close()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the path was taken away: %v", err)
	}
}

// TestInheritedRefuses: what does not listen, or not on a unix stream socket. The
// descriptor is closed all the same.
func TestInheritedRefuses(t *testing.T) {
	before := fdtest.Count(t)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, fd := range map[string]*dmabuf.FD{
		"connected": dmabuf.NewFD(pair[0], "x"), "other end": dmabuf.NewFD(pair[1], "x"), "file": dmabuf.NewFD(null, "x"),
		"tcp":       listening(t, "tcp", "127.0.0.1:0"),
		"seqpacket": listening(t, "unixpacket", filepath.Join(t.TempDir(), "s")),
	} {
		if _, err := unixsock.Inherited(fd); !errors.Is(err, unixsock.ErrNotListening) {
			t.Errorf("%s: %v, want ErrNotListening", name, err)
		}
		if fd.Valid() {
			t.Errorf("%s: the descriptor is open", name)
		}
	}
	if after := fdtest.Count(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}
