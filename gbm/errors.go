package gbm

import "errors"

var (
	// ErrNotSupported says that the library or the driver cannot do what was asked.
	ErrNotSupported = errors.New("not supported")
	// ErrInvalid says that an argument breaks a limit; the text names it.
	ErrInvalid = errors.New("invalid argument")
	// ErrClosed says that the device or the buffer object is closed.
	ErrClosed = errors.New("closed")
	// ErrLibrary says that libgbm or a function in it is missing. The text names the
	// Debian package.
	ErrLibrary = errors.New("libgbm cannot be used")
)

// OpError is the error type of this package: an operation on a device or a buffer
// object failed.
type OpError struct {
	Op     string // "allocate", "import"
	Object string // "640x480 XRGB8888 on /dev/dri/card0"
	Err    error
}

func (e *OpError) Error() string { return "gbm: " + e.Op + " " + e.Object + ": " + e.Err.Error() }

func (e *OpError) Unwrap() error { return e.Err }
