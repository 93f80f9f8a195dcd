package dmabuf

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mfdNoexecSeal is MFD_NOEXEC_SEAL (linux/memfd.h, Linux 6.3): the file can never
// be executed. Without it newer kernels may log a warning.
const mfdNoexecSeal = 0x8

// NewMemfd makes a shared-memory file of size bytes, all zeros, whose size is
// sealed: F_SEAL_SHRINK and F_SEAL_GROW, and then the given F_SEAL_* values. No
// holder of the descriptor can make a mapping fault by cutting the file, and
// udmabuf insists on the first. udmabuf also wants a whole number of pages; see
// [PageAlign]. Pages are allocated when they are first written.
//
// The caller owns the descriptor. The name shows in /proc and in leak reports.
func NewMemfd(name string, size int64, seals ...int) (*FD, error) {
	if size <= 0 {
		return nil, &OpError{Op: "create memfd", Object: name, Err: fmt.Errorf("%w: size %d bytes", ErrInvalid, size)}
	}
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	raw, err := unix.MemfdCreate(name, flags|mfdNoexecSeal)
	if errors.Is(err, unix.EINVAL) { // a kernel before 6.3
		raw, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return nil, &OpError{Op: "create memfd", Object: name, Err: err}
	}
	fd := NewFD(raw, "memfd "+name)
	if err := unix.Ftruncate(raw, size); err != nil {
		_ = fd.Close()
		return nil, &OpError{Op: "size memfd", Object: fmt.Sprintf("%s to %d bytes", name, size), Err: err}
	}
	mask := unix.F_SEAL_SHRINK | unix.F_SEAL_GROW
	for _, s := range seals {
		mask |= s
	}
	if _, err := unix.FcntlInt(uintptr(raw), unix.F_ADD_SEALS, mask); err != nil {
		_ = fd.Close()
		return nil, &OpError{Op: "seal memfd", Object: fmt.Sprintf("%s with %#x", name, mask), Err: err}
	}
	return fd, nil
}

// Seals returns a file's F_SEAL_* bits. ErrNotSupported says that the file cannot
// have any: it is neither a memfd nor on tmpfs or hugetlbfs.
func Seals(fd *FD) (int, error) {
	n, err := unix.FcntlInt(uintptr(fd.Int()), unix.F_GET_SEALS, 0)
	if errors.Is(err, unix.EINVAL) {
		return 0, &OpError{Op: "read seals of", Object: fd.Name(), Err: fmt.Errorf("%w: %w", ErrNotSupported, err)}
	}
	if err != nil {
		return 0, &OpError{Op: "read seals of", Object: fd.Name(), Err: err}
	}
	return n, nil
}

// PageAlign rounds a size up to whole pages.
func PageAlign(size int64) int64 {
	page := int64(os.Getpagesize())
	return (size + page - 1) / page * page
}

// Map maps the first size bytes of a file, shared, for reading and, if write is
// set, writing. The caller unmaps with [Unmap]; closing fd does not. The mapping of
// a file that can shrink faults when it does: check [Seals] of files from outside.
func Map(fd *FD, size int64, write bool) ([]byte, error) {
	prot := unix.PROT_READ
	if write {
		prot |= unix.PROT_WRITE
	}
	mem, err := unix.Mmap(fd.Int(), 0, int(size), prot, unix.MAP_SHARED)
	if err != nil {
		return nil, &OpError{Op: "map", Object: fmt.Sprintf("%d bytes of %s", size, fd.Name()), Err: err}
	}
	return mem, nil
}

// Unmap ends a mapping of [Map]. Unmap of nil does nothing.
func Unmap(mem []byte) error {
	if mem == nil {
		return nil
	}
	if err := unix.Munmap(mem); err != nil {
		return &OpError{Op: "unmap", Object: fmt.Sprintf("%d bytes", len(mem)), Err: err}
	}
	return nil
}
