package qemudisplay

import "errors"

var (
	// ErrProtocol says that QEMU sent what the protocol does not allow.
	ErrProtocol = errors.New("protocol error")
	// ErrFrame says that a frame cannot be shown as it is.
	ErrFrame = errors.New("frame cannot be shown")
	// errHangup says that the other end is gone, as on every stop of the device.
	errHangup = errors.New("display socket closed by QEMU")
	// errStopped says that this end stopped.
	errStopped = errors.New("display socket replaced or closed")
)

// OpError is the error type of this package.
type OpError struct {
	Op  string // "read reply", "send UPDATE"
	Err error
}

func (e *OpError) Error() string { return "qemudisplay: " + e.Op + ": " + e.Err.Error() }

func (e *OpError) Unwrap() error { return e.Err }
