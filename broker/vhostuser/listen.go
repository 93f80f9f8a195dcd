package vhostuser

import (
	"context"
	"net"
	"time"

	"github.com/gpubroker/gpubroker/broker/unixsock"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Listener waits for front-ends on a socket in the file system, or for those that
// somebody passes on.
type Listener struct {
	l    *net.UnixListener
	pass func(context.Context) (*Conn, error) // instead of l
	path string
}

// Passed is a Listener whose front-ends come from accept, which ends with its context.
// Of a connection that another process served before, accept sets Conn.Resume.
func Passed(name string, accept func(context.Context) (*Conn, error)) *Listener {
	return &Listener{pass: accept, path: name}
}

// Listen makes the socket at path, as unixsock.Listen does.
func Listen(path string) (*Listener, error) {
	l, err := unixsock.Listen(path)
	if err != nil {
		return nil, &OpError{Op: "listen", Err: err}
	}
	return &Listener{l: l, path: path}, nil
}

// ListenFD is Listen on a listening socket that somebody else made, such as systemd; it
// takes fd over in any case. Close leaves its path alone.
func ListenFD(fd *dmabuf.FD) (*Listener, error) {
	l, err := unixsock.Inherited(fd)
	if err != nil {
		return nil, &OpError{Op: "listen", Err: err}
	}
	return &Listener{l: l, path: l.Addr().String()}, nil
}

// Path returns the socket's path.
func (l *Listener) Path() string { return l.path }

// Accept waits for a front-end. It ends with ctx, or with Close.
func (l *Listener) Accept(ctx context.Context) (*Conn, error) {
	if l.pass != nil {
		return l.pass(ctx)
	}
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

// Close stops listening and removes the socket that Listen made.
func (l *Listener) Close() error {
	if l.l == nil {
		return nil
	}
	return l.l.Close()
}
