package relay

import (
	"errors"
	"fmt"

	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

// ErrLimit says that a client has more of something than it may; the text names it.
var ErrLimit = errors.New("limit reached")

// Codes of enum wl_display.error.
const (
	codeInvalidObject  = 0
	codeInvalidMethod  = 1
	codeNoMemory       = 2
	codeImplementation = 3
)

// ProtocolError ends a client: it becomes wl_display.error.
type ProtocolError struct {
	Object wire.ID
	Code   uint32 // of the object's interface, or of wl_display
	Text   string
}

func (e *ProtocolError) Error() string {
	return fmt.Sprintf("object %d, code %d: %s", e.Object, e.Code, e.Text)
}

// displayError is a ProtocolError about wl_display.
func displayError(code uint32, format string, args ...any) error {
	return &ProtocolError{Object: wire.DisplayID, Code: code, Text: fmt.Sprintf(format, args...)}
}

// OpError says which part of the relay ended it.
type OpError struct {
	Op  string // "read from client", "read from host"
	Err error
}

func (e *OpError) Error() string { return "relay: " + e.Op + ": " + e.Err.Error() }

func (e *OpError) Unwrap() error { return e.Err }
