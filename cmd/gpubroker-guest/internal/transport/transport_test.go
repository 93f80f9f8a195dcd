package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/apps"
	"github.com/gpubroker/gpubroker/broker/link"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
)

func TestMain(m *testing.M) { fdtest.Main(m) }

func TestOpen(t *testing.T) {
	if DefaultPort != apps.DefaultPort {
		t.Errorf("the port is %d here and %d on the host", DefaultPort, apps.DefaultPort)
	}
	for _, c := range []struct {
		spec, name, err string
	}{
		{"vsock", fmt.Sprintf("vsock 2:%d", DefaultPort), ""},
		{"vsock:7:99", "vsock 7:99", ""},
		{"vsock:7", "", "two numbers"},
		{"vsock:7:99999999999", "", "two numbers"},
		{"unix:/run/x", "unix /run/x", ""},
		{"unix", "", "want auto"},
		{"unix:", "", "want auto"},
		{"auto:x", "", "want auto"},
		{"cross-domain:x", "", "want auto"},
		{"", "", "want auto"},
		{"cross-domain", "", "no render node"},
		{"serial:/no/such/port", "", "not available"},
	} {
		tr, _, err := Open(t.Context(), c.spec, nil)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: error %v, want %q", c.spec, err, c.err)
			}
			continue
		}
		if err != nil || tr.Name() != c.name {
			t.Errorf("%q: %v, want %s", c.spec, err, c.name)
		}
	}
	if _, err := openSerial("/no/such/port"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("no port: %v", err)
	}
}

func TestFindPort(t *testing.T) {
	links, class := t.TempDir(), t.TempDir()
	if _, err := findPort(links, class); !errors.Is(err, ErrUnavailable) {
		t.Errorf("no ports: %v", err)
	}
	for dev, name := range map[string]string{"vport1p1": "com.redhat.spice.0\n", "vport2p3": PortName + "\n"} {
		if err := os.Mkdir(filepath.Join(class, dev), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(class, dev, "name"), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if path, err := findPort(links, class); err != nil || path != "/dev/vport2p3" {
		t.Errorf("%s, %v", path, err)
	}
	if err := os.WriteFile(filepath.Join(links, PortName), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if path, err := findPort(links, class); err != nil || path != filepath.Join(links, PortName) {
		t.Errorf("%s, %v", path, err)
	}
}

// echo sends back what comes.
func echo(_ context.Context, s io.ReadWriteCloser) {
	_, _ = io.Copy(s, s)
	_ = s.Close()
}

func talk(t *testing.T, tr Transport, size int) {
	t.Helper()
	s, err := tr.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if s.GPU() != nil {
		t.Error("a plain stream has a GPU")
	}
	want := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	go func() { _, _ = s.Write(want) }()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("the bytes are not what was sent (%v)", err)
	}
}

func TestUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	tr, _, err := Open(t.Context(), "unix:"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tr.Dial(t.Context()); err == nil {
		t.Error("connected to nobody")
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go echo(t.Context(), c)
		}
	}()
	talk(t, tr, 1<<20)
	_ = l.Close()
}

// pty is a terminal that carries bytes as they are, for a port.
func pty(t *testing.T) (master *os.File, slave string) {
	t.Helper()
	raw, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	n, err := unix.IoctlGetUint32(raw, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(raw, unix.TIOCSPTLCK, 0)
	}
	var tio *unix.Termios
	if err == nil {
		tio, err = unix.IoctlGetTermios(raw, unix.TCGETS)
	}
	if err == nil {
		tio.Iflag, tio.Oflag, tio.Lflag = 0, 0, 0
		tio.Cflag = tio.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
		err = unix.IoctlSetTermios(raw, unix.TCSETS, tio)
	}
	if err != nil {
		_ = unix.Close(raw)
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	return os.NewFile(uintptr(raw), "ptmx"), fmt.Sprintf("/dev/pts/%d", n)
}

// TestSerial has many streams in one port, and a host that is restarted.
func TestSerial(t *testing.T) {
	master, slave := pty(t)
	tr, _, err := Open(t.Context(), "serial:"+slave, nil)
	if err != nil {
		t.Fatal(err)
	}
	serveOnce := func() (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		raw, err := unix.FcntlInt(master.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.SetNonblock(raw, true); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = link.ServeMux(ctx, os.NewFile(uintptr(raw), "port"), 16, echo)
		}()
		return func() { cancel(); <-done }
	}
	stop := serveOnce()
	talk(t, tr, 1<<16)
	talk(t, tr, 1<<20)
	s, err := tr.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stop()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	if _, err := tr.Dial(ctx); err == nil {
		// The session may still be believed in; a stream of it then carries nothing.
		t.Log("a stream without a host")
	}
	cancel()
	stop = serveOnce()
	defer stop()
	// The old stream ends, and new ones work.
	if n, err := s.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes of a host that is gone", n)
	}
	_ = s.Close()
	talk(t, tr, 1<<20)
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
	if _, err := tr.Dial(t.Context()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("dial after close: %v", err)
	}
	_ = master.Close()
}

// TestSerialHello: the host hears of a server at its start and not only when it has a
// client, and so ends what the one before left.
func TestSerialHello(t *testing.T) {
	master, slave := pty(t)
	defer func() { _ = master.Close() }()
	tr, _, err := Open(t.Context(), "serial:"+slave, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tr.Close() }()
	hello := []byte("\xC1GPbMuX1h")
	got := make([]byte, len(hello))
	if err := master.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(master, got); err != nil || !bytes.Equal(got, hello) {
		t.Errorf("the port says %q, %v, want %q", got, err, hello)
	}
}
