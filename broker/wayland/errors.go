package wayland

import "errors"

var (
	// ErrNoCompositor says that no compositor answers at the configured place.
	ErrNoCompositor = errors.New("no Wayland compositor")
	// ErrMissing says that the compositor lacks an interface that windows need.
	ErrMissing = errors.New("compositor lacks a needed interface")
	// ErrProtocol says that the compositor reported an error or sent what the
	// protocol does not allow.
	ErrProtocol = errors.New("protocol error")
	// ErrFrame says that a frame cannot be shown as it is.
	ErrFrame = errors.New("frame cannot be shown")
)

// OpError is the error type of this package.
type OpError struct {
	Op     string // "connect", "import"
	Object string // the socket's path, the buffer or the interface
	Err    error
}

func (e *OpError) Error() string {
	if e.Object == "" {
		return "wayland: " + e.Op + ": " + e.Err.Error()
	}
	return "wayland: " + e.Op + " " + e.Object + ": " + e.Err.Error()
}

func (e *OpError) Unwrap() error { return e.Err }
