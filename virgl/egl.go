package virgl

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/ebitengine/purego"

	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/virgl/dl"
)

// egl asks EGL for what libraries before 1.0 do not say of a texture: its
// modifier and number of planes. It uses the library's own display and context,
// which are current on the render thread.
type egl struct {
	getCurrentDisplay, getCurrentContext, createImage, destroyImage, exportQuery uintptr
}

const (
	eglGLTexture2D = 0x30B1 // EGL_GL_TEXTURE_2D_KHR (EGL_KHR_gl_texture_2D_image)
	eglExtensions  = 0x3055 // EGL_EXTENSIONS
	eglExport      = "EGL_MESA_image_dma_buf_export"
)

// loadEGL returns nil when EGL cannot export dma-bufs at all. A context of the
// library must be current: eglGetProcAddress gives addresses even of functions
// that crash when called, so the display's extension string decides.
func loadEGL() *egl {
	file, err := dl.Open(dl.Spec{Sonames: []string{"libEGL.so.1"}, Package: "libegl1"})
	if err != nil {
		return nil
	}
	e := &egl{}
	var getProcAddress, queryString uintptr
	err = file.Resolve([]dl.Symbol{
		{Name: "eglGetCurrentDisplay", Addr: &e.getCurrentDisplay},
		{Name: "eglGetCurrentContext", Addr: &e.getCurrentContext},
		{Name: "eglGetProcAddress", Addr: &getProcAddress},
		{Name: "eglQueryString", Addr: &queryString},
	})
	if err != nil {
		return nil
	}
	display, _, _ := purego.SyscallN(e.getCurrentDisplay)
	list, _, _ := purego.SyscallN(queryString, display, eglExtensions)
	if !slices.Contains(strings.Fields(dl.String(list, 1<<16)), eglExport) {
		return nil
	}
	for name, addr := range map[string]*uintptr{
		"eglCreateImageKHR":             &e.createImage,
		"eglDestroyImageKHR":            &e.destroyImage,
		"eglExportDMABUFImageQueryMESA": &e.exportQuery,
	} {
		text := dl.CString(name)
		*addr, _, _ = purego.SyscallN(getProcAddress, text)
		dl.Free(text)
		if *addr == 0 {
			return nil
		}
	}
	return e
}

// query returns a texture's fourcc, number of planes and modifier. out is C memory
// of at least 64 bytes.
func (e *egl) query(tex uint32, out []byte) (dmabuf.Fourcc, int, dmabuf.Modifier, error) {
	display, _, _ := purego.SyscallN(e.getCurrentDisplay)
	context, _, _ := purego.SyscallN(e.getCurrentContext)
	image, _, _ := purego.SyscallN(e.createImage, display, context, eglGLTexture2D, uintptr(tex), 0)
	if image == 0 {
		return 0, 0, 0, fmt.Errorf("%w: texture cannot become an EGLImage", ErrNotSupported)
	}
	defer purego.SyscallN(e.destroyImage, display, image)
	clear(out[:64])
	at := dl.Addr(out)
	ok, _, _ := purego.SyscallN(e.exportQuery, display, image, at, at+4, at+8)
	if uint32(ok) != 1 {
		return 0, 0, 0, fmt.Errorf("%w: the driver does not export the texture", ErrNotSupported)
	}
	return dmabuf.Fourcc(binary.NativeEndian.Uint32(out)), int(binary.NativeEndian.Uint32(out[4:])),
		dmabuf.Modifier(binary.NativeEndian.Uint64(out[8:])), nil
}
