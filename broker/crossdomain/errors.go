package crossdomain

import (
	"errors"
	"fmt"
)

var (
	// ErrMalformed says that a command breaks a rule of its format.
	ErrMalformed = errors.New("malformed cross-domain command")
	// ErrRefused says that a command is well formed and cannot be carried out.
	ErrRefused = errors.New("cross-domain command refused")
	// ErrFlood says that the guest sends faster than anybody reads, and ignores
	// fences that are held back.
	ErrFlood = errors.New("cross-domain queue overrun")
	// ErrClosed says that the context or its channel has ended.
	ErrClosed = errors.New("cross-domain channel closed")
)

// OpError is the error type of this package.
type OpError struct {
	Ctx uint32 // the guest's context
	Cmd Cmd    // 0: none
	Err error
}

func (e *OpError) Error() string {
	if e.Cmd == 0 {
		return fmt.Sprintf("crossdomain: context %d: %v", e.Ctx, e.Err)
	}
	return fmt.Sprintf("crossdomain: context %d: %v: %v", e.Ctx, e.Cmd, e.Err)
}

func (e *OpError) Unwrap() error { return e.Err }

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}

func refused(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrRefused}, args...)...)
}
