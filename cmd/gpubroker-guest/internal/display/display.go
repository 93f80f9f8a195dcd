// Package display is the Wayland display that clients of the guest connect to: a
// socket in XDG_RUNTIME_DIR, locked as libwayland locks it, or one that systemd gave.
package display

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// DefaultName is the display's name if nothing else is said.
const DefaultName = "wayland-gpubroker"

// ErrInUse says that another program serves the display.
var ErrInUse = errors.New("another program serves this display")

// OpError is the error type of this package.
type OpError struct {
	Op   string
	Path string
	Err  error
}

func (e *OpError) Error() string { return "display: " + e.Op + " " + e.Path + ": " + e.Err.Error() }

func (e *OpError) Unwrap() error { return e.Err }

// Path returns the socket of a display: name is a path, or stands in XDG_RUNTIME_DIR.
func Path(name string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		return "", &OpError{"find", name, errors.New("XDG_RUNTIME_DIR is not set")}
	}
	return filepath.Join(dir, name), nil
}

// Listener accepts clients.
type Listener struct {
	path string
	lock *dmabuf.FD // nil for systemd's sockets
	file *os.File
	raw  syscall.RawConn
}

// Listen makes the socket of a display. ErrInUse says that it has a server.
func Listen(name string) (*Listener, error) {
	path, err := Path(name)
	if err != nil {
		return nil, err
	}
	raw, err := unix.Open(path+".lock", unix.O_CREAT|unix.O_CLOEXEC|unix.O_RDWR, 0o660)
	if err != nil {
		return nil, &OpError{"lock", path, err}
	}
	lock := dmabuf.NewFD(raw, path+".lock")
	if err := unix.Flock(raw, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrInUse
		}
		return nil, &OpError{"lock", path, err}
	}
	l, err := listen(path)
	if err != nil {
		_ = lock.Close()
		return nil, &OpError{"listen at", path, err}
	}
	l.lock = lock
	return l, nil
}

// listen binds the socket; what is there was left by a server that is gone, because the
// lock was free.
func listen(path string) (*Listener, error) {
	raw, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	fd := dmabuf.NewFD(raw, path)
	_ = unix.Unlink(path)
	err = unix.Bind(raw, &unix.SockaddrUnix{Name: path})
	if err == nil {
		err = unix.Listen(raw, 128)
	}
	if err != nil {
		_ = fd.Close()
		return nil, err
	}
	return newListener(fd, path)
}

// newListener takes ownership of a listening socket.
func newListener(fd *dmabuf.FD, path string) (*Listener, error) {
	if err := unix.SetNonblock(fd.Int(), true); err != nil {
		_ = fd.Close()
		return nil, err
	}
	l := &Listener{path: path, file: os.NewFile(uintptr(fd.Disown()), path)}
	var err error
	if l.raw, err = l.file.SyscallConn(); err != nil {
		_ = l.file.Close()
		return nil, err
	}
	return l, nil
}

// FromSystemd returns the socket that systemd listens at for this process
// (sd_listen_fds(3)), nil if there is none.
func FromSystemd() (*Listener, error) {
	const first = 3
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n != 1 {
		return nil, &OpError{"take", "systemd's socket", fmt.Errorf("LISTEN_FDS is %q, want 1", os.Getenv("LISTEN_FDS"))}
	}
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(name)
	}
	unix.CloseOnExec(first)
	sa, err := unix.Getsockname(first)
	if err != nil {
		return nil, &OpError{"take", "systemd's socket", err}
	}
	path := "systemd's socket"
	if u, ok := sa.(*unix.SockaddrUnix); ok {
		path = u.Name
	}
	l, err := newListener(dmabuf.NewFD(first, path), path)
	if err != nil {
		return nil, &OpError{"take", path, err}
	}
	return l, nil
}

// Path returns the socket's path.
func (l *Listener) Path() string { return l.path }

// Peer says who connected.
type Peer struct {
	PID  int
	Name string // the program's name, as it says
}

// Accept waits for a client and returns its socket, the caller's. os.ErrClosed: the
// listener is closed.
func (l *Listener) Accept() (*dmabuf.FD, Peer, error) {
	var fd *dmabuf.FD
	var failed error
	err := l.raw.Read(func(s uintptr) bool {
		raw, _, err := unix.Accept4(int(s), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return false
		case err != nil:
			failed = err
		default:
			fd = dmabuf.NewFD(raw, "wayland client")
		}
		return true
	})
	if err != nil {
		return nil, Peer{}, os.ErrClosed
	}
	if failed != nil {
		return nil, Peer{}, &OpError{"accept at", l.path, failed}
	}
	return fd, peerOf(fd), nil
}

func peerOf(fd *dmabuf.FD) Peer {
	cred, err := unix.GetsockoptUcred(fd.Int(), unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || cred.Pid <= 0 {
		return Peer{Name: "client"}
	}
	p := Peer{PID: int(cred.Pid), Name: "client"}
	if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cred.Pid)); err == nil {
		p.Name = strings.TrimSpace(string(comm))
	}
	return p
}

// Close stops listening and, unless the socket is systemd's, removes it.
func (l *Listener) Close() error {
	err := l.file.Close()
	if l.lock == nil {
		return err
	}
	_, _ = unix.Unlink(l.path), unix.Unlink(l.path+".lock")
	return errors.Join(err, l.lock.Close())
}
