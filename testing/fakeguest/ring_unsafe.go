package fakeguest

import (
	"sync/atomic"
	"unsafe"
)

// Ring indices are 16 bits wide and shared with the device; they are accessed as
// the aligned 32-bit word around them.

// headWord is the first word of a ring: flags in the low half, idx in the high.
func headWord(ring []byte) *uint32 { return (*uint32)(unsafe.Pointer(&ring[0])) }

func loadHead(ring []byte) (flags, idx uint16) {
	w := atomic.LoadUint32(headWord(ring))
	return uint16(w), uint16(w >> 16)
}

func storeHead(ring []byte, flags, idx uint16) {
	atomic.StoreUint32(headWord(ring), uint32(flags)|uint32(idx)<<16)
}

// loadWord and storeWord access the 32-bit word at off, aligned to 4. The event
// fields are its low half; the high half is padding of our own rings.
func loadWord(ring []byte, off int) uint32 {
	return atomic.LoadUint32((*uint32)(unsafe.Pointer(&ring[off])))
}

func storeWord(ring []byte, off int, v uint32) {
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&ring[off])), v)
}
