package vhostuser_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/unixsock"
	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/dmabuf"
)

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	before := unix.Umask(0)
	defer unix.Umask(before)
	l, err := vhostuser.Listen(path)
	must(t, err)
	st, err := os.Stat(path)
	must(t, err)
	if mode := st.Mode(); mode.Perm() != 0o600 || mode.Type() != fs.ModeSocket {
		t.Errorf("mode %v, want a socket with 0600", mode)
	}
	if got := unix.Umask(0); got != 0 {
		t.Errorf("umask left at %#o", got)
	}
	if _, err := vhostuser.Listen(path); !errors.Is(err, unixsock.ErrInUse) {
		t.Errorf("a second listener: %v", err)
	}
	must(t, l.Close())
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there after Close: %v", err)
	}
}

// TestListenStale meets the socket of a process that died.
func TestListenStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	must(t, err)
	dead.SetUnlinkOnClose(false)
	must(t, dead.Close())
	l, err := vhostuser.Listen(path)
	must(t, err)
	must(t, l.Close())
}

func TestListenErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "precious")
	must(t, os.WriteFile(file, []byte("data"), 0o600))
	for name, path := range map[string]string{
		"a file":     file,
		"no folder":  filepath.Join(dir, "none", "s"),
		"too long":   filepath.Join(dir, strings.Repeat("x", 108)),
		"the folder": dir,
	} {
		_, err := vhostuser.Listen(path)
		var op *vhostuser.OpError
		if !errors.As(err, &op) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "data" {
		t.Errorf("the file was touched: %q, %v", b, err)
	}
}

func TestAcceptEnds(t *testing.T) {
	l, err := vhostuser.Listen(filepath.Join(t.TempDir(), "s"))
	must(t, err)
	defer l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := l.Accept(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Accept: %v", err)
	}
}

// TestRun serves a front-end that breaks the protocol and then one that does not,
// and ends with its context.
func TestRun(t *testing.T) {
	loop, err := vhostusertest.NewLoop()
	must(t, err)
	defer loop.Close()
	dev := vhostusertest.NewDevice(loop)
	b, err := vhostuser.NewBackend(vhostuser.Config{Device: dev, Executor: loop})
	must(t, err)
	l, err := vhostuser.Listen(filepath.Join(t.TempDir(), "s"))
	must(t, err)
	defer l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- b.Run(ctx, l) }()

	bad, err := vhostusertest.Dial(l.Path())
	must(t, err)
	_, err = unix.Write(bad.Int(), []byte("this is not vhost-user"))
	must(t, err)
	ram, err := vhostusertest.NewRAM(vhostusertest.RAMConfig{Size: 1 << 20})
	must(t, err)
	defer ram.Close()
	sock, err := vhostusertest.Dial(l.Path())
	must(t, err)
	fe, err := vhostusertest.New(sock, vhostusertest.Config{Profile: vhostusertest.QEMU10A, RAM: ram})
	must(t, err)
	must(t, fe.Init())
	must(t, fe.Sync()) // the last request of QEMU 10's start has no reply
	_ = bad.Close()
	cancel()
	if err := <-ran; err != nil {
		t.Errorf("Run: %v", err)
	}
	fe.Quit()
	if ev := dev.Events(); !slices.Equal(ev, []string{"attach", "detach", "attach", "channel true", "reset", "channel false", "detach"}) {
		t.Errorf("the device was told %q", ev)
	}
}

func TestFromFD(t *testing.T) {
	if _, err := vhostuser.FromFD(nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("nil: %v", err)
	}
	if _, err := vhostuser.FromFD(memfd(t)); err == nil {
		t.Error("a memfd was taken for a socket")
	}
	raw, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	if _, err := vhostuser.FromFD(dmabuf.NewFD(raw, "tcp")); err == nil {
		t.Error("a TCP socket was taken")
	}
}

// TestReceivedFDs checks that received descriptors are closed on exec and that
// their status flags, which the sender shares, stay as they are.
func TestReceivedFDs(t *testing.T) {
	a, b, err := vhostusertest.Pair()
	must(t, err)
	ca, err := vhostuser.FromFD(a)
	must(t, err)
	defer ca.Close()
	cb, err := vhostuser.FromFD(b)
	must(t, err)
	defer cb.Close()
	for _, flags := range []int{0, unix.EFD_NONBLOCK} {
		raw, err := unix.Eventfd(0, flags|unix.EFD_CLOEXEC)
		must(t, err)
		ev := dmabuf.NewFD(raw, "event")
		before, err := unix.FcntlInt(uintptr(raw), unix.F_GETFL, 0)
		must(t, err)
		must(t, ca.Send(1, 0, nil, ev, ev))
		m, err := cb.Read()
		must(t, err)
		if len(m.FDs) != 2 {
			t.Fatalf("%d descriptors", len(m.FDs))
		}
		got := m.TakeFD(0)
		if m.TakeFD(0) != nil || m.TakeFD(2) != nil {
			t.Error("a descriptor was taken twice, or from nowhere")
		}
		if fl, err := unix.FcntlInt(uintptr(got.Int()), unix.F_GETFD, 0); err != nil || fl&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor flags %#x, %v: not close-on-exec", fl, err)
		}
		if after, err := unix.FcntlInt(uintptr(raw), unix.F_GETFL, 0); err != nil || after != before {
			t.Errorf("status flags went from %#x to %#x, %v", before, after, err)
		}
		_ = got.Close()
		_ = ev.Close()
		m.CloseFDs()
	}
}
