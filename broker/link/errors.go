package link

import (
	"errors"
	"fmt"
)

var (
	// ErrProtocol says that the peer sent what the protocol does not allow; the text
	// names the field, its value and the limit.
	ErrProtocol = errors.New("protocol error")
	// ErrTooBig says that something cannot be sent because it breaks a limit of the
	// protocol. Nothing was sent, and the connection goes on.
	ErrTooBig = errors.New("too big for the protocol")
	// ErrTooMany says that as many as are allowed exist already. Nothing was sent,
	// and the connection goes on.
	ErrTooMany = errors.New("too many")
	// ErrClosed says that this end closed the connection.
	ErrClosed = errors.New("connection closed")
	// ErrInterrupted says that Interrupt was called.
	ErrInterrupted = errors.New("reading was interrupted")
)

// OpError is the error type of this package.
type OpError struct {
	Op  string // "read frame", "handshake"
	Err error
}

func (e *OpError) Error() string { return "link: " + e.Op + ": " + e.Err.Error() }

func (e *OpError) Unwrap() error { return e.Err }

// RemoteError is what the peer said in its Error frame.
type RemoteError struct{ Text string }

func (e *RemoteError) Error() string { return fmt.Sprintf("link: the other end says: %q", e.Text) }

func protocol(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}
