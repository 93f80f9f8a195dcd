package broker

import "errors"

var (
	// ErrStopped says that the render loop no longer runs.
	ErrStopped = errors.New("render loop stopped")
	// ErrBusy says that another front-end is being served.
	ErrBusy = errors.New("another front-end is connected")
)

// OpError is the error type of this package: an operation on an object failed.
type OpError struct {
	Op     string // "listen", "start renderer"
	Object string
	Err    error
}

func (e *OpError) Error() string {
	if e.Object == "" {
		return "broker: " + e.Op + ": " + e.Err.Error()
	}
	return "broker: " + e.Op + " " + e.Object + ": " + e.Err.Error()
}

func (e *OpError) Unwrap() error { return e.Err }
