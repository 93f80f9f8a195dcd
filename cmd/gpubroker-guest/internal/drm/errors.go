package drm

import "errors"

var (
	// ErrNotSupported says that the kernel or the device lacks what was asked.
	ErrNotSupported = errors.New("not supported")
	// ErrForeign says that the driver cannot import a dma-buf of somebody else's.
	ErrForeign = errors.New("not a buffer of this device")
)

// OpError is the error type of this package: a request on a device failed.
type OpError struct {
	Op   string // "import dma-buf"
	Path string // the node
	Err  error
}

func (e *OpError) Error() string { return "drm: " + e.Op + " on " + e.Path + ": " + e.Err.Error() }

func (e *OpError) Unwrap() error { return e.Err }
