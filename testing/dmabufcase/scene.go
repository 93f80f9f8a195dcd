package dmabufcase

import (
	"image"

	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

// scene is what a guest draws on a w × h target, in pixels with y 0 at the top.
// Each operation is put to the CPU's reference and to the GPU's vertices by its
// own arithmetic, so that one checks the other.
type scene struct {
	w, h     int
	ref      *reference // nil if nobody is going to look
	vertices []virglcmd.Vertex
}

func newScene(ref *reference) *scene { return &scene{w: ref.W, h: ref.H, ref: ref} }

// clip returns window coordinates in pixels as clip coordinates.
func (s *scene) clip(x, y float64) [4]float32 {
	return [4]float32{float32(2*x/float64(s.w) - 1), float32(2*y/float64(s.h) - 1), 0, 1}
}

// quad adds two triangles; the colour is given at the four corners, in 0 to 255:
// top left, top right, bottom left, bottom right.
func (s *scene) quad(r image.Rectangle, c [4][3]float64) {
	corner := func(x, y int, c [3]float64) virglcmd.Vertex {
		return virglcmd.Vertex{Position: s.clip(float64(x), float64(y)), Color: unit(c)}
	}
	tl, tr := corner(r.Min.X, r.Min.Y, c[0]), corner(r.Max.X, r.Min.Y, c[1])
	bl, br := corner(r.Min.X, r.Max.Y, c[2]), corner(r.Max.X, r.Max.Y, c[3])
	s.vertices = append(s.vertices, tl, tr, bl, bl, tr, br)
}

// unit turns components of 0 to 255 into 0 to 1, with an alpha that an opaque
// scanout has to ignore.
func unit(c [3]float64) [4]float32 {
	return [4]float32{float32(c[0] / 255), float32(c[1] / 255), float32(c[2] / 255), 0.25}
}

// rect fills a rectangle, as far as it is inside, with one colour.
func (s *scene) rect(r image.Rectangle, c rgba) {
	r = r.Intersect(image.Rect(0, 0, s.w, s.h))
	if r.Empty() {
		return
	}
	v := [3]float64{float64(c.r), float64(c.g), float64(c.b)}
	s.quad(r, [4][3]float64{v, v, v, v})
	if s.ref != nil {
		s.ref.fill(r, c)
	}
}

// gradients covers the target with tiles of up to 256 × 256 pixels in which red
// grows by one from column to column and green from row to row. The corners lie
// half a step outside, so every pixel's centre has a value that 8 bits hold
// exactly: there is nothing to round.
func (s *scene) gradients() {
	const tile = 256
	for ty := 0; ty < s.h; ty += tile {
		for tx := 0; tx < s.w; tx += tile {
			r := image.Rect(tx, ty, min(tx+tile, s.w), min(ty+tile, s.h))
			blue := uint8((tx/tile*50 + ty/tile*90 + 20) & 255)
			left, right := -0.5, float64(r.Dx())-0.5
			top, bottom := -0.5, float64(r.Dy())-0.5
			b := float64(blue)
			s.quad(r, [4][3]float64{{left, top, b}, {right, top, b}, {left, bottom, b}, {right, bottom, b}})
			for y := r.Min.Y; y < r.Max.Y; y++ {
				for x := r.Min.X; x < r.Max.X; x++ {
					s.ref.set(x, y, rgba{uint8(x - tx), uint8(y - ty), blue, 255})
				}
			}
		}
	}
}

// sub is a position in 256ths of a pixel, the grid to which GPUs snap vertices.
type sub struct{ x, y int64 }

// triangle draws a triangle with a colour in each corner. Which pixels it covers
// is exact; colours may be off by one, as GPUs differ in the last bit. No pixel's
// centre may lie on an edge: then the fill rule of the GPU would decide. The corners
// are inside the target.
func (s *scene) triangle(p [3]sub, c [3][3]float64) {
	for i := range p {
		s.vertices = append(s.vertices, virglcmd.Vertex{
			Position: s.clip(float64(p[i].x)/256, float64(p[i].y)/256), Color: unit(c[i]),
		})
	}
	area := edge(p[0], p[1], p[2])
	low := sub{min(p[0].x, p[1].x, p[2].x), min(p[0].y, p[1].y, p[2].y)}
	high := sub{max(p[0].x, p[1].x, p[2].x), max(p[0].y, p[1].y, p[2].y)}
	for y := int(low.y / 256); y <= int(high.y/256); y++ {
		for x := int(low.x / 256); x <= int(high.x/256); x++ {
			at := sub{int64(x)*256 + 128, int64(y)*256 + 128}
			w0, w1, w2 := edge(p[1], p[2], at), edge(p[2], p[0], at), edge(p[0], p[1], at)
			if area < 0 {
				w0, w1, w2 = -w0, -w1, -w2
			}
			if w0 == 0 || w1 == 0 || w2 == 0 {
				panic("dmabufcase: an edge of the triangle passes a pixel's centre")
			}
			if w0 < 0 || w1 < 0 || w2 < 0 {
				continue
			}
			total := float64(w0 + w1 + w2)
			f0, f1, f2 := float64(w0)/total, float64(w1)/total, float64(w2)/total
			var v [3]uint8
			for i := range v {
				v[i] = uint8(c[0][i]*f0 + c[1][i]*f1 + c[2][i]*f2 + 0.5)
			}
			s.ref.set(x, y, rgba{v[0], v[1], v[2], 255})
			s.ref.soften(x, y)
		}
	}
}

// edge is twice the signed area of the triangle a, b, c.
func edge(a, b, c sub) int64 { return (b.x-a.x)*(c.y-a.y) - (b.y-a.y)*(c.x-a.x) }

// corners marks the four corners with different colours, so that a picture that
// is mirrored, turned over or shifted is not mistaken for the right one.
func (s *scene) corners() {
	n := max(1, min(s.w, s.h)/8)
	s.rect(image.Rect(0, 0, n, n), rgba{255, 255, 255, 255})
	s.rect(image.Rect(s.w-n, 0, s.w, n), rgba{255, 0, 0, 255})
	s.rect(image.Rect(0, s.h-n, n, s.h), rgba{0, 255, 0, 255})
	s.rect(image.Rect(s.w-n, s.h-n, s.w, s.h), rgba{0, 0, 255, 255})
}

// composite draws everything: gradients, a triangle where there is room, corners.
func (s *scene) composite() {
	s.gradients()
	if s.w >= 32 && s.h >= 32 {
		w, h := int64(s.w)*256, int64(s.h)*256
		// 91 and 37 are odd and not multiples of 128, so edges miss the centres;
		// triangle checks it.
		s.triangle([3]sub{{w/2 + 91, h/8 + 37}, {w/8 + 37, h*3/4 + 91}, {w*7/8 + 11, h*5/8 + 53}},
			[3][3]float64{{250, 10, 30}, {20, 240, 60}, {40, 70, 230}})
	}
	s.corners()
}
