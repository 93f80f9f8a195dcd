package virtiogpu

import (
	"errors"
	"fmt"
)

// What can be wrong with a command, as far as the guest can be told. Every
// error that a command ends with wraps one of these; [RespFor] turns it into the
// response.
var (
	ErrUnspec           = errors.New("failed")
	ErrOutOfMemory      = errors.New("out of memory")
	ErrInvalidScanout   = errors.New("invalid scanout id")
	ErrInvalidResource  = errors.New("invalid resource id")
	ErrInvalidContext   = errors.New("invalid context id")
	ErrInvalidParameter = errors.New("invalid parameter")
)

// RespFor returns the VIRTIO_GPU_RESP_ERR_* for err, the one place where errors
// become responses. nil gives RespOKNoData; an error that wraps none of this
// package's gives RespErrUnspec.
func RespFor(err error) Type {
	switch {
	case err == nil:
		return RespOKNoData
	case errors.Is(err, ErrInvalidParameter):
		return RespErrInvalidParameter
	case errors.Is(err, ErrInvalidResource):
		return RespErrInvalidResourceID
	case errors.Is(err, ErrInvalidContext):
		return RespErrInvalidContextID
	case errors.Is(err, ErrInvalidScanout):
		return RespErrInvalidScanoutID
	case errors.Is(err, ErrOutOfMemory):
		return RespErrOutOfMemory
	}
	return RespErrUnspec
}

// ErrorOf is the reverse of [RespFor], for a guest: nil for every RESP_OK_*.
func ErrorOf(t Type) error {
	switch t {
	case RespErrOutOfMemory:
		return ErrOutOfMemory
	case RespErrInvalidScanoutID:
		return ErrInvalidScanout
	case RespErrInvalidResourceID:
		return ErrInvalidResource
	case RespErrInvalidContextID:
		return ErrInvalidContext
	case RespErrInvalidParameter:
		return ErrInvalidParameter
	}
	if t.IsOK() {
		return nil
	}
	return ErrUnspec
}

// OpError says which struct could not be decoded.
type OpError struct {
	Op   string // "decode"
	Type Type   // the command or response, 0 for a bare header or config
	Err  error
}

func (e *OpError) Error() string {
	if e.Type == 0 {
		return fmt.Sprintf("virtiogpu: %s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("virtiogpu: %s %v: %v", e.Op, e.Type, e.Err)
}

func (e *OpError) Unwrap() error { return e.Err }

func shortErr(t Type, have, need int) error {
	return &OpError{Op: "decode", Type: t, Err: fmt.Errorf("%w: length %d bytes, need %d", ErrInvalidParameter, have, need)}
}
