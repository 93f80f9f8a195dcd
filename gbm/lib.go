package gbm

import (
	"fmt"
	"runtime"
	"sync"

	"github.com/ebitengine/purego"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/virgl/dl"
)

// lib is libgbm: its functions' addresses, named after them (gbm.h) without gbm_.
type lib struct {
	createDevice, deviceDestroy, deviceGetBackendName, deviceIsFormatSupported uintptr
	boCreate, boCreateWithModifiers, boImport, boDestroy                       uintptr
	boGetPlaneCount, boGetStrideForPlane, boGetOffset, boGetModifier, boGetFD  uintptr
	boGetFormat, boGetWidth, boGetHeight, boMap, boUnmap                       uintptr

	// Newer than Debian 10's; 0 in older libraries.
	boCreateWithModifiers2, boGetFDForPlane, deviceGetFormatModifierPlaneCount uintptr
}

var spec = dl.Spec{Sonames: []string{"libgbm.so.1"}, Package: "libgbm1"}

// load returns the library, loaded once.
var load = sync.OnceValues(func() (*lib, error) { return open(spec) })

func open(spec dl.Spec) (*lib, error) {
	file, err := dl.Open(spec)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLibrary, err)
	}
	l := &lib{}
	err = file.Resolve([]dl.Symbol{
		{Name: "gbm_create_device", Addr: &l.createDevice},
		{Name: "gbm_device_destroy", Addr: &l.deviceDestroy},
		{Name: "gbm_device_get_backend_name", Addr: &l.deviceGetBackendName},
		{Name: "gbm_device_is_format_supported", Addr: &l.deviceIsFormatSupported},
		{Name: "gbm_bo_create", Addr: &l.boCreate},
		{Name: "gbm_bo_create_with_modifiers", Addr: &l.boCreateWithModifiers},
		{Name: "gbm_bo_import", Addr: &l.boImport},
		{Name: "gbm_bo_destroy", Addr: &l.boDestroy},
		{Name: "gbm_bo_get_plane_count", Addr: &l.boGetPlaneCount},
		{Name: "gbm_bo_get_stride_for_plane", Addr: &l.boGetStrideForPlane},
		{Name: "gbm_bo_get_offset", Addr: &l.boGetOffset},
		{Name: "gbm_bo_get_modifier", Addr: &l.boGetModifier},
		{Name: "gbm_bo_get_fd", Addr: &l.boGetFD},
		{Name: "gbm_bo_get_format", Addr: &l.boGetFormat},
		{Name: "gbm_bo_get_width", Addr: &l.boGetWidth},
		{Name: "gbm_bo_get_height", Addr: &l.boGetHeight},
		{Name: "gbm_bo_map", Addr: &l.boMap},
		{Name: "gbm_bo_unmap", Addr: &l.boUnmap},
		{Name: "gbm_bo_create_with_modifiers2", Addr: &l.boCreateWithModifiers2, Optional: true},
		{Name: "gbm_bo_get_fd_for_plane", Addr: &l.boGetFDForPlane, Optional: true},
		{Name: "gbm_device_get_format_modifier_plane_count", Addr: &l.deviceGetFormatModifierPlaneCount, Optional: true},
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLibrary, err)
	}
	return l, nil
}

// call calls a function whose failure needs no explanation.
func call(fn uintptr, args ...uintptr) uintptr {
	r, _, _ := purego.SyscallN(fn, args...)
	return r
}

// explain calls a function that reports failure through errno, and says what errno
// was. libgbm does not always set it.
func explain(fn uintptr, args ...uintptr) (uintptr, error) {
	runtime.LockOSThread() // errno belongs to the thread
	defer runtime.UnlockOSThread()
	dl.ClearErrno()
	r, _, _ := purego.SyscallN(fn, args...)
	if errno := dl.Errno(); errno != 0 {
		return r, errno
	}
	return r, errNoReason
}

var errNoReason = fmt.Errorf("%w: libgbm gives no reason", unix.EINVAL)
