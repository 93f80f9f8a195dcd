// Package realmode makes the smallest guest that KVM can run: one x86 CPU in real mode
// and no devices. It shows that guests run, and that they write into the memory of
// package kvmslot; a VMM has its own.
package realmode

import "errors"

// ErrNotSupported says that this machine is no x86 or has no KVM for this user; the
// text says which.
var ErrNotSupported = errors.New("not supported")
