package dl

import (
	"fmt"
	"sync"

	"github.com/ebitengine/purego"
)

// libc holds the C library's functions that the bindings need. The C library is
// part of every process that purego can make calls in.
type libc struct {
	malloc, free, errnoLocation, vsnprintf, strlen uintptr
}

var loadLibc = sync.OnceValue(func() *libc {
	c := &libc{}
	l := &Library{name: "libc.so.6", pkg: "libc6", handle: purego.RTLD_DEFAULT}
	err := l.Resolve([]Symbol{
		{Name: "malloc", Addr: &c.malloc},
		{Name: "free", Addr: &c.free},
		{Name: "__errno_location", Addr: &c.errnoLocation},
		{Name: "vsnprintf", Addr: &c.vsnprintf},
		{Name: "strlen", Addr: &c.strlen},
	})
	if err != nil {
		panic(fmt.Sprintf("dl: the C library of this process: %v", err))
	}
	return c
})

// Malloc returns n bytes of C memory that C may keep after the call. The caller
// frees it with [Free]. Like make, it does not return when there is no memory.
func Malloc(n int) uintptr {
	r, _, _ := purego.SyscallN(loadLibc().malloc, uintptr(n))
	if r == 0 && n > 0 {
		panic(fmt.Sprintf("dl: malloc of %d bytes failed", n))
	}
	return r
}

// Free releases memory of [Malloc], or that a library allocated for the caller.
func Free(p uintptr) {
	if p != 0 {
		_, _, _ = purego.SyscallN(loadLibc().free, p)
	}
}
