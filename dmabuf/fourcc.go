package dmabuf

import (
	"fmt"
	"strings"
)

// Fourcc is a DRM pixel format code (drm_fourcc.h). The names below list
// components from the most significant bit of a little-endian word, as DRM does.
type Fourcc uint32

// Modifier is a DRM format modifier (drm_fourcc.h): a vendor in the top byte,
// the layout below it.
type Modifier uint64

// Modifiers that every driver knows.
const (
	ModLinear  Modifier = 0
	ModInvalid Modifier = 0x00ffffffffffffff // layout implied by the driver
)

func fourcc(a, b, c, d byte) Fourcc {
	return Fourcc(a) | Fourcc(b)<<8 | Fourcc(c)<<16 | Fourcc(d)<<24
}

// The packed formats that a scanout, a cursor or a client window can have.
var (
	XRGB8888      = fourcc('X', 'R', '2', '4')
	ARGB8888      = fourcc('A', 'R', '2', '4')
	XBGR8888      = fourcc('X', 'B', '2', '4')
	ABGR8888      = fourcc('A', 'B', '2', '4')
	RGBX8888      = fourcc('R', 'X', '2', '4')
	RGBA8888      = fourcc('R', 'A', '2', '4')
	BGRX8888      = fourcc('B', 'X', '2', '4')
	BGRA8888      = fourcc('B', 'A', '2', '4')
	RGB565        = fourcc('R', 'G', '1', '6')
	RGB888        = fourcc('R', 'G', '2', '4')
	BGR888        = fourcc('B', 'G', '2', '4')
	XRGB2101010   = fourcc('X', 'R', '3', '0')
	ARGB2101010   = fourcc('A', 'R', '3', '0')
	XBGR2101010   = fourcc('X', 'B', '3', '0')
	ABGR2101010   = fourcc('A', 'B', '3', '0')
	XBGR16161616F = fourcc('X', 'B', '4', 'H')
	ABGR16161616F = fourcc('A', 'B', '4', 'H')
	R8            = fourcc('R', '8', ' ', ' ')
	NV12          = fourcc('N', 'V', '1', '2')
)

type formatInfo struct {
	name   string
	bytes  uint32 // per pixel of plane 0
	opaque Fourcc // the same layout with alpha ignored; itself if there is none
}

var formats = map[Fourcc]formatInfo{
	XRGB8888:      {"XRGB8888", 4, XRGB8888},
	ARGB8888:      {"ARGB8888", 4, XRGB8888},
	XBGR8888:      {"XBGR8888", 4, XBGR8888},
	ABGR8888:      {"ABGR8888", 4, XBGR8888},
	RGBX8888:      {"RGBX8888", 4, RGBX8888},
	RGBA8888:      {"RGBA8888", 4, RGBX8888},
	BGRX8888:      {"BGRX8888", 4, BGRX8888},
	BGRA8888:      {"BGRA8888", 4, BGRX8888},
	RGB565:        {"RGB565", 2, RGB565},
	RGB888:        {"RGB888", 3, RGB888},
	BGR888:        {"BGR888", 3, BGR888},
	XRGB2101010:   {"XRGB2101010", 4, XRGB2101010},
	ARGB2101010:   {"ARGB2101010", 4, XRGB2101010},
	XBGR2101010:   {"XBGR2101010", 4, XBGR2101010},
	ABGR2101010:   {"ABGR2101010", 4, XBGR2101010},
	XBGR16161616F: {"XBGR16161616F", 8, XBGR16161616F},
	ABGR16161616F: {"ABGR16161616F", 8, XBGR16161616F},
	R8:            {"R8", 1, R8},
	NV12:          {"NV12", 1, NV12},
}

// String returns the format's DRM name, or its four characters.
func (f Fourcc) String() string {
	if i, ok := formats[f]; ok {
		return i.name
	}
	b := [4]byte{byte(f), byte(f >> 8), byte(f >> 16), byte(f >> 24)}
	for _, c := range b {
		if c < ' ' || c > '~' {
			return fmt.Sprintf("fourcc(%#08x)", uint32(f))
		}
	}
	return "'" + string(b[:]) + "'"
}

// BytesPerPixel returns the bytes that a pixel takes in plane 0, 0 if unknown.
func (f Fourcc) BytesPerPixel() uint32 { return formats[f].bytes }

// Opaque returns the format with the same layout whose alpha is ignored: a
// scanout is opaque whatever stands in its alpha bits. Formats without such a
// twin return themselves.
func (f Fourcc) Opaque() Fourcc {
	if i, ok := formats[f]; ok {
		return i.opaque
	}
	return f
}

// HasAlpha reports whether the format carries alpha.
func (f Fourcc) HasAlpha() bool { return f.Opaque() != f }

// ParseFourcc finds a format by its DRM name or its four characters.
func ParseFourcc(s string) (Fourcc, error) {
	for f, i := range formats {
		if i.name == s {
			return f, nil
		}
	}
	if len(s) == 4 && strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0 {
		return fourcc(s[0], s[1], s[2], s[3]), nil
	}
	return 0, fmt.Errorf("%w: format %q: want a DRM name such as XRGB8888 or four characters", ErrInvalid, s)
}
