package shm

import "errors"

var (
	// ErrInvalid says that a pool or a buffer breaks a limit; the text names it.
	ErrInvalid = errors.New("invalid argument")
	// ErrUnreadable says that a pool's memory cannot be read: the client cut the file.
	ErrUnreadable = errors.New("the pool's memory is gone")
)

// OpError is the error type of this package.
type OpError struct {
	Op     string // "read", "create pool"
	Object string
	Err    error
}

func (e *OpError) Error() string {
	if e.Object == "" {
		return "shm: " + e.Op + ": " + e.Err.Error()
	}
	return "shm: " + e.Op + " " + e.Object + ": " + e.Err.Error()
}

func (e *OpError) Unwrap() error { return e.Err }
