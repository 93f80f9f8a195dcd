package dl

import (
	"unsafe"

	"github.com/ebitengine/purego"
	"golang.org/x/sys/unix"
)

// Pointer turns an address that C gave into a pointer. It must not be an address
// of Go memory.
func Pointer(addr uintptr) unsafe.Pointer {
	return *(*unsafe.Pointer)(unsafe.Pointer(&addr))
}

// Bytes views n bytes of C memory at addr. The view must not outlive the memory.
func Bytes(addr uintptr, n int) []byte {
	if addr == 0 || n == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(Pointer(addr)), n)
}

// Addr returns the address of b's first byte, 0 for an empty slice. The caller
// keeps b alive and in place (C memory, an mmap, or a pinned object) as long as
// C may use the address.
func Addr(b []byte) uintptr {
	return uintptr(unsafe.Pointer(unsafe.SliceData(b)))
}

// String copies the NUL-terminated C string at addr, limit bytes at most.
func String(addr uintptr, limit int) string {
	if addr == 0 {
		return ""
	}
	n, _, _ := purego.SyscallN(loadLibc().strlen, addr)
	return string(Bytes(addr, min(int(n), limit)))
}

// CString copies s into C memory with a NUL at its end. The caller frees it.
func CString(s string) uintptr {
	p := Malloc(len(s) + 1)
	b := Bytes(p, len(s)+1)
	copy(b, s)
	b[len(s)] = 0
	return p
}

// Format renders a C format and its va_list, given by address, as vsnprintf
// does; limit is the longest text returned, in bytes. On amd64 and arm64 a
// va_list parameter is passed as one pointer, which is what a callback receives.
func Format(format, vaList uintptr, limit int) string {
	buf := make([]byte, limit+1)
	n, _, _ := purego.SyscallN(loadLibc().vsnprintf, uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), format, vaList)
	if int32(n) < 0 {
		return ""
	}
	return string(buf[:min(int(int32(n)), limit)])
}

// Errno returns the calling thread's errno. It means something only on a locked
// OS thread, straight after the C call that failed: the Go runtime makes system
// calls without touching errno, but other C calls on the thread change it.
func Errno() unix.Errno {
	p, _, _ := purego.SyscallN(loadLibc().errnoLocation)
	return unix.Errno(*(*int32)(Pointer(p)))
}

// ClearErrno sets the calling thread's errno to 0, before a call whose failure is
// to be explained.
func ClearErrno() {
	p, _, _ := purego.SyscallN(loadLibc().errnoLocation)
	*(*int32)(Pointer(p)) = 0
}
