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

// bindImage makes an EGLImage the contents of the texture that is bound to target.
func bindImage(target uint32, img C.EGLImageKHR) {
	gl.EGLImageTargetTexture2DOES(target, unsafe.Pointer(img))
}
