package golden

import (
	"image"
	"image/color"
	"path/filepath"
	"strings"
	"testing"
)

func picture(at image.Point, c color.NRGBA) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, 8, 4))
	for y := range 4 {
		for x := range 8 {
			img.SetNRGBA(x, y, color.NRGBA{R: 10, G: 20, B: 30, A: 255})
		}
	}
	img.SetNRGBA(at.X, at.Y, c)
	return img
}

func TestCompare(t *testing.T) {
	base := picture(image.Pt(3, 2), color.NRGBA{R: 10, G: 20, B: 30, A: 255})
	near := picture(image.Pt(3, 2), color.NRGBA{R: 13, G: 20, B: 28, A: 255})
	clear := picture(image.Pt(3, 2), color.NRGBA{R: 10, G: 20, B: 30, A: 200})
	for _, tc := range []struct {
		name  string
		got   image.Image
		tol   Tolerance
		ok    bool
		wrong int
	}{
		{"same", base, Tolerance{}, true, 0},
		{"three off, none allowed", near, Tolerance{}, false, 1},
		{"three off, two allowed", near, Tolerance{Channel: 2}, false, 1},
		{"three off, three allowed", near, Tolerance{Channel: 3}, true, 0},
		{"one pixel of 32 allowed", near, Tolerance{Share: 1.0 / 32}, true, 1},
		{"less than one pixel allowed", near, Tolerance{Share: 0.9 / 32}, false, 1},
		{"alpha counts", clear, Tolerance{Alpha: true}, false, 1},
		{"alpha does not count", clear, Tolerance{}, true, 0},
		{"part of a picture", base.SubImage(image.Rect(0, 0, 8, 3)), Tolerance{Share: 1}, false, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := Compare(tc.got, base, tc.tol)
			if d.OK() != tc.ok || d.Wrong != tc.wrong {
				t.Errorf("OK %v, %d wrong, want %v, %d: %v", d.OK(), d.Wrong, tc.ok, tc.wrong, d)
			}
		})
	}
	d := Compare(near, base, Tolerance{})
	if d.First != image.Pt(3, 2) || d.Worst != 3 || d.Map.NRGBAAt(3, 2) != (color.NRGBA{R: 255, A: 255}) {
		t.Errorf("first %v, worst %d, map %v", d.First, d.Worst, d.Map.NRGBAAt(3, 2))
	}
	if !strings.Contains(d.String(), "1 of 32 pixels") {
		t.Errorf("String() = %q", d)
	}
}

func TestPNGRoundTrip(t *testing.T) {
	img := picture(image.Pt(7, 3), color.NRGBA{R: 255, A: 255})
	path := filepath.Join(t.TempDir(), "a.png")
	if err := WritePNG(path, img); err != nil {
		t.Fatal(err)
	}
	got, err := ReadPNG(path)
	if err != nil {
		t.Fatal(err)
	}
	Equal(t, "round-trip", got, img, Tolerance{Alpha: true})
	if d := Compare(got, picture(image.Pt(0, 0), color.NRGBA{}), Tolerance{}); d.Wrong != 2 {
		t.Errorf("compared with another picture: %v", d)
	}
}
