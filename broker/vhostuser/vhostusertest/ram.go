package vhostusertest

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// userBase is where the RAM pretends to lie in the front-end's address space.
const userBase = 0x7f12_3400_0000

// high is where QEMU puts the part of RAM that does not fit below 4 GiB.
const high = 1 << 32

// RAM is a guest's memory: one memfd, seen by the guest as one or two regions.
type RAM struct {
	FD      *dmabuf.FD
	Mem     []byte // the whole file
	Regions []vhostuser.MemRegion
}

// RAMConfig says how to make RAM.
type RAMConfig struct {
	Size   uint64 // bytes, a multiple of the page size
	Split  uint64 // bytes below 4 GiB; the rest starts there. 0 for all below.
	NoSeal bool   // as memory-backend-memfd,seal=off: nobody can add seals later
}

// NewRAM makes guest memory, full of zeros. Seals are QEMU's.
func NewRAM(c RAMConfig) (*RAM, error) {
	flags := unix.MFD_CLOEXEC
	if !c.NoSeal {
		flags |= unix.MFD_ALLOW_SEALING
	}
	raw, err := unix.MemfdCreate("guest ram", flags)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	r := &RAM{FD: dmabuf.NewFD(raw, "guest ram")}
	if err := r.init(c); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func (r *RAM) init(c RAMConfig) error {
	if err := unix.Ftruncate(r.FD.Int(), int64(c.Size)); err != nil {
		return fmt.Errorf("ftruncate: %w", err)
	}
	if !c.NoSeal {
		const seals = unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
		if _, err := unix.FcntlInt(uintptr(r.FD.Int()), unix.F_ADD_SEALS, seals); err != nil {
			return fmt.Errorf("seal: %w", err)
		}
	}
	var err error
	r.Mem, err = unix.Mmap(r.FD.Int(), 0, int(c.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	low := c.Size
	if c.Split != 0 {
		low = c.Split
	}
	r.Regions = append(r.Regions, vhostuser.MemRegion{GPA: 0, Size: low, UserAddr: userBase})
	if low < c.Size {
		r.Regions = append(r.Regions, vhostuser.MemRegion{GPA: high, Size: c.Size - low, UserAddr: userBase + low, MmapOffset: low})
	}
	return nil
}

// Slice returns length bytes at a guest-physical address. It panics if they are
// not all in one region: the address comes from a test, not from a guest.
func (r *RAM) Slice(gpa uint64, length int) []byte {
	reg := r.region(gpa, uint64(length))
	off := reg.MmapOffset + gpa - reg.GPA
	return r.Mem[off : off+uint64(length) : off+uint64(length)]
}

// UserAddr translates a guest-physical address to the front-end's address space.
func (r *RAM) UserAddr(gpa uint64) uint64 {
	reg := r.region(gpa, 1)
	return gpa - reg.GPA + reg.UserAddr
}

// GPA translates an offset in the file to a guest-physical address.
func (r *RAM) GPA(off uint64) uint64 {
	for _, reg := range r.Regions {
		if off-reg.MmapOffset < reg.Size {
			return off - reg.MmapOffset + reg.GPA
		}
	}
	panic(fmt.Sprintf("vhostusertest: offset %#x outside of RAM", off))
}

func (r *RAM) region(gpa, length uint64) vhostuser.MemRegion {
	i := slices.IndexFunc(r.Regions, func(reg vhostuser.MemRegion) bool {
		return gpa >= reg.GPA && gpa-reg.GPA < reg.Size && length <= reg.Size-(gpa-reg.GPA)
	})
	if i < 0 {
		panic(fmt.Sprintf("vhostusertest: guest address %#x+%#x outside of RAM", gpa, length))
	}
	return r.Regions[i]
}

// Close unmaps and closes the memory.
func (r *RAM) Close() {
	if r.Mem != nil {
		_ = unix.Munmap(r.Mem)
		r.Mem = nil
	}
	_ = r.FD.Close()
}
