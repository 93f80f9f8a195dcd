package virtq

import (
	"sync/atomic"
	"unsafe"
)

// word is an aligned 64-bit field in memory that another process may read later.
type word struct{ p *uint64 }

func wordAt(mem []byte, off int) word { return word{(*uint64)(unsafe.Pointer(&mem[off]))} }

func (w word) load() uint64 { return atomic.LoadUint64(w.p) }

// store is seen before any later store.
func (w word) store(v uint64) { atomic.StoreUint64(w.p, v) }
