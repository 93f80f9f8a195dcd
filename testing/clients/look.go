package clients

import (
	"errors"
	"fmt"
	"image"
	"math"
	"slices"

	"github.com/gpubroker/gpubroker/testing/westoncap"
)

// gridW and gridH are the numbers of cells into which an output is divided for
// Apart.
const (
	gridW = 20
	gridH = 15
)

// cells are the mean colours of a picture's cells, row by row.
type cells [gridW * gridH][3]float64

// Look is what a compositor showed of one client over several pictures.
type Look struct {
	Frame   image.Rectangle // holds all pixels that were not as without a window, in any picture
	Colours int             // most different colours in one picture, counted up to maxColours
	Changes int             // pictures that differ from the one before
	Last    *westoncap.Picture

	empty *westoncap.Picture
	parts []*cells // of each picture
}

const maxColours = 1024

// NewLook returns one without pictures; empty is the output without windows.
func NewLook(empty *westoncap.Picture) *Look { return &Look{empty: empty} }

// Add takes the next picture.
func (l *Look) Add(p *westoncap.Picture) error {
	if p.W != l.empty.W || p.H != l.empty.H {
		return fmt.Errorf("a picture of %dx%d after one of %dx%d", p.W, p.H, l.empty.W, l.empty.H)
	}
	if l.Last != nil && !slices.Equal(l.Last.Pix, p.Pix) {
		l.Changes++
	}
	seen := map[uint32]bool{}
	parts := &cells{}
	for y := range p.H {
		row, empty := p.Pix[y*p.W:(y+1)*p.W], l.empty.Pix[y*p.W:(y+1)*p.W]
		first, last := p.W, 0
		for x, c := range row {
			if c != empty[x] {
				first, last = min(first, x), x+1
			}
			if len(seen) < maxColours && (x == 0 || row[x-1] != c) {
				seen[c] = true
			}
			cell := &parts[y*gridH/p.H*gridW+x*gridW/p.W]
			cell[0] += float64(c >> 16 & 0xff)
			cell[1] += float64(c >> 8 & 0xff)
			cell[2] += float64(c & 0xff)
		}
		l.Frame = l.Frame.Union(image.Rect(first, y, max(first, last), y+1))
	}
	pixels := float64(p.W*p.H) / (gridW * gridH)
	for i := range parts {
		for ch := range parts[i] {
			parts[i][ch] /= pixels
		}
	}
	l.parts = append(l.parts, parts)
	l.Colours = max(l.Colours, len(seen))
	l.Last = p
	return nil
}

// Empty reports whether no window was seen.
func (l *Look) Empty() bool { return l.Frame.Empty() }

// Apart returns how much the pictures of l differ from those of want that are most
// like them, the median of all: a picture's distance from another is the root of
// the mean square of the differences of its cells' colours, of 255.
func (l *Look) Apart(want *Look) float64 {
	frame := l.Frame.Union(want.Frame)
	var in []int
	for i := range gridW * gridH {
		x, y := i%gridW, i/gridW
		cell := image.Rect(x*l.Last.W/gridW, y*l.Last.H/gridH, (x+1)*l.Last.W/gridW, (y+1)*l.Last.H/gridH)
		if cell.Overlaps(frame) {
			in = append(in, i)
		}
	}
	var nearest []float64
	for _, a := range l.parts {
		best := math.Inf(1)
		for _, b := range want.parts {
			best = min(best, distance(a, b, in))
		}
		nearest = append(nearest, best)
	}
	slices.Sort(nearest)
	return nearest[len(nearest)/2]
}

func distance(a, b *cells, in []int) float64 {
	var sum float64
	for _, i := range in {
		for ch := range a[i] {
			d := a[i][ch] - b[i][ch]
			sum += d * d
		}
	}
	return math.Sqrt(sum / float64(3*len(in)))
}

// frameSlack is how far the edges of a moving client's window may be off: what
// moves may not have touched the edge in a few pictures.
const frameSlack = 4

// Same says what is wrong with got, of a client whose direct look is want, or how
// alike they are.
func (c *Case) Same(got, want *Look) (how string, err error) {
	switch {
	case want.Empty():
		return "", errors.New("the direct run showed nothing")
	case got.Empty():
		return "", errors.New("no window came")
	case c.Kind == Still:
		return c.samePixels(got.Last, want.Last)
	case c.far(got.Frame, want.Frame):
		return "", fmt.Errorf("the window is at %v, directly at %v", got.Frame, want.Frame)
	case c.Kind == Moves && want.Changes > 0 && got.Changes == 0:
		return "", errors.New("the window stands still, directly it moves")
	case got.Colours < want.Colours/2:
		return "", fmt.Errorf("the window has %d colours, directly %d", got.Colours, want.Colours)
	}
	limit := c.Apart
	if limit == 0 {
		limit = defaultApart
	}
	d := got.Apart(want)
	if d > limit {
		return "", fmt.Errorf("the window differs by %.1f of 255 on average, %.1f may be", d, limit)
	}
	return fmt.Sprintf("moves, apart by %.1f of 255", d), nil
}

func (c *Case) far(a, b image.Rectangle) bool {
	slack := max(c.Slack, frameSlack)
	for _, d := range []int{a.Min.X - b.Min.X, a.Min.Y - b.Min.Y, a.Max.X - b.Max.X, a.Max.Y - b.Max.Y} {
		if d > slack || d < -slack {
			return true
		}
	}
	return false
}

// samePixels compares two pictures pixel by pixel.
func (c *Case) samePixels(got, want *westoncap.Picture) (how string, err error) {
	if got.W != want.W || got.H != want.H {
		return "", fmt.Errorf("the output has %dx%d pixels, not %dx%d", got.W, got.H, want.W, want.H)
	}
	wrong, worst, first := 0, 0, -1
	for i := range got.Pix {
		if d := apart(got.Pix[i], want.Pix[i]); d > c.Channel {
			if first < 0 {
				first = i
			}
			wrong++
			worst = max(worst, d)
		}
	}
	if allowed := int(c.Share * float64(len(got.Pix))); wrong > allowed {
		return "", fmt.Errorf("%d pixels differ from the direct run (%d may), by up to %d, first at %d,%d: %06x, not %06x",
			wrong, allowed, worst, first%got.W, first/got.W, got.Pix[first], want.Pix[first])
	}
	if wrong > 0 || c.Channel > 0 {
		return fmt.Sprintf("%d pixels off by more than %d", wrong, c.Channel), nil
	}
	return "same pixels", nil
}

// apart is the largest difference of two colours' channels.
func apart(a, b uint32) int {
	worst := 0
	for shift := 0; shift < 24; shift += 8 {
		d := int(a>>shift&0xff) - int(b>>shift&0xff)
		worst = max(worst, d, -d)
	}
	return worst
}
