// Package virtq is the device's side of a virtio split ring (virtio 1.2, 2.7),
// with indirect descriptors and event indices, in memory that a hostile guest
// writes at the same time.
//
// A [Queue] is not safe for concurrent use: it belongs to the render thread.
package virtq

import (
	"errors"
	"fmt"
)

var (
	// ErrChain says that a descriptor chain breaks a rule. The chain's Head is
	// known, so the device can push it back with length 0.
	ErrChain = errors.New("bad descriptor chain")
	// ErrRing says that the available ring itself is broken. There is nothing to
	// push; the queue has gone past the bad entry.
	ErrRing = errors.New("bad available ring")
	// ErrConfig says that a queue cannot be made from a configuration.
	ErrConfig = errors.New("bad queue configuration")
)

// OpError is the error type of this package.
type OpError struct {
	Op    string // "new queue", "next chain", "notify"
	Queue int    // index of the queue
	Err   error
}

func (e *OpError) Error() string {
	return fmt.Sprintf("virtq: queue %d: %s: %v", e.Queue, e.Op, e.Err)
}

func (e *OpError) Unwrap() error { return e.Err }
