package proxy

import (
	"math"
	"testing"
)

// TestDamage: what a commit changes of a buffer of 100x50.
func TestDamage(t *testing.T) {
	whole := box{0, 0, 100, 50}
	for name, k := range map[string]struct {
		do   func(s *surface)
		want box
	}{
		"nothing said":       {func(*surface) {}, whole},
		"buffer":             {func(s *surface) { s.onBuffer.add(1, 2, 3, 4) }, box{1, 2, 4, 6}},
		"surface":            {func(s *surface) { s.onSurface.add(1, 2, 3, 4) }, box{1, 2, 4, 6}},
		"both":               {func(s *surface) { s.onSurface.add(1, 2, 3, 4); s.onBuffer.add(50, 40, 1, 1) }, box{1, 2, 51, 41}},
		"clipped":            {func(s *surface) { s.onBuffer.add(-5, -5, 10, 10); s.onBuffer.add(90, 45, 100, 100) }, whole},
		"clipped corner":     {func(s *surface) { s.onBuffer.add(-5, -5, 10, 10) }, box{0, 0, 5, 5}},
		"outside":            {func(s *surface) { s.onBuffer.add(200, 200, 10, 10) }, whole},
		"the largest":        {func(s *surface) { s.onSurface.add(0, 0, math.MaxInt32, math.MaxInt32) }, whole},
		"overflowing":        {func(s *surface) { s.onSurface.add(math.MaxInt32, 0, math.MaxInt32, 1) }, whole},
		"negative size":      {func(s *surface) { s.onBuffer.add(10, 10, -5, 5) }, whole},
		"scale":              {func(s *surface) { s.scale = 2; s.onSurface.add(1, 2, 3, 4) }, box{2, 4, 8, 12}},
		"scale, buffer":      {func(s *surface) { s.scale = 2; s.onBuffer.add(1, 2, 3, 4) }, box{1, 2, 4, 6}},
		"scale 0":            {func(s *surface) { s.scale = 0; s.onSurface.add(1, 2, 3, 4) }, whole},
		"transform":          {func(s *surface) { s.transform = 1; s.onSurface.add(1, 2, 3, 4) }, whole},
		"transform, buffer":  {func(s *surface) { s.transform = 1; s.onBuffer.add(1, 2, 3, 4) }, box{1, 2, 4, 6}},
		"viewport":           {func(s *surface) { s.viewport = true; s.onSurface.add(1, 2, 3, 4) }, whole},
		"two parts, a union": {func(s *surface) { s.onBuffer.add(0, 0, 1, 1); s.onBuffer.add(9, 9, 1, 1) }, box{0, 0, 10, 10}},
	} {
		s := &surface{scale: 1}
		k.do(s)
		if got := s.damage(&buffer{w: 100, h: 50}); got != k.want {
			t.Errorf("%s: %v, want %v", name, got, k.want)
		}
	}
}
