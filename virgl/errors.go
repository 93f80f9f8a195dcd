package virgl

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

var (
	// ErrNotSupported says that this renderer, library or driver cannot do what
	// was asked.
	ErrNotSupported = errors.New("not supported")
	// ErrInvalid says that an argument breaks a limit; the text names it.
	ErrInvalid = errors.New("invalid argument")
	// ErrBusy says that the process has a renderer already: libvirglrenderer is a
	// singleton.
	ErrBusy = errors.New("renderer already in use")
	// ErrLibrary says that libvirglrenderer or a function in it is missing. The
	// text names the Debian package. It is [dl.ErrMissing] or [dl.ErrSymbol] too.
	ErrLibrary = errors.New("libvirglrenderer cannot be used")
	// ErrThread says that a method was called on another thread than New.
	ErrThread = errors.New("not on the render thread")
)

// OpError is the error type of this package: an operation on a context or a
// resource failed.
type OpError struct {
	Op     string // "submit", "create resource"
	Object string // "context 3", "resource 7", or ""
	Err    error
}

func (e *OpError) Error() string {
	if e.Object == "" {
		return "virgl: " + e.Op + ": " + e.Err.Error()
	}
	return "virgl: " + e.Op + " " + e.Object + ": " + e.Err.Error()
}

func (e *OpError) Unwrap() error { return e.Err }

func opErr(op, object string, err error) error {
	return &OpError{Op: op, Object: object, Err: err}
}

func ctxErr(op string, ctx uint32, err error) error {
	return opErr(op, fmt.Sprintf("context %d", ctx), err)
}

func resErr(op string, res uint32, err error) error {
	return opErr(op, fmt.Sprintf("resource %d", res), err)
}

func libraryErr(err error) error {
	return opErr("load", "", fmt.Errorf("%w: %w", ErrLibrary, err))
}

// result turns a return value of libvirglrenderer into an error. 0 is success;
// failures are errno values of either sign, or -1 (virglrenderer.h does not say
// which, and 22 and -22 both occur).
func result(rc int32) error {
	if rc == 0 {
		return nil
	}
	n := rc
	if n < 0 {
		n = -n
	}
	if rc == -1 || n <= 0 || n >= 4096 {
		return fmt.Errorf("libvirglrenderer returned %d", rc)
	}
	return fmt.Errorf("libvirglrenderer returned %d: %w", rc, unix.Errno(n))
}
