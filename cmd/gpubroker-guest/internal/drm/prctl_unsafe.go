package drm

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// prctl calls prctl(2) with a buffer, for the calling thread.
func prctl(option int, buf []byte) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_PRCTL, uintptr(option), uintptr(unsafe.Pointer(&buf[0])), 0); errno != 0 {
		return errno
	}
	return nil
}
