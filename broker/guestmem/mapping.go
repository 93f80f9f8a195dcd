package guestmem

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// mapping is a part of a file, mapped when it is first needed. Regions and
// backings hold references; the last one to go unmaps and closes it.
//
// It is lazy because QEMU hands back, as memory regions, the buffers that a
// back-end gave it for the host-visible window: mapping video memory is slow or
// impossible, and nobody may ever translate an address in it.
type mapping struct {
	fd     *dmabuf.FD
	offset uint64 // bytes from the start of the file
	size   uint64 // bytes
	align  uint64 // the file system's block size: what mmap wants of a hugetlbfs offset
	dev    uint64
	ino    uint64
	sealed bool // the file cannot be made shorter
	refs   int

	mem []byte // size bytes from offset; nil until mapped
	raw []byte // the whole mmap, which starts at a multiple of align
	err error  // why mmap failed; it is not tried again
}

// newMapping takes ownership of fd, also on error. It does not mmap.
func newMapping(fd *dmabuf.FD, offset, size uint64) (*mapping, error) {
	mp, err := describe(fd, offset, size)
	if err != nil {
		_ = fd.Close()
		return nil, err
	}
	return mp, nil
}

func describe(fd *dmabuf.FD, offset, size uint64) (*mapping, error) {
	if !fd.Valid() {
		return nil, fmt.Errorf("%w: no file descriptor", ErrRegion)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd.Int(), &st); err != nil {
		return nil, fmt.Errorf("fstat: %w", err)
	}
	mp := &mapping{
		fd: fd, offset: offset, size: size,
		dev: uint64(st.Dev), ino: st.Ino,
		align: uint64(os.Getpagesize()),
		refs:  1,
	}
	if bs := uint64(st.Blksize); bs > mp.align && bs&(bs-1) == 0 {
		mp.align = bs
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		// A dma-buf: anonymous inode, its size never changes.
		mp.sealed = true
		return mp, nil
	}
	if end := offset + size; end > uint64(st.Size) {
		return nil, fmt.Errorf("%w: ends at file offset %#x, file size %#x", ErrRegion, end, st.Size)
	}
	mp.sealed = seal(fd)
	return mp, nil
}

// seal makes sure that a memory file cannot shrink any more, which would turn
// later accesses into SIGBUS. QEMU's memory-backend-memfd comes with GROW,
// SHRINK and SEAL set; with seal=off it cannot be sealed any more. Files of other
// front-ends often can.
func seal(fd *dmabuf.FD) bool {
	seals, err := unix.FcntlInt(uintptr(fd.Int()), unix.F_GET_SEALS, 0)
	if err != nil {
		return false
	}
	if seals&unix.F_SEAL_SHRINK != 0 {
		return true
	}
	_, err = unix.FcntlInt(uintptr(fd.Int()), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK)
	return err == nil
}

func (mp *mapping) same(o *mapping) bool {
	return mp.dev == o.dev && mp.ino == o.ino && mp.offset == o.offset && mp.size == o.size
}

// bytes maps the file if that was not done yet. The slice stays valid for as
// long as the caller holds a reference.
func (mp *mapping) bytes() ([]byte, error) {
	if mp.mem != nil || mp.err != nil {
		return mp.mem, mp.err
	}
	start := mp.offset &^ (mp.align - 1)
	end := (mp.offset + mp.size + mp.align - 1) &^ (mp.align - 1)
	raw, err := unix.Mmap(mp.fd.Int(), int64(start), int(end-start), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		mp.err = fmt.Errorf("mmap of %s at %#x+%#x: %w", mp.fd.Name(), start, end-start, err)
		return nil, mp.err
	}
	// A core dump of the broker must not hold the guest's memory.
	_ = unix.Madvise(raw, unix.MADV_DONTDUMP)
	skip := mp.offset - start
	mp.raw, mp.mem = raw, raw[skip:skip+mp.size:skip+mp.size]
	return mp.mem, nil
}

func (mp *mapping) retain() { mp.refs++ }

func (mp *mapping) release() {
	mp.refs--
	if mp.refs > 0 {
		return
	}
	if mp.raw != nil {
		_ = unix.Munmap(mp.raw)
		mp.raw, mp.mem = nil, nil
	}
	_ = mp.fd.Close()
}
