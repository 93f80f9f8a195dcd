package shmfallback

import "errors"

var (
	// ErrInvalid says that an argument breaks a limit; the text names it.
	ErrInvalid = errors.New("invalid argument")
	// ErrBounds says that a copy would leave the memory of one of its sides; the
	// text has the numbers.
	ErrBounds = errors.New("out of bounds")
	// ErrFault says that memory vanished during a copy: the file behind a mapping
	// was truncated (SIGBUS).
	ErrFault = errors.New("memory fault")
)

// OpError is the error type of this package.
type OpError struct {
	Op     string // "allocate", "copy"
	Object string // which buffer, may be empty
	Err    error
}

func (e *OpError) Error() string {
	if e.Object == "" {
		return "shmfallback: " + e.Op + ": " + e.Err.Error()
	}
	return "shmfallback: " + e.Op + " " + e.Object + ": " + e.Err.Error()
}

func (e *OpError) Unwrap() error { return e.Err }
