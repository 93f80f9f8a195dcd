package vhostuser

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Listener waits for front-ends on a socket in the file system.
type Listener struct {
	l    *net.UnixListener
	path string
}

// maxPath is the room in sockaddr_un, less the final 0.
const maxPath = 107

// Listen makes the socket at path, readable and writable for the user only. A
// socket that nobody answers on is left over from a process that died and is
// replaced; if somebody answers, the error is ErrInUse. Anything else at path is
// left alone and is an error.
//
// It changes the process's umask for a moment, so it belongs to the start of the
// program.
func Listen(path string) (*Listener, error) {
	fail := func(err error) (*Listener, error) {
		return nil, &OpError{Op: "listen", Err: fmt.Errorf("%s: %w", path, err)}
	}
	if len(path) > maxPath {
		return fail(fmt.Errorf("path of %d bytes, limit %d", len(path), maxPath))
	}
	if err := clearStale(path); err != nil {
		return fail(err)
	}
	before := unix.Umask(0o177)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	unix.Umask(before)
	if err != nil {
		return fail(err)
	}
	return &Listener{l: l, path: path}, nil
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
		return fmt.Errorf("exists and is not a socket (%v)", st.Mode())
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = c.Close()
		return ErrInUse
	}
	if errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("%w: its backlog is full", ErrInUse)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// Path returns the socket's path.
func (l *Listener) Path() string { return l.path }

// Accept waits for a front-end. It ends with ctx, or with Close.
func (l *Listener) Accept(ctx context.Context) (*Conn, error) {
	stop := context.AfterFunc(ctx, func() { _ = l.l.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	sock, err := l.l.AcceptUnix()
	if ctx.Err() != nil {
		if err == nil {
			_ = sock.Close()
		}
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, &OpError{Op: "accept", Err: err}
	}
	return newConn(sock), nil
}

// Close stops listening and removes the socket.
func (l *Listener) Close() error { return l.l.Close() }
