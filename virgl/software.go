package virgl

import (
	"slices"
	"strings"

	"github.com/ebitengine/purego"

	"github.com/gpubroker/gpubroker/virgl/dl"
)

const (
	glRenderer     = 0x1F01 // GL_RENDERER
	eglNativeFence = "EGL_ANDROID_native_fence_sync"
)

// findFinish returns the address of glFinish where the library's fences must not
// be used, else 0.
//
// That is llvmpipe with native fences, which it has where there is /dev/udmabuf.
// To make such a fence into a descriptor it finishes every context of the process
// (lp_fence_get_fd, Mesa 24.2 to 26.1), and the library asks for the descriptor
// on its fence thread, too (virgl_egl_client_wait_fence, since 0.10). So two threads
// would work in one context, and soon crash or wait for ever. The other call for the
// descriptor is where a fence is made, so those fences never let rendering go on in
// the background anyway: glFinish instead of a fence loses nothing.
//
// Context 0 must be current.
func findFinish() uintptr {
	file, err := dl.Open(dl.Spec{Sonames: []string{"libEGL.so.1"}, Package: "libegl1"})
	if err != nil {
		return 0
	}
	var currentDisplay, queryString, getProcAddress uintptr
	err = file.Resolve([]dl.Symbol{
		{Name: "eglGetCurrentDisplay", Addr: &currentDisplay},
		{Name: "eglQueryString", Addr: &queryString},
		{Name: "eglGetProcAddress", Addr: &getProcAddress},
	})
	if err != nil {
		return 0
	}
	display, _, _ := purego.SyscallN(currentDisplay)
	list, _, _ := purego.SyscallN(queryString, display, eglExtensions)
	if !slices.Contains(strings.Fields(dl.String(list, 1<<16)), eglNativeFence) {
		return 0
	}
	getString := procAddress(getProcAddress, "glGetString")
	if getString == 0 {
		return 0
	}
	name, _, _ := purego.SyscallN(getString, glRenderer)
	if !strings.HasPrefix(dl.String(name, 1<<10), "llvmpipe") {
		return 0
	}
	return procAddress(getProcAddress, "glFinish")
}

// procAddress calls eglGetProcAddress.
func procAddress(getProcAddress uintptr, name string) uintptr {
	text := dl.CString(name)
	defer dl.Free(text)
	addr, _, _ := purego.SyscallN(getProcAddress, text)
	return addr
}
