// Package glread looks at buffers the way a compositor does: it imports a dma-buf
// into OpenGL ES as an EGLImage, draws it and reads the result back. Tests and the
// smoke test use it to check pixels of exported buffers through a second, independent
// GL context; the broker does not need it.
//
// It is the only package that needs cgo, and is built for real only with
//
//	CGO_ENABLED=1 go build -tags egl
//
// and the Debian packages gcc, pkg-config and libegl-dev. Otherwise [New] returns
// [ErrNotSupported].
package glread

import (
	"errors"
	"image"
	"image/color"

	"github.com/gpubroker/gpubroker/dmabuf"
)

var (
	// ErrNotSupported says that the program was built without GL, or that the driver
	// lacks what is needed. The text says which.
	ErrNotSupported = errors.New("not supported")
	// ErrImport says that the driver refused a buffer.
	ErrImport = errors.New("driver refuses the buffer")
)

// Reader is a GL ES context without a window. All its methods are called on the
// thread that called [New], which must be a locked OS thread without another current
// GL context.
type Reader interface {
	// Renderer returns GL_RENDERER, such as "llvmpipe (LLVM 19.1.7, 256 bits)".
	Renderer() string
	// Read returns a buffer's picture, top row first, with the components as they are
	// stored (alpha 255 for formats without). Buffers of dmabuf.KindDMABuf are imported, those of
	// dmabuf.KindShm with four bytes a pixel uploaded. The error wraps ErrImport when
	// the driver does not take the format, modifier or stride.
	Read(b *dmabuf.Buffer) (*image.NRGBA, error)
	// Paint draws the picture of [Painted] into a dma-buf, with shaders, and waits until
	// it is there. The error wraps ErrImport when the driver does not render into it.
	Paint(b *dmabuf.Buffer) error
	// Close destroys the context.
	Close() error
}

// Painted is what [Reader.Paint] draws at a place of a picture of w × h pixels, row 0
// first in memory; the hardware may round to a neighbour.
func Painted(x, y, w, h int) color.NRGBA {
	part := func(i, n int) uint8 { return uint8((255*(2*i+1) + n) / (2 * n)) }
	return color.NRGBA{R: part(x, w), G: part(y, h), B: 64, A: 255}
}
