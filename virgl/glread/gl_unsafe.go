//go:build cgo && egl

package glread

/*
#include <stdlib.h>
#include <EGL/egl.h>
#include <EGL/eglext.h>
*/
import "C"

import (
	"unsafe"

	gl "github.com/go-gl/gl/v3.1/gles2"
)

func freeString(s *C.char) { C.free(unsafe.Pointer(s)) }

// bindImage makes an EGLImage the contents of the bound external texture.
func bindImage(img C.EGLImageKHR) {
	gl.EGLImageTargetTexture2DOES(gl.TEXTURE_EXTERNAL_OES, unsafe.Pointer(img))
}
