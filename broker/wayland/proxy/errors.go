package proxy

import (
	"errors"
	"fmt"

	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

var (
	// ErrProtocol says that the guest's client broke the Wayland protocol or the
	// rules of the transport; the text names the field, the value and the limit.
	ErrProtocol = errors.New("protocol error")
	// ErrQuota says that a client asked for more than its limits allow.
	ErrQuota = errors.New("over the limit")
	// ErrCompositor says that the compositor went away, or reported an error, or
	// sent what the protocol's tables do not know.
	ErrCompositor = errors.New("compositor")
	// ErrClosed says that the proxy is closed.
	ErrClosed = errors.New("proxy closed")
	// ErrPolicy says that a policy cannot be used.
	ErrPolicy = errors.New("bad policy")
)

// OpError is the error type of this package.
type OpError struct {
	Op     string // "connect", "serve", "load policy"
	Object string // socket, file or client; may be empty
	Err    error
}

func (e *OpError) Error() string {
	if e.Object == "" {
		return "wayland proxy: " + e.Op + ": " + e.Err.Error()
	}
	return "wayland proxy: " + e.Op + " " + e.Object + ": " + e.Err.Error()
}

func (e *OpError) Unwrap() error { return e.Err }

// Codes of wl_display.error on any object.
const (
	codeObject = 0 // invalid_object
	codeMethod = 1 // invalid_method
	codeMemory = 2 // no_memory
	codeBroken = 3 // implementation
)

// clientError ends a client with wl_display.error. The text is for its developer.
type clientError struct {
	object wire.ID // as the guest knows it
	code   uint32
	err    error
}

func (e *clientError) Error() string { return e.err.Error() }
func (e *clientError) Unwrap() error { return e.err }

// fault makes the error for a client that broke the protocol.
func fault(object wire.ID, code uint32, format string, args ...any) error {
	return &clientError{object, code, fmt.Errorf("%w: "+format, append([]any{ErrProtocol}, args...)...)}
}

// over makes the error for a client that wants more than it may have.
func over(object wire.ID, what string, value, limit int64) error {
	return &clientError{object, codeMemory, fmt.Errorf("%w: %s %d, limit %d", ErrQuota, what, value, limit)}
}

// hostFault makes the error for a compositor that does what the tables forbid.
func hostFault(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrCompositor}, args...)...)
}
