package westoncap

import (
	"encoding/binary"
	"image"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// Picture is a picture without alpha.
type Picture struct {
	W, H int      // pixels
	Pix  []uint32 // 0x00RRGGBB, rows from the top without padding
}

// NewPicture returns a black picture.
func NewPicture(w, h int) *Picture { return &Picture{W: w, H: h, Pix: make([]uint32, w*h)} }

// Image returns a copy as Go's image packages have it.
func (p *Picture) Image() image.Image {
	img := image.NewNRGBA(image.Rect(0, 0, p.W, p.H))
	for i, c := range p.Pix {
		px := img.Pix[4*i : 4*i+4]
		px[0], px[1], px[2], px[3] = byte(c>>16), byte(c>>8), byte(c), 255
	}
	return img
}

// read copies captured pixels, whose rows have no padding.
func (p *Picture) read(mem []byte, f dmabuf.Fourcc) {
	swap := f.Opaque() == dmabuf.XBGR8888
	for i := range p.Pix {
		c := binary.LittleEndian.Uint32(mem[4*i:])
		if swap {
			c = c>>16&0xff | c&0xff00 | c&0xff<<16
		}
		p.Pix[i] = c & 0xffffff
	}
}
