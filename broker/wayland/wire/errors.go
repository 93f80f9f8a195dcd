package wire

import "errors"

var (
	// ErrMalformed says that bytes break the wire format; the text names the
	// field, the value and the limit.
	ErrMalformed = errors.New("malformed message")
	// ErrClosed says that the peer closed the connection, or that it is closed here.
	ErrClosed = errors.New("connection closed")
	// ErrDescriptors says that descriptors were lost or are more than allowed.
	ErrDescriptors = errors.New("descriptors out of step")
	// ErrBacklog says that more is waiting to be sent than the limit allows.
	ErrBacklog = errors.New("too much unsent")
	// ErrTooBig says that an outgoing message does not fit the format.
	ErrTooBig = errors.New("message too big")
)

// OpError is the error type of this package.
type OpError struct {
	Op  string // "connect", "receive", "send", "decode"
	Arg string // the path or the field; may be empty
	Err error
}

func (e *OpError) Error() string {
	if e.Arg == "" {
		return "wayland: " + e.Op + ": " + e.Err.Error()
	}
	return "wayland: " + e.Op + " " + e.Arg + ": " + e.Err.Error()
}

func (e *OpError) Unwrap() error { return e.Err }
