package input

import (
	"errors"
	"fmt"
)

var (
	// ErrConfig says that a server was asked for something that makes no sense.
	ErrConfig = errors.New("bad configuration")
	// ErrShort says that bytes are fewer than a structure needs.
	ErrShort = errors.New("too short")
	// ErrRange says that a write lies outside the config space.
	ErrRange = errors.New("out of range")
)

// OpError is the error type of this package.
type OpError struct {
	Op     string // "listen", "decode event", "write config"
	Device string // "keyboard and pointer", "touch screen"; may be empty
	Err    error
}

func (e *OpError) Error() string {
	if e.Device == "" {
		return fmt.Sprintf("input: %s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("input: %s: %s: %v", e.Device, e.Op, e.Err)
}

func (e *OpError) Unwrap() error { return e.Err }
