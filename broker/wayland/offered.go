package wayland

import (
	"cmp"
	"slices"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// Offered is a dma-buf layout that the compositor takes.
type Offered struct {
	Fourcc   dmabuf.Fourcc
	Modifier dmabuf.Modifier
}

// Offers lists what [Sink.Accepts] says yes to just now, by format; any goroutine.
func (s *Sink) Offers() []Offered {
	t := s.formats.Load()
	if t == nil {
		return nil
	}
	out := make([]Offered, 0, len(t.set))
	for l := range t.set {
		out = append(out, Offered{l.fourcc, l.modifier})
	}
	slices.SortFunc(out, func(a, b Offered) int {
		return cmp.Or(cmp.Compare(a.Fourcc, b.Fourcc), cmp.Compare(a.Modifier, b.Modifier))
	})
	return out
}
