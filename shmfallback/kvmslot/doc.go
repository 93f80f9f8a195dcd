// Package kvmslot puts buffers into the memory of a guest whose KVM virtual
// machine this process owns: for VMMs that embed the broker as a Go library. What
// the guest writes there is what a compositor reads, without a copy.
package kvmslot
