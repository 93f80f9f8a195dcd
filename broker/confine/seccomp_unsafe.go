package confine

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// filters says why there are no seccomp filters; nil if there are.
func filters() error {
	if machine.audit == 0 {
		return ErrNoFilter
	}
	action := uint32(unix.SECCOMP_RET_KILL_PROCESS) // the newest of those used: Linux 4.14
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	return seccompError(errno)
}

// setFilter gives the filter to the calling thread, and with SECCOMP_FILTER_FLAG_TSYNC
// to all others.
func setFilter(prog []bpf.RawInstruction, flags uintptr) error {
	raw := make([]unix.SockFilter, len(prog))
	for i, in := range prog {
		raw[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	fprog := unix.SockFprog{Len: uint16(len(raw)), Filter: &raw[0]}
	tid, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&fprog)))
	if errno == 0 && tid != 0 {
		return fmt.Errorf("thread %d has another filter", tid)
	}
	return seccompError(errno)
}

func seccompError(errno unix.Errno) error {
	switch {
	case errno == 0:
		return nil
	case errors.Is(errno, unix.ENOSYS), errors.Is(errno, unix.EINVAL), errors.Is(errno, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: %w", ErrNoFilter, errno)
	}
	return errno
}
