package golden

import (
	"fmt"
	"image"
	"image/color"
)

// Tolerance says how far two pictures may be apart. The zero value wants them
// the same.
type Tolerance struct {
	Channel int     // largest difference of a colour channel, of 255, that is no difference
	Share   float64 // share of the pixels, 0 to 1, that may differ by more
	Alpha   bool    // compare alpha as well; by default only colours count
}

// Diff is what Compare found.
type Diff struct {
	Got, Want image.Point // sizes
	Wrong     int         // pixels that differ by more than Tolerance.Channel
	Worst     int         // largest difference of a channel
	First     image.Point // the first wrong pixel from the top left
	GotFirst  color.NRGBA // its colour
	WantFirst color.NRGBA // and what it should be
	Map       *image.NRGBA
	allowed   int
}

// OK reports whether the pictures are the same within the tolerance.
func (d *Diff) OK() bool { return d.Got == d.Want && d.Wrong <= d.allowed }

func (d *Diff) String() string {
	if d.Got != d.Want {
		return fmt.Sprintf("size is %v, want %v", d.Got, d.Want)
	}
	if d.Wrong == 0 {
		return "same"
	}
	return fmt.Sprintf("%d of %d pixels are wrong (%d allowed), worst channel by %d, first at %v: %v, want %v",
		d.Wrong, d.Want.X*d.Want.Y, d.allowed, d.Worst, d.First, d.GotFirst, d.WantFirst)
}

// Compare compares pictures pixel by pixel, wherever their bounds begin. Map is
// red where they differ and a dim copy of want elsewhere; nil for different
// sizes.
func Compare(got, want image.Image, tol Tolerance) *Diff {
	gb, wb := got.Bounds(), want.Bounds()
	d := &Diff{Got: gb.Size(), Want: wb.Size()}
	if d.Got != d.Want {
		return d
	}
	d.allowed = int(tol.Share * float64(d.Want.X*d.Want.Y))
	d.Map = image.NewNRGBA(image.Rectangle{Max: d.Want})
	for y := range d.Want.Y {
		for x := range d.Want.X {
			g := color.NRGBAModel.Convert(got.At(gb.Min.X+x, gb.Min.Y+y)).(color.NRGBA)
			w := color.NRGBAModel.Convert(want.At(wb.Min.X+x, wb.Min.Y+y)).(color.NRGBA)
			delta := max(apart(g.R, w.R), apart(g.G, w.G), apart(g.B, w.B))
			if tol.Alpha {
				delta = max(delta, apart(g.A, w.A))
			}
			d.Worst = max(d.Worst, delta)
			if delta <= tol.Channel {
				d.Map.SetNRGBA(x, y, color.NRGBA{R: w.R / 4, G: w.G / 4, B: w.B / 4, A: 255})
				continue
			}
			if d.Wrong == 0 {
				d.First, d.GotFirst, d.WantFirst = image.Pt(x, y), g, w
			}
			d.Wrong++
			d.Map.SetNRGBA(x, y, color.NRGBA{R: 255, A: 255})
		}
	}
	return d
}

func apart(a, b uint8) int {
	if a > b {
		return int(a - b)
	}
	return int(b - a)
}
