package dmabuf

import (
	"fmt"
	"os"
	"path/filepath"
	"structs"

	"golang.org/x/sys/unix"
)

// ioctlHeapAlloc is DMA_HEAP_IOCTL_ALLOC (linux/dma-heap.h):
// _IOWR('H', 0, struct dma_heap_allocation_data).
const ioctlHeapAlloc = 0xc0184800

// heapAllocation is struct dma_heap_allocation_data.
type heapAllocation struct {
	_ structs.HostLayout

	length    uint64
	fd        uint32
	fdFlags   uint32
	heapFlags uint64
}

// heapDir holds one node per heap. It is a variable for tests.
var heapDir = "/dev/dma_heap"

// SystemHeap is the heap of ordinary pages, which every kernel with heaps has.
const SystemHeap = "system"

// Heap is an open dma-heap: a place to allocate dma-bufs from. It is safe for
// concurrent use.
type Heap struct {
	dev *FD
}

// Heaps lists the names of the kernel's heaps; none is not an error.
func Heaps() []string {
	entries, err := os.ReadDir(heapDir)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// OpenHeap opens a heap by name. ErrNotSupported says that there is none of that name
// or that this user may not open it.
func OpenHeap(name string) (*Heap, error) {
	dev, err := openDevice(filepath.Join(heapDir, filepath.Base(name)), "the kernel has no such heap (CONFIG_DMABUF_HEAPS)")
	if err != nil {
		return nil, err
	}
	return &Heap{dev}, nil
}

// Close closes the heap; dma-bufs made of it stay.
func (h *Heap) Close() error { return h.dev.Close() }

// Alloc makes a dma-buf of size bytes, rounded up to whole pages, all zeros. The
// caller owns it.
func (h *Heap) Alloc(size int64) (*FD, error) {
	if size <= 0 {
		return nil, &OpError{Op: "allocate from", Object: h.dev.Name(), Err: fmt.Errorf("%w: size %d bytes", ErrInvalid, size)}
	}
	const readWriteCloexec = unix.O_RDWR | unix.O_CLOEXEC
	arg := heapAllocation{length: uint64(size), fdFlags: readWriteCloexec}
	if _, err := ioctl(h.dev, ioctlHeapAlloc, &arg); err != nil {
		return nil, &OpError{Op: "allocate from", Object: fmt.Sprintf("%s: %d bytes", h.dev.Name(), size), Err: err}
	}
	return NewFD(int(arg.fd), "dma-buf of "+h.dev.Name()), nil
}

// ProbeHeap finds out whether a heap works, by allocating a page. It returns nil, an
// error that is ErrNotSupported and says why, or another error that proves nothing.
func ProbeHeap(name string) error {
	h, err := OpenHeap(name)
	if err != nil {
		return err
	}
	defer func() { _ = h.Close() }()
	buf, err := h.Alloc(PageAlign(1))
	if err != nil {
		return err
	}
	return buf.Close()
}
