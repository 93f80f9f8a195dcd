package drm

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// Handle is one hold on a buffer of a Device. The driver has one handle for a buffer
// however often it is imported, so holds are counted, and the buffer is let go with
// the last. Safe for concurrent use.
type Handle struct {
	d        *Device
	id       uint32
	resource uint32
	size     uint32 // bytes
	closed   atomic.Bool
}

// Resource returns the resource id by which the host knows the buffer.
func (h *Handle) Resource() uint32 { return h.resource }

// Size returns the buffer's bytes.
func (h *Handle) Size() uint32 { return h.size }

// Close lets go of the buffer. A second Close, or Close on nil, does nothing.
func (h *Handle) Close() {
	if h == nil || h.closed.Swap(true) {
		return
	}
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	h.d.drop(h.id)
}

// drop gives one hold back; d.mu is held.
func (d *Device) drop(id uint32) {
	d.refs[id]--
	if d.refs[id] > 0 {
		return
	}
	delete(d.refs, id)
	// It fails only for a handle that does not exist.
	_ = request(d, ioctlGemClose, &gemCloseArg{handle: id})
}

// hold counts a handle that the driver gave, and asks for its resource; d.mu is held.
func (d *Device) hold(id uint32) (*Handle, error) {
	d.refs[id]++
	info := resInfoArg{handle: id}
	if err := request(d, ioctlResInfo, &info); err != nil {
		d.drop(id)
		return nil, err
	}
	return &Handle{d: d, id: id, resource: info.resource, size: info.size}, nil
}

// Import opens a dma-buf, which stays the caller's. ErrForeign says that it is none of
// this device's and that the driver does not take others'.
func (d *Device) Import(fd *dmabuf.FD) (*Handle, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	arg := primeArg{fd: int32(fd.Int())}
	err := request(d, ioctlFDToHandle, &arg)
	switch {
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EOPNOTSUPP):
		return nil, d.fail("import dma-buf", fmt.Errorf("%w: %w", ErrForeign, err))
	case err != nil:
		return nil, d.fail("import dma-buf", err)
	}
	h, err := d.hold(arg.handle)
	return h, d.fail("ask for the resource of a dma-buf", err)
}

// Blob kinds and flags, VIRTGPU_BLOB_*.
const (
	BlobGuest  = 1 // the guest's pages
	BlobHost3D = 2 // the host's memory

	BlobMappable  = 1
	BlobShareable = 2
)

// CreateBlob makes a blob of size bytes, a whole number of pages. blobID is for the
// host, which knows what it means in the device's context.
func (d *Device) CreateBlob(mem, flags uint32, size, blobID uint64) (*Handle, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if size == 0 || size > math.MaxUint32 {
		return nil, d.fail("create a blob", fmt.Errorf("size %d bytes, want 1 to %d", size, math.MaxUint32))
	}
	arg := createBlobArg{mem: mem, flags: flags, size: size, blobID: blobID}
	if err := request(d, ioctlCreateBlob, &arg); err != nil {
		return nil, d.fail("create a blob", err)
	}
	d.refs[arg.handle]++
	return &Handle{d: d, id: arg.handle, resource: arg.resource, size: uint32(size)}, nil
}

// Map maps the whole of a mappable blob, shared, for reading and writing. The caller
// unmaps it with [dmabuf.Unmap].
func (h *Handle) Map() ([]byte, error) {
	arg := mapArg{handle: h.id}
	if err := request(h.d, ioctlMap, &arg); err != nil {
		return nil, h.d.fail("map a blob", err)
	}
	if err := h.d.enter(); err != nil {
		return nil, h.d.fail("map a blob", err)
	}
	defer h.d.life.RUnlock()
	mem, err := unix.Mmap(h.d.fd.Int(), int64(arg.offset), int(h.size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, h.d.fail("map a blob", err)
	}
	return mem, nil
}

// Wait waits until the work that Exec was given with the buffer has ended, at most 15
// seconds (the driver's limit).
func (h *Handle) Wait() error {
	return h.d.fail("wait for a buffer", request(h.d, ioctlWait, &waitArg{handle: h.id}))
}

// Export returns a dma-buf of the buffer, the caller's.
func (h *Handle) Export() (*dmabuf.FD, error) {
	arg := primeArg{handle: h.id, flags: unix.O_CLOEXEC | unix.O_RDWR, fd: -1}
	if err := request(h.d, ioctlHandleToFD, &arg); err != nil {
		return nil, h.d.fail("export a buffer", err)
	}
	return dmabuf.NewFD(int(arg.fd), "dma-buf of "+h.d.path), nil
}
