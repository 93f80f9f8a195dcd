package keep

import "errors"

// ErrMessage says that a message makes no sense.
var ErrMessage = errors.New("bad message between worker and supervisor")

// OpError is the error type of this package.
type OpError struct {
	Op  string // "send", "receive", "start"
	Err error
}

func (e *OpError) Error() string { return "keep: " + e.Op + ": " + e.Err.Error() }

func (e *OpError) Unwrap() error { return e.Err }
