package drm

import (
	"runtime"
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// Requests; the size and the direction that each has are in its number.
const (
	ioctlVersion     = 0xc0406400 // DRM_IOCTL_VERSION
	ioctlGemClose    = 0x40086409 // DRM_IOCTL_GEM_CLOSE
	ioctlHandleToFD  = 0xc00c642d // DRM_IOCTL_PRIME_HANDLE_TO_FD
	ioctlFDToHandle  = 0xc00c642e // DRM_IOCTL_PRIME_FD_TO_HANDLE
	ioctlMap         = 0xc0106441 // DRM_IOCTL_VIRTGPU_MAP
	ioctlExec        = 0xc0286442 // DRM_IOCTL_VIRTGPU_EXECBUFFER, without syncobjs
	ioctlGetParam    = 0xc0106443 // DRM_IOCTL_VIRTGPU_GETPARAM
	ioctlResInfo     = 0xc0106445 // DRM_IOCTL_VIRTGPU_RESOURCE_INFO
	ioctlWait        = 0xc0086448 // DRM_IOCTL_VIRTGPU_WAIT
	ioctlGetCaps     = 0xc0186449 // DRM_IOCTL_VIRTGPU_GET_CAPS
	ioctlCreateBlob  = 0xc030644a // DRM_IOCTL_VIRTGPU_RESOURCE_CREATE_BLOB
	ioctlContextInit = 0xc010644b // DRM_IOCTL_VIRTGPU_CONTEXT_INIT
)

// versionArg is struct drm_version.
type versionArg struct {
	_ structs.HostLayout

	major, minor, patch int32
	nameLen             uint64
	name                uint64
	dateLen             uint64
	date                uint64
	descLen             uint64
	desc                uint64
}

type gemCloseArg struct {
	_ structs.HostLayout

	handle, _ uint32
}

// primeArg is struct drm_prime_handle.
type primeArg struct {
	_ structs.HostLayout

	handle, flags uint32
	fd            int32
}

type mapArg struct {
	_ structs.HostLayout

	offset    uint64
	handle, _ uint32
}

type execArg struct {
	_ structs.HostLayout

	flags, size   uint32
	command       uint64
	handles       uint64
	numHandles    uint32
	fence         int32
	ring, syncobj uint32
}

type getParamArg struct {
	_ structs.HostLayout

	param, value uint64
}

// resInfoArg is struct drm_virtgpu_resource_info, which the driver reads and writes.
type resInfoArg struct {
	_ structs.HostLayout

	handle, resource, size, blobMem uint32
}

type waitArg struct {
	_ structs.HostLayout

	handle, flags uint32
}

type getCapsArg struct {
	_ structs.HostLayout

	id, version uint32
	addr        uint64
	size, _     uint32
}

type createBlobArg struct {
	_ structs.HostLayout

	mem, flags       uint32
	handle, resource uint32
	size             uint64
	_, cmdSize       uint32
	cmd, blobID      uint64
}

type contextInitArg struct {
	_ structs.HostLayout

	count, _ uint32
	params   uint64
}

type contextParam struct {
	_ structs.HostLayout

	param, value uint64
}

// ioctl passes a pointer to arg, whose layout is the request's.
func ioctl[T any](fd *dmabuf.FD, req uintptr, arg *T) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd.Int()), req, uintptr(unsafe.Pointer(arg)))
		runtime.KeepAlive(fd)
		if errno == unix.EINTR || errno == unix.EAGAIN {
			continue
		}
		if errno != 0 {
			return errno
		}
		return nil
	}
}

// pinner keeps what structs point to in place while a request runs.
type pinner struct{ runtime.Pinner }

// address returns the address of the first element of s, 0 if there is none.
func address[T any](p *pinner, s []T) uint64 {
	if len(s) == 0 {
		return 0
	}
	p.Pin(&s[0])
	return uint64(uintptr(unsafe.Pointer(&s[0])))
}
