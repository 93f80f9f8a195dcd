package dmabuf

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctl passes a pointer to arg. T must have the layout that the request
// expects.
func ioctl[T any](fd *FD, req uintptr, arg *T) (int, error) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd.Int()), req, uintptr(unsafe.Pointer(arg)))
		runtime.KeepAlive(fd)
		if errno == unix.EINTR || errno == unix.EAGAIN {
			continue
		}
		if errno != 0 {
			return -1, errno
		}
		return int(n), nil
	}
}
