package keep

import (
	"sync/atomic"
	"unsafe"
)

func at(mem []byte, off int) *uint64 {
	_ = mem[off+7]
	return (*uint64)(unsafe.Pointer(&mem[off]))
}

func load(mem []byte, off int) uint64     { return atomic.LoadUint64(at(mem, off)) }
func store(mem []byte, off int, v uint64) { atomic.StoreUint64(at(mem, off), v) }

func at32(mem []byte, off int) *uint32 {
	_ = mem[off+3]
	return (*uint32)(unsafe.Pointer(&mem[off]))
}

func load32(mem []byte, off int) uint32     { return atomic.LoadUint32(at32(mem, off)) }
func store32(mem []byte, off int, v uint32) { atomic.StoreUint32(at32(mem, off), v) }
