package shm

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/drm"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Importer makes the pages of clients' memory known to the host: udmabuf, then PRIME
// import into a virtio-gpu device that has blobs and no 3D. Safe for concurrent use.
type Importer struct {
	dev  *drm.Device
	udma *dmabuf.UDMABuf
	max  int64 // bytes of one udmabuf
}

// OpenImporter opens the import device's render node and /dev/udmabuf, and tries
// both with a page of memory: kernels before 6.14 refuse the import.
func OpenImporter(node string) (*Importer, error) {
	udma, err := dmabuf.OpenUDMABuf()
	if err != nil {
		return nil, err
	}
	dev, err := drm.Open(node)
	if err != nil {
		_ = udma.Close()
		return nil, err
	}
	im := &Importer{dev: dev, udma: udma}
	_, im.max = dmabuf.UDMABufLimits()
	if err := im.try(); err != nil {
		im.Close()
		return nil, err
	}
	return im, nil
}

func (im *Importer) try() error {
	size := dmabuf.PageAlign(1)
	mem, err := dmabuf.NewMemfd("import probe", size)
	if err != nil {
		return err
	}
	defer func() { _ = mem.Close() }()
	h, err := im.importSpan(dmabuf.Span{FD: mem, Size: uint64(size)})
	h.Close()
	return err
}

// Close closes the devices. Buffers must be gone.
func (im *Importer) Close() {
	if im != nil {
		_, _ = im.dev.Close(), im.udma.Close()
	}
}

// ImportDMABuf imports a dma-buf of another device, which stays the caller's.
func (im *Importer) ImportDMABuf(fd *dmabuf.FD) (*drm.Handle, error) { return im.dev.Import(fd) }

func (im *Importer) importSpan(s dmabuf.Span) (*drm.Handle, error) {
	buf, err := im.udma.Create(s)
	if err != nil {
		return nil, err
	}
	defer func() { _ = buf.Close() }()
	return im.dev.Import(buf)
}

// span imports size bytes at offset of a client's file; the memory begins inPage
// bytes into the resource.
func (im *Importer) span(fd *dmabuf.FD, offset, size int64) (h *drm.Handle, inPage uint64, err error) {
	page := int64(os.Getpagesize())
	start, end := offset/page*page, dmabuf.PageAlign(offset+size)
	if end-start > im.max {
		return nil, 0, &OpError{Op: "import", Object: fd.Name(), Err: fmt.Errorf("%d bytes, the limit of udmabuf is %d", end-start, im.max)}
	}
	if err := pinDown(fd, end); err != nil {
		return nil, 0, err
	}
	h, err = im.importSpan(dmabuf.Span{FD: fd, Offset: uint64(start), Size: uint64(end - start)})
	return h, uint64(offset - start), err
}

// pinDown makes a client's file fit for udmabuf: it may not shrink and has whole
// pages up to end. Both are allowed by the rules of wl_shm, where pools only grow.
func pinDown(fd *dmabuf.FD, end int64) error {
	seals, err := dmabuf.Seals(fd)
	if err != nil {
		return err
	}
	fail := func(why string) error {
		return &OpError{Op: "import", Object: fd.Name(), Err: errors.New(why)}
	}
	if seals&(unix.F_SEAL_WRITE|unix.F_SEAL_FUTURE_WRITE) != 0 {
		return fail("the file is sealed against writing")
	}
	if seals&unix.F_SEAL_SHRINK == 0 {
		if _, err := unix.FcntlInt(uintptr(fd.Int()), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK); err != nil {
			return fail("the file cannot be sealed against shrinking: " + err.Error())
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd.Int(), &st); err != nil {
		return &OpError{Op: "import", Object: fd.Name(), Err: err}
	}
	if st.Size >= end {
		return nil
	}
	// The last page is the client's in part. The file cannot get smaller by this, should
	// the client have made it larger in between: it is sealed.
	if end-st.Size >= int64(os.Getpagesize()) {
		return fail("the file is shorter than the pool")
	}
	if err := unix.Ftruncate(fd.Int(), end); err != nil {
		return fail("the file has no whole pages and cannot grow: " + err.Error())
	}
	return nil
}
