package dmabuf

import "errors"

var (
	// ErrNotSupported says that the kernel or the device lacks what was asked.
	ErrNotSupported = errors.New("not supported")
	// ErrInvalid says that an argument breaks a limit; the text names it.
	ErrInvalid = errors.New("invalid argument")
)

// OpError is the error type of this package: an operation on an object failed.
type OpError struct {
	Op     string // "create udmabuf", "dup"
	Object string // which descriptor, node or buffer
	Err    error
}

func (e *OpError) Error() string {
	if e.Object == "" {
		return "dmabuf: " + e.Op + ": " + e.Err.Error()
	}
	return "dmabuf: " + e.Op + " " + e.Object + ": " + e.Err.Error()
}

func (e *OpError) Unwrap() error { return e.Err }
