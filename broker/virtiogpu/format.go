package virtiogpu

import (
	"fmt"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// Format is enum virtio_gpu_formats. Names list components in memory order;
// virgl's formats of the same layouts have the same numbers (virgl_hw.h).
type Format uint32

// The formats of 2D resources and blob scanouts, four bytes a pixel each.
const (
	FormatB8G8R8A8 Format = 1
	FormatB8G8R8X8 Format = 2
	FormatA8R8G8B8 Format = 3
	FormatX8R8G8B8 Format = 4
	FormatR8G8B8A8 Format = 67
	FormatX8B8G8R8 Format = 68
	FormatA8B8G8R8 Format = 121
	FormatR8G8B8X8 Format = 134
)

// Formats lists every format. Do not change it.
var Formats = [8]Format{
	FormatB8G8R8A8, FormatB8G8R8X8, FormatA8R8G8B8, FormatX8R8G8B8,
	FormatR8G8B8A8, FormatX8B8G8R8, FormatA8B8G8R8, FormatR8G8B8X8,
}

// Fourcc returns the DRM format of the same layout, false if f is unknown. DRM
// names components from the most significant bits of a little-endian word, so
// the letters come in the opposite order.
func (f Format) Fourcc() (dmabuf.Fourcc, bool) {
	switch f {
	case FormatB8G8R8A8:
		return dmabuf.ARGB8888, true
	case FormatB8G8R8X8:
		return dmabuf.XRGB8888, true
	case FormatA8R8G8B8:
		return dmabuf.BGRA8888, true
	case FormatX8R8G8B8:
		return dmabuf.BGRX8888, true
	case FormatR8G8B8A8:
		return dmabuf.ABGR8888, true
	case FormatX8B8G8R8:
		return dmabuf.RGBX8888, true
	case FormatA8B8G8R8:
		return dmabuf.RGBA8888, true
	case FormatR8G8B8X8:
		return dmabuf.XBGR8888, true
	}
	return 0, false
}

// FormatOf is the reverse of [Format.Fourcc].
func FormatOf(c dmabuf.Fourcc) (Format, bool) {
	for _, f := range Formats {
		if g, _ := f.Fourcc(); g == c {
			return f, true
		}
	}
	return 0, false
}

// Valid reports whether f is one of the eight.
func (f Format) Valid() bool {
	_, ok := f.Fourcc()
	return ok
}

// BytesPerPixel returns 4 for every known format and 0 otherwise.
func (f Format) BytesPerPixel() uint32 {
	if f.Valid() {
		return 4
	}
	return 0
}

func (f Format) String() string {
	switch f {
	case FormatB8G8R8A8:
		return "B8G8R8A8"
	case FormatB8G8R8X8:
		return "B8G8R8X8"
	case FormatA8R8G8B8:
		return "A8R8G8B8"
	case FormatX8R8G8B8:
		return "X8R8G8B8"
	case FormatR8G8B8A8:
		return "R8G8B8A8"
	case FormatX8B8G8R8:
		return "X8B8G8R8"
	case FormatA8B8G8R8:
		return "A8B8G8R8"
	case FormatR8G8B8X8:
		return "R8G8B8X8"
	}
	return fmt.Sprintf("format(%d)", uint32(f))
}
