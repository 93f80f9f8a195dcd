package report

import (
	"fmt"
	"slices"
)

// Spread is a number over the repetitions of a measurement.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// NewSpread looks at the numbers, at least one, in any order.
func NewSpread(v []float64) Spread {
	s := slices.Sorted(slices.Values(v))
	return Spread{(s[(len(s)-1)/2] + s[len(s)/2]) / 2, s[0], s[len(s)-1]}
}

func (s Spread) String() string { return fmt.Sprintf("%.2f (%.2f–%.2f)", s.Median, s.Min, s.Max) }
