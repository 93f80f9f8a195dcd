package virtq

import (
	"sync/atomic"
	"unsafe"
)

// Go has no 16-bit atomics, and the ring's indices are 16 bits wide. They are
// read as the aligned 32-bit word they lie in, which never crosses a page: the
// other half may be something else, even outside of the ring, and is ignored.
// On arm64 the load is LDAR, on amd64 a plain MOV, both enough for "read the
// index, then what it covers".

// le16 is an aligned 16-bit field of a ring.
type le16 struct {
	word  *uint32 // the 32-bit word around it
	shift uint    // 0 or 16
	half  *uint16 // the field itself
}

// at16 finds the field at offset off of mem, which must be aligned to 2.
func at16(mem []byte, off int) le16 {
	p := unsafe.Pointer(&mem[off])
	low := uintptr(p) & 2
	return le16{
		word:  (*uint32)(unsafe.Add(p, -int(low))),
		shift: uint(low) * 8,
		half:  (*uint16)(p),
	}
}

// load reads the field; later reads of the ring cannot move before it.
func (f le16) load() uint16 { return uint16(atomic.LoadUint32(f.word) >> f.shift) }

// storeFence writes the field, then makes a full barrier: no later load of the
// ring can move before the store. The addition of nothing is what orders it; it
// leaves the other half of the word alone, which is the guest's.
func (f le16) storeFence(v uint16) {
	*f.half = v
	atomic.AddUint32(f.word, 0)
}

// head32 is the first word of a used ring: flags in the low half, idx in the
// high half. Both are the device's.
type head32 struct{ word *uint32 }

func at32(mem []byte) head32 { return head32{(*uint32)(unsafe.Pointer(&mem[0]))} }

func (h head32) load() (flags, idx uint16) {
	w := atomic.LoadUint32(h.word)
	return uint16(w), uint16(w >> 16)
}

// store publishes both; earlier writes to the ring cannot move after it. A later
// atomic load cannot move before it either (XCHG; STLR then LDAR).
func (h head32) store(flags, idx uint16) {
	atomic.StoreUint32(h.word, uint32(flags)|uint32(idx)<<16)
}

// storeFence is store with a full barrier after it, for plain loads too.
func (h head32) storeFence(flags, idx uint16) {
	h.store(flags, idx)
	atomic.AddUint32(h.word, 0)
}

func misaligned(mem []byte, align uintptr) bool {
	return uintptr(unsafe.Pointer(&mem[0]))&(align-1) != 0
}
