package display

import (
	"testing"

	"pgregory.net/rapid"
)

func TestBucketBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		us := rapid.Uint64Range(0, 1<<32).Draw(t, "us")
		top := bucketTop(bucketOf(us))
		if top < us || top > us+us/8+1 {
			t.Fatalf("%d µs fell into a bucket that ends at %d", us, top)
		}
	})
}

func TestQuantile(t *testing.T) {
	var h Histogram
	for i := int64(1); i <= 1000; i++ {
		h.Add(i * 1000)
	}
	for _, c := range []struct {
		q    float64
		want uint64
	}{{0.5, 500}, {0.99, 990}, {1, 1000}} {
		got := h.Quantile(c.q)
		if got < c.want || got > c.want+c.want/8+1 {
			t.Errorf("quantile %g: %d, want %d to %d", c.q, got, c.want, c.want+c.want/8+1)
		}
	}
	var empty Histogram
	if got := empty.Quantile(0.5); got != 0 {
		t.Errorf("quantile of nothing: %d", got)
	}
}

func TestDistribution(t *testing.T) {
	var h Histogram
	want := map[uint64]uint64{}
	var sum uint64
	for _, us := range []uint64{0, 1, 63, 64, 65, 127, 128, 1000, 1023, 1024, 16_666, 1 << 20, 1<<21 - 1, 1 << 21, 1 << 30} {
		h.Add(int64(us) * 1000)
		sum += us
		for o := uint64(64); o <= 1<<21; o *= 2 {
			if us < o {
				want[o]++
			}
		}
	}
	d := h.Distribution()
	if d.Count != 15 || d.Sum != sum || len(d.Below) != 16 {
		t.Errorf("%d in all, sum %d (want %d), %d octaves", d.Count, d.Sum, sum, len(d.Below))
	}
	for _, o := range d.Below {
		if o.Count != want[o.Micros] {
			t.Errorf("%d below %d µs, want %d", o.Count, o.Micros, want[o.Micros])
		}
	}
}
