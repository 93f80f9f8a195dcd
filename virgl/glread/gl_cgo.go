//go:build cgo && egl

package glread

/*
#cgo pkg-config: egl
#include <stdlib.h>
#include <string.h>
#include <EGL/egl.h>
#include <EGL/eglext.h>

// find_display returns the display of a DRM node's device, or the one without any
// device for an empty node.
static EGLDisplay find_display(const char *node) {
	PFNEGLGETPLATFORMDISPLAYEXTPROC get = (void *)eglGetProcAddress("eglGetPlatformDisplayEXT");
	if (!get)
		return EGL_NO_DISPLAY;
	if (!*node)
		return get(EGL_PLATFORM_SURFACELESS_MESA, EGL_DEFAULT_DISPLAY, NULL);
	PFNEGLQUERYDEVICESEXTPROC query = (void *)eglGetProcAddress("eglQueryDevicesEXT");
	PFNEGLQUERYDEVICESTRINGEXTPROC text = (void *)eglGetProcAddress("eglQueryDeviceStringEXT");
	EGLDeviceEXT devices[64];
	EGLint n = 0;
	if (!query || !text || !query(64, devices, &n))
		return EGL_NO_DISPLAY;
	for (EGLint i = 0; i < n; i++) {
		static const EGLint names[] = {EGL_DRM_DEVICE_FILE_EXT, EGL_DRM_RENDER_NODE_FILE_EXT};
		for (int j = 0; j < 2; j++) {
			const char *file = text(devices[i], names[j]);
			if (file && !strcmp(file, node))
				return get(EGL_PLATFORM_DEVICE_EXT, devices[i], NULL);
		}
	}
	return EGL_NO_DISPLAY;
}

static EGLImageKHR create_image(EGLDisplay d, const EGLint *attributes) {
	PFNEGLCREATEIMAGEKHRPROC create = (void *)eglGetProcAddress("eglCreateImageKHR");
	return create ? create(d, EGL_NO_CONTEXT, EGL_LINUX_DMA_BUF_EXT, NULL, attributes) : EGL_NO_IMAGE_KHR;
}

static void destroy_image(EGLDisplay d, EGLImageKHR image) {
	PFNEGLDESTROYIMAGEKHRPROC destroy = (void *)eglGetProcAddress("eglDestroyImageKHR");
	if (destroy)
		destroy(d, image);
}
*/
import "C"

import (
	"fmt"
	"image"
	"slices"
	"strings"

	gl "github.com/go-gl/gl/v3.1/gles2"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// Built says whether this build has GL.
const Built = true

type reader struct {
	display  C.EGLDisplay
	context  C.EGLContext
	external program // samples an EGLImage
	plain    program // samples an uploaded texture
	modifier bool    // EGL_EXT_image_dma_buf_import_modifiers
	imports  bool    // EGL_EXT_image_dma_buf_import
}

// New makes a context on a DRM node, such as /dev/dri/renderD128, or, for an empty
// node, on whatever Mesa picks without one, and makes it current.
func New(node string) (Reader, error) {
	name := C.CString(node)
	defer freeString(name)
	r := &reader{display: C.find_display(name)}
	if r.display == 0 { // cgo makes EGLDisplay and EGLConfig integers
		return nil, fmt.Errorf("glread: %w: no EGL display for node %q", ErrNotSupported, node)
	}
	if C.eglInitialize(r.display, nil, nil) == C.EGL_FALSE {
		return nil, r.eglError("eglInitialize")
	}
	have := strings.Fields(C.GoString(C.eglQueryString(r.display, C.EGL_EXTENSIONS)))
	r.imports = slices.Contains(have, "EGL_EXT_image_dma_buf_import")
	r.modifier = slices.Contains(have, "EGL_EXT_image_dma_buf_import_modifiers")
	if C.eglBindAPI(C.EGL_OPENGL_ES_API) == C.EGL_FALSE {
		return nil, r.eglError("eglBindAPI")
	}
	attributes := []C.EGLint{C.EGL_CONTEXT_CLIENT_VERSION, 3, C.EGL_NONE}
	r.context = C.eglCreateContext(r.display, 0, nil, &attributes[0]) // EGL_KHR_no_config_context
	if r.context == nil {
		return nil, r.eglError("eglCreateContext")
	}
	if C.eglMakeCurrent(r.display, nil, nil, r.context) == C.EGL_FALSE {
		err := r.eglError("eglMakeCurrent")
		_ = r.Close()
		return nil, err
	}
	if err := r.initGL(); err != nil {
		_ = r.Close()
		return nil, err
	}
	return r, nil
}

func (r *reader) eglError(what string) error {
	return fmt.Errorf("glread: %w: %s: EGL error %#x", ErrNotSupported, what, uint32(C.eglGetError()))
}

func (r *reader) initGL() error {
	if err := gl.Init(); err != nil {
		return fmt.Errorf("glread: %w: %w", ErrNotSupported, err)
	}
	var err error
	if r.plain, err = newProgram(plainSampler + fragmentSource); err != nil {
		return err
	}
	if r.imports {
		r.external, err = newProgram(externalSampler + fragmentSource)
	}
	return err
}

// Renderer implements Reader.
func (r *reader) Renderer() string { return gl.GoStr(gl.GetString(gl.RENDERER)) }

// Close implements Reader. The display is not terminated: EGL shares it with every
// other user of it in the process.
func (r *reader) Close() error {
	if r.context == nil {
		return nil
	}
	C.eglMakeCurrent(r.display, nil, nil, nil)
	C.eglDestroyContext(r.display, r.context)
	C.eglReleaseThread()
	r.context = nil
	return nil
}

// Read implements Reader.
func (r *reader) Read(b *dmabuf.Buffer) (*image.NRGBA, error) {
	var tex uint32
	gl.GenTextures(1, &tex)
	defer gl.DeleteTextures(1, &tex)
	target, p := uint32(gl.TEXTURE_EXTERNAL_OES), r.external
	var err error
	if b.Kind == dmabuf.KindDMABuf {
		err = r.importTexture(tex, b)
	} else {
		target, p = gl.TEXTURE_2D, r.plain
		err = uploadTexture(tex, b)
	}
	if err != nil {
		return nil, err
	}
	img := image.NewNRGBA(image.Rect(0, 0, int(b.Width), int(b.Height)))
	if err := p.draw(target, tex, img); err != nil {
		return nil, fmt.Errorf("glread: read %v: %w", b, err)
	}
	if b.YInvert {
		flip(img)
	}
	return img, nil
}

// importTexture binds a dma-buf to an external texture.
func (r *reader) importTexture(tex uint32, b *dmabuf.Buffer) error {
	return r.importTo(gl.TEXTURE_EXTERNAL_OES, tex, b)
}

// importTo binds a dma-buf to a texture; those of target TEXTURE_2D can be drawn to.
func (r *reader) importTo(target, tex uint32, b *dmabuf.Buffer) error {
	if !r.imports {
		return fmt.Errorf("glread: import %v: %w: EGL lacks EGL_EXT_image_dma_buf_import", b, ErrNotSupported)
	}
	attributes := r.attributes(b)
	img := C.create_image(r.display, &attributes[0])
	if img == nil {
		return fmt.Errorf("glread: import %v: %w: EGL error %#x", b, ErrImport, uint32(C.eglGetError()))
	}
	defer C.destroy_image(r.display, img) // the texture keeps the memory
	gl.BindTexture(target, tex)
	bindImage(target, img)
	if e := gl.GetError(); e != gl.NO_ERROR {
		return fmt.Errorf("glread: bind %v: %w: GL error %#x", b, ErrImport, e)
	}
	return nil
}

// planeAttributes are the names of a plane's fd, offset, pitch and modifier halves.
var planeAttributes = [dmabuf.MaxPlanes][5]C.EGLint{
	{C.EGL_DMA_BUF_PLANE0_FD_EXT, C.EGL_DMA_BUF_PLANE0_OFFSET_EXT, C.EGL_DMA_BUF_PLANE0_PITCH_EXT, C.EGL_DMA_BUF_PLANE0_MODIFIER_LO_EXT, C.EGL_DMA_BUF_PLANE0_MODIFIER_HI_EXT},
	{C.EGL_DMA_BUF_PLANE1_FD_EXT, C.EGL_DMA_BUF_PLANE1_OFFSET_EXT, C.EGL_DMA_BUF_PLANE1_PITCH_EXT, C.EGL_DMA_BUF_PLANE1_MODIFIER_LO_EXT, C.EGL_DMA_BUF_PLANE1_MODIFIER_HI_EXT},
	{C.EGL_DMA_BUF_PLANE2_FD_EXT, C.EGL_DMA_BUF_PLANE2_OFFSET_EXT, C.EGL_DMA_BUF_PLANE2_PITCH_EXT, C.EGL_DMA_BUF_PLANE2_MODIFIER_LO_EXT, C.EGL_DMA_BUF_PLANE2_MODIFIER_HI_EXT},
	{C.EGL_DMA_BUF_PLANE3_FD_EXT, C.EGL_DMA_BUF_PLANE3_OFFSET_EXT, C.EGL_DMA_BUF_PLANE3_PITCH_EXT, C.EGL_DMA_BUF_PLANE3_MODIFIER_LO_EXT, C.EGL_DMA_BUF_PLANE3_MODIFIER_HI_EXT},
}

func (r *reader) attributes(b *dmabuf.Buffer) []C.EGLint {
	list := []C.EGLint{
		C.EGL_WIDTH, C.EGLint(b.Width), C.EGL_HEIGHT, C.EGLint(b.Height),
		C.EGL_LINUX_DRM_FOURCC_EXT, C.EGLint(b.Fourcc),
	}
	for i, p := range b.Planes {
		n := planeAttributes[i]
		list = append(list, n[0], C.EGLint(p.FD.Int()), n[1], C.EGLint(p.Offset), n[2], C.EGLint(p.Stride))
		if r.modifier && b.Modifier != dmabuf.ModInvalid {
			list = append(list, n[3], C.EGLint(uint32(b.Modifier)), n[4], C.EGLint(uint32(b.Modifier>>32)))
		}
	}
	return append(list, C.EGL_NONE)
}

// swizzles say where red, green, blue and alpha are among a pixel's bytes.
var swizzles = map[dmabuf.Fourcc][4]int32{
	dmabuf.XBGR8888: {gl.RED, gl.GREEN, gl.BLUE, gl.ONE}, dmabuf.ABGR8888: {gl.RED, gl.GREEN, gl.BLUE, gl.ALPHA},
	dmabuf.XRGB8888: {gl.BLUE, gl.GREEN, gl.RED, gl.ONE}, dmabuf.ARGB8888: {gl.BLUE, gl.GREEN, gl.RED, gl.ALPHA},
	dmabuf.RGBX8888: {gl.ALPHA, gl.BLUE, gl.GREEN, gl.ONE}, dmabuf.RGBA8888: {gl.ALPHA, gl.BLUE, gl.GREEN, gl.RED},
	dmabuf.BGRX8888: {gl.GREEN, gl.BLUE, gl.ALPHA, gl.ONE}, dmabuf.BGRA8888: {gl.GREEN, gl.BLUE, gl.ALPHA, gl.RED},
}

// uploadTexture copies shared memory into a texture.
func uploadTexture(tex uint32, b *dmabuf.Buffer) error {
	swizzle, ok := swizzles[b.Fourcc]
	if !ok || b.Planes[0].Stride%4 != 0 {
		return fmt.Errorf("glread: upload %v: %w: stride %d or format", b, ErrNotSupported, b.Planes[0].Stride)
	}
	mem, done, err := b.CPURead()
	if err != nil {
		return fmt.Errorf("glread: upload %v: %w", b, err)
	}
	defer done()
	gl.BindTexture(gl.TEXTURE_2D, tex)
	for i, name := range []uint32{gl.TEXTURE_SWIZZLE_R, gl.TEXTURE_SWIZZLE_G, gl.TEXTURE_SWIZZLE_B, gl.TEXTURE_SWIZZLE_A} {
		gl.TexParameteri(gl.TEXTURE_2D, name, swizzle[i])
	}
	gl.PixelStorei(gl.UNPACK_ROW_LENGTH, int32(b.Planes[0].Stride/4))
	gl.TexImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, int32(b.Width), int32(b.Height), 0, gl.RGBA, gl.UNSIGNED_BYTE, gl.Ptr(mem[b.Planes[0].Offset:]))
	gl.PixelStorei(gl.UNPACK_ROW_LENGTH, 0)
	return nil
}
