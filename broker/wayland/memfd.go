package wayland

import (
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// newMemfd makes a shared-memory file of size zero bytes whose size is sealed,
// so that the compositor cannot be made to fault.
func newMemfd(name string, size int64) (*dmabuf.FD, error) {
	raw, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, &OpError{Op: "create memfd", Object: name, Err: err}
	}
	fd := dmabuf.NewFD(raw, name)
	if err := unix.Ftruncate(raw, size); err != nil {
		_ = fd.Close()
		return nil, &OpError{Op: "size memfd", Object: name, Err: err}
	}
	if _, err := unix.FcntlInt(uintptr(raw), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW); err != nil {
		_ = fd.Close()
		return nil, &OpError{Op: "seal memfd", Object: name, Err: err}
	}
	return fd, nil
}

// blackBuffer makes an all-zero XRGB8888 picture: what a disabled head shows.
// Nobody writes to it, so it takes only the pages that the compositor reads.
func blackBuffer(w, h uint32) (*dmabuf.Buffer, error) {
	fd, err := newMemfd("gpubroker blank", int64(w)*4*int64(h))
	if err != nil {
		return nil, err
	}
	return dmabuf.New(dmabuf.Desc{
		Kind: dmabuf.KindShm, Width: w, Height: h, Fourcc: dmabuf.XRGB8888,
		Planes: []dmabuf.Plane{{FD: fd, Stride: w * 4}}, Origin: "blank",
	})
}
