package dmabuf

import "golang.org/x/sys/unix"

// DMA_BUF_IOCTL_SYNC and its flags (linux/dma-buf.h).
const (
	ioctlSync = 0x40086200 // _IOW('b', 0, struct dma_buf_sync)

	syncRead  = 1 << 0
	syncWrite = 2 << 0
	syncEnd   = 1 << 2
)

// BeginCPU makes a dma-buf's pixels coherent for the CPU, which will read them
// and, if write is set, change them through Mem; EndCPU ends that. It waits for
// the GPU's work on the buffer. Shared memory needs neither and both do nothing.
func (b *Buffer) BeginCPU(write bool) error { return b.cpuAccess("begin CPU access to", write, 0) }

// EndCPU ends what BeginCPU began, with the same write.
func (b *Buffer) EndCPU(write bool) error { return b.cpuAccess("end CPU access to", write, syncEnd) }

func (b *Buffer) cpuAccess(op string, write bool, end uint64) error {
	if b.Kind != KindDMABuf {
		return nil
	}
	flags := uint64(syncRead) | end
	if write {
		flags |= syncWrite
	}
	if _, err := ioctl(b.Planes[0].FD, ioctlSync, &flags); err != nil {
		return &OpError{Op: op, Object: b.String(), Err: err}
	}
	return nil
}

// CPURead gives the bytes of plane 0's descriptor, from its start, for reading
// until done is called: the buffer's own mapping if it has one, else a new one.
// Callers hold a reference.
func (b *Buffer) CPURead() (mem []byte, done func(), err error) {
	mem, unmap := b.Mem, func() {}
	if mem == nil {
		p := b.Planes[0]
		mem, err = unix.Mmap(p.FD.Int(), 0, int(uint64(p.Offset)+b.Size(0)), unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return nil, nil, &OpError{Op: "map", Object: b.String(), Err: err}
		}
		unmap = func() { _ = unix.Munmap(mem) }
	}
	if err := b.BeginCPU(false); err != nil {
		unmap()
		return nil, nil, err
	}
	return mem, func() {
		_ = b.EndCPU(false) // nothing was written
		unmap()
	}, nil
}
