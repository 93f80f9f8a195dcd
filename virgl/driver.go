package virgl

import (
	"github.com/ebitengine/purego"

	"github.com/gpubroker/gpubroker/virgl/dl"
)

const glVersion = 0x1F02 // GL_VERSION

// Driver returns GL_RENDERER and GL_VERSION of the context that is current on the
// calling thread, which is the library's after [New]. Without one both are "unknown".
func Driver() (renderer, version string) {
	renderer, version = "unknown", "unknown"
	file, err := dl.Open(dl.Spec{Sonames: []string{"libEGL.so.1"}, Package: "libegl1"})
	if err != nil {
		return renderer, version
	}
	var currentContext, getProcAddress uintptr
	err = file.Resolve([]dl.Symbol{
		{Name: "eglGetCurrentContext", Addr: &currentContext},
		{Name: "eglGetProcAddress", Addr: &getProcAddress},
	})
	if err != nil {
		return renderer, version
	}
	if ctx, _, _ := purego.SyscallN(currentContext); ctx == 0 {
		return renderer, version
	}
	getString := procAddress(getProcAddress, "glGetString")
	if getString == 0 {
		return renderer, version
	}
	for name, out := range map[uintptr]*string{glRenderer: &renderer, glVersion: &version} {
		if text, _, _ := purego.SyscallN(getString, name); text != 0 {
			*out = dl.String(text, 1<<10)
		}
	}
	return renderer, version
}
