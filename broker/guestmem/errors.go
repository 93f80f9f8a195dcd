// Package guestmem gives access to a guest's memory: ranges of guest-physical
// addresses that lie in files (memfds) which the front-end passed over, mapped
// into this process.
//
// A [Map] is not safe for concurrent use. It belongs to the render thread, as
// do the backings made from it.
package guestmem

import (
	"errors"
	"fmt"
)

var (
	// ErrUnmapped says that a guest address lies in no region, or in one whose
	// file cannot be mapped.
	ErrUnmapped = errors.New("address not in guest memory")
	// ErrRegion says that a region breaks a rule; the text names it.
	ErrRegion = errors.New("bad memory region")
	// ErrFault says that the pages behind an address are gone: somebody made
	// the file shorter.
	ErrFault = errors.New("guest memory fault")
)

// OpError is the error type of this package.
type OpError struct {
	Op   string // "add region", "translate", "copy"
	Addr uint64 // guest-physical or user address that Op was about
	Len  uint64 // bytes
	Err  error
}

func (e *OpError) Error() string {
	return fmt.Sprintf("guestmem: %s %#x+%#x: %v", e.Op, e.Addr, e.Len, e.Err)
}

func (e *OpError) Unwrap() error { return e.Err }
