package virgl

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

// colorFormats are formats with the bytes of one texel of red 1, green 0.5019608,
// blue 0.2509804, alpha 1 (255, 128, 64, 255).
var colorFormats = []struct {
	name   string
	format uint32
	texel  []byte
	mask   []byte // bytes with a defined value
}{
	{"B8G8R8A8", virglcmd.FormatB8G8R8A8, []byte{64, 128, 255, 255}, []byte{255, 255, 255, 255}},
	{"B8G8R8X8", virglcmd.FormatB8G8R8X8, []byte{64, 128, 255, 0}, []byte{255, 255, 255, 0}},
	{"R8G8B8A8", virglcmd.FormatR8G8B8A8, []byte{255, 128, 64, 255}, []byte{255, 255, 255, 255}},
	{"R8G8B8X8", virglcmd.FormatR8G8B8X8, []byte{255, 128, 64, 0}, []byte{255, 255, 255, 0}},
	{"B5G6R5", virglcmd.FormatB5G6R5, []byte{0x08, 0xfc}, []byte{255, 255}},
	{"R10G10B10A2", virglcmd.FormatR10G10B10A2, []byte{0xff, 0x0b, 0x18, 0xd0}, []byte{0xff, 0xff, 0xff, 0xff}},
}

var testColor = [4]float32{1, 128.0 / 255, 64.0 / 255, 1}

func checkTexels(t *testing.T, got, texel, mask []byte, w uint32) {
	t.Helper()
	n := len(texel)
	for i := 0; i+n <= len(got); i += n {
		for j := range texel {
			if (got[i+j]^texel[j])&mask[j] != 0 {
				at := uint32(i / n)
				t.Fatalf("texel %d,%d is % x, want % x (mask % x)", at%w, at/w, got[i:i+n], texel, mask)
			}
		}
	}
}

func TestClear(t *testing.T) {
	onThread(t, nil, func(r *renderer) {
		g := newGuest(t, r, 1)
		id := uint32(1)
		for _, f := range colorFormats {
			for _, size := range [][2]uint32{{64, 64}, {1, 1}, {33, 7}, {641, 479}, {1920, 1080}} {
				id++
				name := fmt.Sprintf("%s %dx%d", f.name, size[0], size[1])
				g.target(id, f.format, size[0], size[1], 0)
				g.clear(id, f.format, testColor)
				got := g.read(id, size[0], size[1], uint32(len(f.texel)))
				t.Run(name, func(t *testing.T) { checkTexels(t, got, f.texel, f.mask, size[0]) })
				r.UnrefResource(id)
			}
		}
	})
}

// TestTriangle draws a triangle whose slanted edge passes no texel centre, so that
// exactly the texels with x + y < 64 - 1 are inside.
func TestTriangle(t *testing.T) {
	const size = 64
	onThread(t, nil, func(r *renderer) {
		g := newGuest(t, r, 1)
		g.target(1, virglcmd.FormatB8G8R8A8, size, size, 0)
		g.clear(1, virglcmd.FormatB8G8R8A8, [4]float32{0, 0, 0, 1})
		red := [4]float32{1, 0, 0, 1}
		const end = 1 - 1.0/size // half a texel short of the corner
		g.draw(1, virglcmd.FormatB8G8R8A8, size, size, virglcmd.FragmentShader, virglcmd.Triangles, []virglcmd.Vertex{
			{Position: [4]float32{-1, -1, 0, 1}, Color: red},
			{Position: [4]float32{end, -1, 0, 1}, Color: red},
			{Position: [4]float32{-1, end, 0, 1}, Color: red},
		})
		got := g.read(1, size, size, 4)
		for y := range size {
			for x := range size {
				want := []byte{0, 0, 0, 255}
				if x+y < size-1 {
					want = []byte{0, 0, 255, 255}
				}
				if p := got[4*(y*size+x):][:4]; !bytes.Equal(p, want) {
					t.Fatalf("texel %d,%d is % x, want % x", x, y, p, want)
				}
			}
		}
	})
}

// TestGradient draws a gradient whose value at every texel centre is exact in 8
// bits: 256 texels from -0.5/255 to 255.5/255.
func TestGradient(t *testing.T) {
	const w, h = 256, 5
	onThread(t, nil, func(r *renderer) {
		g := newGuest(t, r, 1)
		g.target(1, virglcmd.FormatR8G8B8A8, w, h, 0)
		left := [4]float32{-0.5 / 255, 1, 255.5 / 255, 1}
		right := [4]float32{255.5 / 255, 1, -0.5 / 255, 1}
		g.draw(1, virglcmd.FormatR8G8B8A8, w, h, virglcmd.FragmentShader, virglcmd.TriangleStrip, virglcmd.Quad(left, right))
		got := g.read(1, w, h, 4)
		for y := range h {
			for x := range w {
				want := []byte{byte(x), 255, byte(255 - x), 255}
				if p := got[4*(y*w+x):][:4]; !bytes.Equal(p, want) {
					t.Fatalf("texel %d,%d is % x, want % x", x, y, p, want)
				}
			}
		}
	})
}

// TestReadRectangle reads a part of a picture into rows that are longer than it.
func TestReadRectangle(t *testing.T) {
	const w, h, stride = 20, 10, 100
	onThread(t, nil, func(r *renderer) {
		g := newGuest(t, r, 1)
		g.target(1, virglcmd.FormatB8G8R8A8, 256, 64, 0)
		left := [4]float32{-0.5 / 255, 0, 0, 1}
		right := [4]float32{255.5 / 255, 0, 0, 1}
		g.draw(1, virglcmd.FormatB8G8R8A8, 256, 64, virglcmd.FragmentShader, virglcmd.TriangleStrip, virglcmd.Quad(left, right))
		dst := bytes.Repeat([]byte{0xee}, stride*h)
		if err := r.ReadPixels(1, 31, 17, w, h, stride, dst); err != nil {
			t.Fatal(err)
		}
		for y := range h {
			row := dst[y*stride:][:stride]
			for x := range w {
				if want := []byte{0, 0, byte(31 + x), 255}; !bytes.Equal(row[4*x:][:4], want) {
					t.Fatalf("texel %d,%d is % x, want % x", x, y, row[4*x:][:4], want)
				}
			}
			for i, c := range row[4*w:] {
				if c != 0xee {
					t.Fatalf("row %d: byte %d past the rectangle was written", y, i)
				}
			}
		}
	})
}

// pattern fills a picture with bytes that differ from texel to texel.
func pattern(w, h uint32) []byte {
	p := make([]byte, 0, 4*w*h)
	for y := range h {
		for x := range w {
			p = append(p, byte(x), byte(y), byte(x*y), 255)
		}
	}
	return p
}

// TestTransfer writes a picture from scattered backing, reads it with ReadPixels
// and back into other backing. A resource with FlagY0Top gives the same result: the
// library turns it over both ways.
func TestTransfer(t *testing.T) {
	const w, h = 37, 23
	for _, flags := range []uint32{0, FlagY0Top} {
		onThread(t, nil, func(r *renderer) {
			g := newGuest(t, r, 1)
			g.target(5, virglcmd.FormatB8G8R8A8, w, h, flags)
			want := pattern(w, h)
			src := bytes.Clone(want)
			if err := r.AttachBacking(5, [][]byte{src[:100], src[100:101], src[101:2000], src[2000:]}); err != nil {
				t.Fatal(err)
			}
			all := Transfer{Resource: 5, Box: Box{W: w, H: h, D: 1}}
			if err := r.TransferToHost(&all); err != nil {
				t.Fatal(err)
			}
			if got := g.read(5, w, h, 4); !bytes.Equal(got, want) {
				t.Errorf("flags %d: ReadPixels differs from what was written", flags)
			}

			part := Transfer{Resource: 5, Ctx: 1, Stride: 4 * w, Offset: 4 * (3*w + 2), Box: Box{X: 2, Y: 3, W: 5, H: 4, D: 1}}
			for y := range uint32(4) {
				for x := range uint32(5) {
					at := 4 * ((3+y)*w + 2 + x)
					copy(src[at:], []byte{1, 2, 3, 255})
					copy(want[at:], []byte{1, 2, 3, 255})
				}
			}
			if err := r.TransferToHost(&part); err != nil {
				t.Fatal(err)
			}
			if got := g.read(5, w, h, 4); !bytes.Equal(got, want) {
				t.Errorf("flags %d: ReadPixels differs after a partial transfer", flags)
			}

			r.DetachBacking(5)
			back := make([]byte, len(want))
			if err := r.AttachBacking(5, [][]byte{back[:1], back[1:]}); err != nil {
				t.Fatal(err)
			}
			if err := r.TransferFromHost(&all); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(back, want) {
				t.Errorf("flags %d: TransferFromHost differs from what was written", flags)
			}
		})
	}
}

// TestOtherContextBetween: a context that was used last goes on drawing after another was
// made or has ended: the library leaves the other's GL context current, in which the first
// has none of its state.
func TestOtherContextBetween(t *testing.T) {
	const size = 16
	for name, between := range map[string]func(*testing.T, *renderer){
		"nothing": func(*testing.T, *renderer) {},
		"made": func(t *testing.T, r *renderer) {
			if err := r.CreateContext(2, 0, "other"); err != nil {
				t.Fatal(err)
			}
		},
		"ended": func(_ *testing.T, r *renderer) { r.DestroyContext(3) },
	} {
		t.Run(name, func(t *testing.T) {
			onThread(t, nil, func(r *renderer) {
				if err := r.CreateContext(3, 0, "third"); err != nil {
					t.Fatal(err)
				}
				g := newGuest(t, r, 1)
				g.target(1, virglcmd.FormatB8G8R8A8, size, size, 0)
				red, blue := [4]float32{1, 0, 0, 1}, [4]float32{0, 0, 1, 1}
				g.draw(1, virglcmd.FormatB8G8R8A8, size, size, virglcmd.FragmentShader, virglcmd.TriangleStrip, virglcmd.Quad(red, red))
				between(t, r)
				data := virglcmd.AppendVertices(nil, virglcmd.Quad(blue, blue)...)
				g.b.InlineWrite(g.vertices, 0, virglcmd.Box{W: uint32(len(data)), H: 1, D: 1}, 0, data)
				g.b.Draw(virglcmd.TriangleStrip, 0, 4)
				g.submit()
				if p := g.read(1, size, size, 4)[:4]; !bytes.Equal(p, []byte{255, 0, 0, 255}) {
					t.Errorf("texel % x, want blue", p)
				}
			})
		})
	}
}
