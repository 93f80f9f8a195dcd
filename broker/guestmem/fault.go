package guestmem

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Recover turns a memory fault in guest memory into an [ErrFault] in *err; any
// other panic goes on. It must be deferred directly, with the fault mode of the
// goroutine as its first argument:
//
//	defer guestmem.Recover(debug.SetPanicOnFault(true), &err)
func Recover(before bool, err *error) {
	debug.SetPanicOnFault(before)
	r := recover()
	if r == nil {
		return
	}
	// Only a fault that SetPanicOnFault caught carries an address; a nil pointer
	// is a bug of ours and stays a panic.
	fault, ok := r.(interface {
		runtime.Error
		Addr() uintptr
	})
	if !ok {
		panic(r)
	}
	*err = fmt.Errorf("%w at host address %#x", ErrFault, fault.Addr())
}

// Copy copies between guest memory and ours, as the builtin does, and survives
// pages that are gone. It does not allocate. Any goroutine, while the memory
// stays mapped.
func Copy(dst, src []byte) (n int, err error) {
	defer Recover(debug.SetPanicOnFault(true), &err)
	return copy(dst, src), nil
}

// ReadAt copies from the pieces segs, seen as one run of bytes, starting at off.
// It returns how many bytes there were, at most len(dst).
func ReadAt(dst []byte, segs [][]byte, off uint64) (n int, err error) {
	defer Recover(debug.SetPanicOnFault(true), &err)
	for _, s := range segs {
		if n == len(dst) {
			break
		}
		if off >= uint64(len(s)) {
			off -= uint64(len(s))
			continue
		}
		n += copy(dst[n:], s[off:])
		off = 0
	}
	return n, nil
}

// WriteAt copies src into the pieces segs, seen as one run of bytes, starting at
// off. It returns how many bytes fitted.
func WriteAt(segs [][]byte, off uint64, src []byte) (n int, err error) {
	defer Recover(debug.SetPanicOnFault(true), &err)
	for _, s := range segs {
		if n == len(src) {
			break
		}
		if off >= uint64(len(s)) {
			off -= uint64(len(s))
			continue
		}
		n += copy(s[off:], src[n:])
		off = 0
	}
	return n, nil
}
