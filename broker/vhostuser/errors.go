package vhostuser

import (
	"errors"
	"fmt"
)

var (
	// ErrProtocol says that the peer sent bytes that are not vhost-user, or
	// that break a rule after which the stream cannot be trusted. The connection
	// ends.
	ErrProtocol = errors.New("protocol error")
	// ErrMessage says that one message was refused: its size, its descriptors or
	// its values are wrong. The connection goes on.
	ErrMessage = errors.New("bad message")
	// ErrUnknown says that a request is unknown or was not negotiated.
	ErrUnknown = errors.New("unknown request")
	// ErrState says that a request came at a time when it makes no sense.
	ErrState = errors.New("wrong state")
	// ErrFeature says that the driver wants a feature that was not offered and
	// cannot be had.
	ErrFeature = errors.New("feature not supported")
	// ErrStopped says that a request to the front-end was not sent because the
	// device is stopped.
	ErrStopped = errors.New("device stopped")
	// ErrRefused says that the front-end answered a request with an error.
	ErrRefused = errors.New("refused by the front-end")
	// ErrClosed says that the connection is closed.
	ErrClosed = errors.New("connection closed")
)

// OpError is the error type of this package.
type OpError struct {
	Op      string  // "read", "handle", "listen"
	Request Request // the message, 0 if none
	Err     error
}

func (e *OpError) Error() string {
	if e.Request == 0 {
		return fmt.Sprintf("vhostuser: %s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("vhostuser: %s %v: %v", e.Op, e.Request, e.Err)
}

func (e *OpError) Unwrap() error { return e.Err }
