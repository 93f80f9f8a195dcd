package clients

import (
	"math"
	"testing"

	"github.com/gpubroker/gpubroker/testing/westoncap"
)

// turning is a picture of a wheel in three colours at an angle.
func turning(angle float64, change func(c uint32, x, y int) uint32) *westoncap.Picture {
	p := westoncap.NewPicture(200, 150)
	for y := range 100 {
		for x := range 100 {
			dx, dy := float64(x-50), float64(y-50)
			if dx*dx+dy*dy > 2500 {
				continue
			}
			third := int(math.Floor((math.Atan2(dy, dx)+angle)/(2*math.Pi)*3)+30) % 3
			c := [3]uint32{0xff0000, 0x00ff00, 0x3030ff}[third]
			c -= uint32(x) // many colours
			if change != nil {
				c = change(c, x, y)
			}
			p.Pix[(y+20)*p.W+x+40] = c
		}
	}
	return p
}

func wheel(t *testing.T, from float64, n int, step float64, change func(c uint32, x, y int) uint32) *Look {
	t.Helper()
	l := NewLook(westoncap.NewPicture(200, 150))
	for i := range n {
		if err := l.Add(turning(from+float64(i)*step, change)); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// TestSame: what moves is the same at any moment, and what is wrong with it is seen.
func TestSame(t *testing.T) {
	moves := &Case{Name: "wheel"}
	want := wheel(t, 0, 30, 0.21, nil)
	if how, err := moves.Same(wheel(t, 1.03, 8, 0.17, nil), want); err != nil {
		t.Errorf("the same wheel later: %v", err)
	} else {
		t.Log(how)
	}
	for name, got := range map[string]*Look{
		"red and blue swapped": wheel(t, 1, 8, 0.17, func(c uint32, _, _ int) uint32 { return c>>16&0xff | c&0xff00 | c&0xff<<16 }),
		"a quarter missing":    wheel(t, 1, 8, 0.17, func(c uint32, x, y int) uint32 { return c * uint32(min(1, x/50+y/50)) }),
		"standing still":       wheel(t, 1, 8, 0, nil),
		"one colour":           wheel(t, 1, 8, 0.17, func(uint32, int, int) uint32 { return 0x555555 }),
		"nothing":              wheel(t, 1, 8, 0.17, func(uint32, int, int) uint32 { return 0 }),
		"half the height":      wheel(t, 1, 8, 0.17, func(c uint32, _, y int) uint32 { return c * uint32(1-y/50) }),
	} {
		if how, err := moves.Same(got, want); err == nil {
			t.Errorf("%s: the same (%s)", name, how)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
	still := &Case{Name: "still", Kind: Still}
	if _, err := still.Same(wheel(t, 0.5, 1, 0, nil), wheel(t, 0.5, 3, 0, nil)); err != nil {
		t.Errorf("the same picture: %v", err)
	}
	if _, err := still.Same(wheel(t, 0.51, 1, 0, nil), wheel(t, 0.5, 3, 0, nil)); err == nil {
		t.Error("pictures at other angles are the same")
	}
}

// TestNumbers: what `seq 9 100 | head -c 6 | sha256sum` says.
func TestNumbers(t *testing.T) {
	const want = "3d0e4f5ab4d3e69d8f306f1d4a22ba01d7b9c8c255593eabe9ccc8755506ec8b"
	if got := numbers(9, 6); got != want {
		t.Errorf("checksum %s, want %s", got, want)
	}
}
