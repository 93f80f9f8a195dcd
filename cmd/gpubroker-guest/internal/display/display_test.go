package display_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/display"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
)

// child makes the test binary be the server that systemd starts.
const child = "GPUBROKER_TEST_SYSTEMD_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(child) != "" {
		os.Exit(serveOne())
	}
	fdtest.Main(m)
}

// serveOne greets one client of systemd's socket.
func serveOne() int {
	l, err := display.FromSystemd()
	if err != nil || l == nil {
		_, _ = os.Stderr.WriteString("no socket\n")
		return 1
	}
	fd, peer, err := l.Accept()
	if err != nil {
		return 2
	}
	f := os.NewFile(uintptr(fd.Disown()), "client")
	_, _ = f.WriteString("hello " + peer.Name + " at " + filepath.Base(l.Path()))
	_, _ = f.Close(), l.Close()
	return 0
}

func TestListen(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", dir)
	// A server that crashed has left its files.
	for _, name := range []string{"d", "d.lock"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := display.Listen("d")
	if err != nil {
		t.Fatal(err)
	}
	if l.Path() != filepath.Join(dir, "d") {
		t.Errorf("path %s", l.Path())
	}
	if _, err := display.Listen("d"); !errors.Is(err, display.ErrInUse) {
		t.Errorf("a second server: %v", err)
	}
	c, err := net.Dial("unix", l.Path())
	if err != nil {
		t.Fatal(err)
	}
	fd, peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if peer.PID != os.Getpid() || peer.Name == "" || peer.Name == "client" {
		t.Errorf("peer %+v", peer)
	}
	_, _ = fd.Close(), c.Close()
	accepted := make(chan error)
	go func() {
		_, _, err := l.Accept()
		accepted <- err
	}()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-accepted; !errors.Is(err, os.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	t.Setenv("XDG_RUNTIME_DIR", "")
	if _, err := display.Listen("d"); err == nil || !strings.Contains(err.Error(), "XDG_RUNTIME_DIR") {
		t.Errorf("without XDG_RUNTIME_DIR: %v", err)
	}
	if _, err := display.Listen("/no/such/folder/d"); err == nil {
		t.Error("a folder that does not exist")
	}
}

func TestFromSystemd(t *testing.T) {
	if l, err := display.FromSystemd(); l != nil || err != nil {
		t.Errorf("without systemd: %v, %v", l, err)
	}
	path := filepath.Join(t.TempDir(), "wayland")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	// LISTEN_PID is the process's own, which a shell knows.
	cmd := exec.Command("/bin/sh", "-c", "LISTEN_PID=$$ exec "+os.Args[0])
	cmd.Env = append(os.Environ(), "LISTEN_FDS=1", child+"=1")
	cmd.ExtraFiles = []*os.File{f}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	if got := string(buf[:n]); err != nil || !strings.HasPrefix(got, "hello display.test at wayland") {
		t.Errorf("read %q (%v)", got, err)
	}
	_ = c.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
