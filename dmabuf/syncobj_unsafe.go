package dmabuf

import (
	"runtime"
	"structs"
	"unsafe"
)

// syncobjArray is struct drm_syncobj_timeline_array with the arrays of one entry that
// it points to. It lives on the heap, which does not move.
type syncobjArray struct {
	arg struct {
		_ structs.HostLayout

		handles, points uint64
		count, flags    uint32
	}
	handle uint32
	point  uint64
}

// call makes a request for one syncobj and returns its point afterwards.
func (a *syncobjArray) call(fd *FD, req uintptr, handle uint32, point uint64) (uint64, error) {
	a.handle, a.point = handle, point
	a.arg.handles = uint64(uintptr(unsafe.Pointer(&a.handle)))
	a.arg.points = uint64(uintptr(unsafe.Pointer(&a.point)))
	a.arg.count = 1
	_, err := ioctl(fd, req, &a.arg)
	runtime.KeepAlive(a)
	return a.point, err
}
