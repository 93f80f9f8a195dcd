package display

import (
	"math/bits"
	"sync/atomic"
)

// Histogram counts durations in buckets that grow by an eighth, from 1 µs to
// over an hour. Adding is wait-free and allocates nothing.
type Histogram struct {
	buckets [8 * 34]atomic.Uint64
	count   atomic.Uint64
	sum     atomic.Uint64 // µs
}

// Add records a duration in nanoseconds.
func (h *Histogram) Add(ns int64) {
	us := uint64(max(ns, 0)) / 1000
	i := bucketOf(us)
	h.buckets[i].Add(1)
	h.count.Add(1)
	h.sum.Add(us)
}

// Distribution is a Histogram by octaves, at one time.
type Distribution struct {
	Below []Octave // upwards
	Count uint64   // in all
	Sum   uint64   // µs
}

// Octave counts the durations below a power of two.
type Octave struct {
	Micros uint64
	Count  uint64 // with those of the octaves before
}

// Bounds of Distribution, as powers of two: 64 µs to 2 s.
const (
	firstOctave = 6
	lastOctave  = 21
)

// Distribution counts by octaves; it is exact. Durations that are added meanwhile may
// count or not.
func (h *Histogram) Distribution() Distribution {
	d := Distribution{Sum: h.sum.Load()}
	next := firstOctave
	for i := range h.buckets {
		for ; next <= lastOctave && bucketTop(i) >= 1<<next; next++ {
			d.Below = append(d.Below, Octave{1 << next, d.Count})
		}
		d.Count += h.buckets[i].Load()
	}
	return d
}

// bucketOf gives small values a bucket each and larger ones eight an octave.
func bucketOf(us uint64) int {
	if us < 8 {
		return int(us)
	}
	exp := bits.Len64(us) - 4 // us>>exp is in 8..15
	return min(8+exp*8+int(us>>exp)-8, 8*34-1)
}

func bucketTop(i int) uint64 {
	if i < 8 {
		return uint64(i)
	}
	exp, mant := (i-8)/8, (i-8)%8+8
	return uint64(mant+1)<<exp - 1
}

// Count returns how many durations were added.
func (h *Histogram) Count() uint64 { return h.count.Load() }

// Quantile returns an upper bound, in microseconds, of the q-th quantile
// (0 < q ≤ 1), at most an eighth too large; 0 when empty.
func (h *Histogram) Quantile(q float64) uint64 {
	n := h.count.Load()
	if n == 0 {
		return 0
	}
	want := max(uint64(q*float64(n)+0.999999), 1)
	var seen uint64
	for i := range h.buckets {
		seen += h.buckets[i].Load()
		if seen >= want {
			return bucketTop(i)
		}
	}
	return bucketTop(len(h.buckets) - 1)
}
