// Package unixsock makes the listening unix sockets of a daemon.
package unixsock

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// ErrInUse says that somebody answers on the path.
var ErrInUse = errors.New("another process serves this socket: stop it or choose another path")

// maxPath is the room in sockaddr_un, less the final 0.
const maxPath = 107

// Listen makes the stream socket at path, readable and writable for the user only. A
// socket that nobody answers on is left over from a process that died and is
// replaced; if somebody answers, the error is ErrInUse. Anything else at path is
// left alone and is an error.
//
// It changes the process's umask for a moment, so it belongs to the start of the
// program.
func Listen(path string) (*net.UnixListener, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("%s: path of %d bytes, limit %d", path, len(path), maxPath)
	}
	if err := clearStale(path); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	before := unix.Umask(0o177)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	unix.Umask(before)
	return l, err
}

// ErrNotListening says that a descriptor is no listening unix stream socket.
var ErrNotListening = errors.New("not a listening unix stream socket")

// Inherited turns a listening socket that somebody else made (systemd) into a listener.
// It takes fd over in any case. Closing it leaves the path to who made it.
func Inherited(fd *dmabuf.FD) (*net.UnixListener, error) {
	name := fd.Name()
	file := os.NewFile(uintptr(fd.Disown()), name)
	if file == nil {
		return nil, fmt.Errorf("%s: %w", name, os.ErrClosed)
	}
	defer func() { _ = file.Close() }() // FileListener makes its own
	on, err := unix.GetsockoptInt(int(file.Fd()), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", name, ErrNotListening, err)
	}
	if on == 0 {
		return nil, fmt.Errorf("%s: %w", name, ErrNotListening)
	}
	l, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	u, ok := l.(*net.UnixListener)
	if !ok || u.Addr().Network() != "unix" {
		_ = l.Close()
		return nil, fmt.Errorf("%s: %w: its network is %s", name, ErrNotListening, l.Addr().Network())
	}
	u.SetUnlinkOnClose(false)
	return u, nil
}

func clearStale(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("exists and is not a socket (%v): choose another path", st.Mode())
	}
	c, err := Connect(path)
	if err == nil {
		_ = c.Close()
		return ErrInUse
	}
	if errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("%w (its backlog is full)", ErrInUse)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}
