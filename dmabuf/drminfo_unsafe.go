package dmabuf

import (
	"runtime"
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctlVersion is DRM_IOCTL_VERSION: _IOWR('d', 0x00, struct drm_version).
const ioctlVersion = 0xc0406400

// drmVersionArg is struct drm_version on 64-bit machines.
type drmVersionArg struct {
	_                   structs.HostLayout
	major, minor, patch int32
	_                   int32
	nameLen             uint64
	name                unsafe.Pointer
	dateLen             uint64
	date                unsafe.Pointer
	descLen             uint64
	desc                unsafe.Pointer
}

var _ [64]byte = [unsafe.Sizeof(drmVersionArg{})]byte{}

// drmVersion fetches the texts in one go: names longer than the buffers are cut, as the
// kernel does it.
func drmVersion(fd *FD) (DRMDriver, error) {
	name, desc := make([]byte, 64), make([]byte, 128)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&name[0])
	pin.Pin(&desc[0])
	arg := drmVersionArg{
		nameLen: uint64(len(name)), name: unsafe.Pointer(&name[0]),
		descLen: uint64(len(desc)), desc: unsafe.Pointer(&desc[0]),
	}
	if _, err := ioctl(fd, ioctlVersion, &arg); err != nil {
		return DRMDriver{}, err
	}
	return DRMDriver{
		Name: unix.ByteSliceToString(name), Desc: unix.ByteSliceToString(desc),
		Major: arg.major, Minor: arg.minor, Patch: arg.patch,
	}, nil
}
