package keep

import (
	"errors"
	"fmt"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/unixsock"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Messages of a worker whose sandbox lets it make no connections, and of the process that
// makes them for it, on a socket of their own.
const (
	opConnect   Op = iota + 128 // to Key
	opConnected                 // Value is an errno as text, 0 with the connection
)

// Reach says what a worker can have of a socket.
type Reach byte

// How far a worker may reach.
const (
	Nothing Reach = iota
	Answer        // whether somebody listens: for sockets of its own, which may be left over
	Connection
)

// Connector asks for connections at one end of a Pair; it takes fd over, for good. The
// result is for [unixsock.SetConnector]. Errors are errnos.
func Connector(fd *dmabuf.FD) func(path string) (*dmabuf.FD, error) { return connector(NewSocket(fd)) }

func connector(s *Socket) func(path string) (*dmabuf.FD, error) {
	var mu sync.Mutex
	return func(path string) (*dmabuf.FD, error) {
		mu.Lock()
		defer mu.Unlock()
		if err := s.Send(&Message{Op: opConnect, Key: path}); err != nil {
			return nil, err
		}
		m, err := s.Receive()
		if err != nil {
			return nil, err
		}
		errno, err := strconv.ParseUint(string(m.Value), 10, 12)
		switch {
		case m.Op == opConnected && err == nil && errno != 0:
			m.CloseFDs()
			return nil, unix.Errno(errno)
		case m.Op != opConnected || err != nil || len(m.FDs) != 1:
			m.CloseFDs()
			return nil, &OpError{Op: "connect", Err: fmt.Errorf("%w: answer %d with %q and %d descriptors", ErrMessage, m.Op, m.Value, len(m.FDs))}
		}
		return m.FDs[0], nil
	}
}

// ServeConnector makes connections for the worker at the other end, as far as reach
// says, until that is gone. It takes fd over. The worker may be hostile.
func ServeConnector(fd *dmabuf.FD, reach func(path string) Reach) {
	s := NewSocket(fd)
	defer func() { _ = s.Close() }()
	for {
		m, err := s.Receive()
		if err != nil {
			return
		}
		m.CloseFDs()
		if m.Op != opConnect {
			return
		}
		answer := Message{Op: opConnected}
		var errno unix.Errno
		if r := reach(m.Key); r == Nothing {
			errno = unix.EACCES
		} else if conn, err := unixsock.Connect(m.Key); err == nil {
			if answer.FDs = []*dmabuf.FD{conn}; r == Answer {
				answer.CloseFDs()
				errno = unix.EAGAIN // somebody is there, too
			}
		} else if !errors.As(err, &errno) {
			errno = unix.EINVAL // the path is too long
		}
		answer.Value = strconv.AppendUint(nil, uint64(errno), 10)
		err = s.Send(&answer)
		answer.CloseFDs()
		if err != nil {
			return
		}
	}
}
