package dmabufcase

import (
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

// format is a pixel format of four bytes, which virtio-gpu and virgl number alike.
type format struct {
	name  string
	virgl uint32
	order string // components in memory order
}

func (f *format) virtio() virtiogpu.Format { return virtiogpu.Format(f.virgl) }

// texel appends the bytes of one texel; X gets a byte that nobody may see.
func (f *format) texel(dst []byte, c rgba) []byte {
	for _, component := range f.order {
		switch component {
		case 'R':
			dst = append(dst, c.r)
		case 'G':
			dst = append(dst, c.g)
		case 'B':
			dst = append(dst, c.b)
		case 'A':
			dst = append(dst, c.a)
		default:
			dst = append(dst, 0x5a)
		}
	}
	return dst
}

// formats3D are those that virglrenderer draws on with any driver.
var formats3D = []format{
	{"B8G8R8A8", virglcmd.FormatB8G8R8A8, "BGRA"},
	{"B8G8R8X8", virglcmd.FormatB8G8R8X8, "BGRX"},
	{"R8G8B8A8", virglcmd.FormatR8G8B8A8, "RGBA"},
	{"R8G8B8X8", virglcmd.FormatR8G8B8X8, "RGBX"},
}

// formats2D are all that a 2D resource can have.
var formats2D = append([]format{
	{"A8R8G8B8", virglcmd.FormatA8R8G8B8, "ARGB"},
	{"X8R8G8B8", virglcmd.FormatX8R8G8B8, "XRGB"},
	{"A8B8G8R8", virglcmd.FormatA8B8G8R8, "ABGR"},
	{"X8B8G8R8", virglcmd.FormatX8B8G8R8, "XBGR"},
}, formats3D...)

// rgba is a colour of 8 bits a component.
type rgba struct{ r, g, b, a uint8 }

func (c rgba) floats() [4]float32 {
	return [4]float32{float32(c.r) / 255, float32(c.g) / 255, float32(c.b) / 255, float32(c.a) / 255}
}

// rgb is the colour as a westoncap.Picture has it.
func (c rgba) rgb() uint32 { return uint32(c.r)<<16 | uint32(c.g)<<8 | uint32(c.b) }
