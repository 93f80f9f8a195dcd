package wayland_test

import (
	"image"
	"image/color"
	"testing"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
)

// picture is a test image: what a head is to look like.
type picture = *image.NRGBA

// pattern draws something that shows swapped colours, mirrored axes and shifted
// rows: red grows to the right, green downwards, blue counts blocks, and the top
// left corner is white.
func pattern(w, h, seed int) picture {
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			c := color.NRGBA{R: uint8(x * 255 / w), G: uint8(y * 255 / h), B: uint8((x/16*37 + y/16*91 + seed*53) & 255), A: 255}
			if x < w/8 && y < h/8 {
				c = color.NRGBA{R: 255, G: 255, B: 255, A: 255}
			}
			img.SetNRGBA(x, y, c)
		}
	}
	return img
}

// buffer makes shared memory that holds img in the given format, for one
// reference.
func buffer(t testing.TB, img picture, f dmabuf.Fourcc, yInvert bool) *dmabuf.Buffer {
	t.Helper()
	size := img.Bounds().Size()
	b, err := shmfallback.Alloc(uint32(size.X), uint32(size.Y), f, "test picture")
	if err != nil {
		t.Fatal(err)
	}
	b.YInvert = yInvert
	draw(b, img, whole(b))
	return b
}

func whole(b *dmabuf.Buffer) display.Rect { return display.Rect{W: b.Width, H: b.Height} }

// draw copies a part of img into the buffer's memory; alpha bits become 0, as
// they may in an opaque scanout.
func draw(b *dmabuf.Buffer, img picture, r display.Rect) {
	stride := b.Planes[0].Stride
	for y := r.Y; y < r.Y+r.H; y++ {
		row := y
		if b.YInvert {
			row = b.Height - 1 - y
		}
		for x := r.X; x < r.X+r.W; x++ {
			c := img.NRGBAAt(int(x), int(y))
			p := b.Mem[b.Planes[0].Offset+row*stride+x*4:]
			switch b.Fourcc.Opaque() {
			case dmabuf.XRGB8888:
				p[0], p[1], p[2], p[3] = c.B, c.G, c.R, 0
			case dmabuf.XBGR8888:
				p[0], p[1], p[2], p[3] = c.R, c.G, c.B, 0
			default:
				panic("format without a painter")
			}
		}
	}
}

// frameOf shows all of b on head 0.
func frameOf(b *dmabuf.Buffer) *display.Frame {
	return &display.Frame{Buffer: b, Source: whole(b), Damage: whole(b), Opaque: true}
}

// part returns a copy of a part of img.
func part(img picture, r display.Rect) picture {
	out := image.NewNRGBA(image.Rect(0, 0, int(r.W), int(r.H)))
	for y := range int(r.H) {
		for x := range int(r.W) {
			out.SetNRGBA(x, y, img.NRGBAAt(int(r.X)+x, int(r.Y)+y))
		}
	}
	return out
}

// paste returns a copy of img with over on it at x, y, cut at the edges.
// Transparent pixels of over are left out.
func paste(img, over picture, x, y int) picture {
	out := part(img, display.Rect{W: uint32(img.Rect.Dx()), H: uint32(img.Rect.Dy())})
	for oy := range over.Rect.Dy() {
		for ox := range over.Rect.Dx() {
			if c := over.NRGBAAt(ox, oy); c.A != 0 && image.Pt(x+ox, y+oy).In(out.Rect) {
				out.SetNRGBA(x+ox, y+oy, c)
			}
		}
	}
	return out
}

// arrow is a cursor: opaque below its diagonal, transparent above.
func arrow(n int) picture {
	img := image.NewNRGBA(image.Rect(0, 0, n, n))
	for y := range n {
		for x := range y + 1 {
			img.SetNRGBA(x, y, color.NRGBA{R: 255, G: uint8(8 * x), B: uint8(8 * y), A: 255})
		}
	}
	return img
}

// argb returns a cursor's pixels as a Cursor has them.
func argb(img picture) []byte {
	var out []byte
	for y := range img.Rect.Dy() {
		for x := range img.Rect.Dx() {
			c := img.NRGBAAt(x, y)
			out = append(out, c.B, c.G, c.R, c.A)
		}
	}
	return out
}

// cursor16 is a cursor of 16x16 pixels on head 0.
func cursor16() *display.Cursor {
	return &display.Cursor{X: 5, Y: 5, W: 16, H: 16, Pixels: argb(arrow(16))}
}
