package vtest

import (
	"errors"
	"fmt"
)

var (
	// ErrProtocol says that a client sent what the protocol does not allow.
	ErrProtocol = errors.New("protocol error")
	// ErrNotOwned says that a client named something that it does not have.
	ErrNotOwned = errors.New("not this client's")
	// ErrLimit says that a client wants more than one may have.
	ErrLimit = errors.New("limit")
)

// OpError is the error type of this package: a client's message failed, which ends
// that client.
type OpError struct {
	Op  string // name of the message
	Err error
}

func (e *OpError) Error() string { return "vtest: " + e.Op + ": " + e.Err.Error() }

func (e *OpError) Unwrap() error { return e.Err }

func protocol(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrProtocol}, args...)...)
}
