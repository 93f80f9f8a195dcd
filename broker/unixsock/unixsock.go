// Package unixsock makes the listening unix sockets of a daemon.
package unixsock

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
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
	c, err := net.DialTimeout("unix", path, time.Second)
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
