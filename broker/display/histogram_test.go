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
