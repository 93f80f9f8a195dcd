package apps

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"github.com/gpubroker/gpubroker/broker/link"
)

// TestSplitter: whatever pieces the bytes come in, they go out as whole messages, in
// order, within the limits.
func TestSplitter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []byte
		for _, n := range rapid.SliceOfN(rapid.SampledFrom([]int{8, 12, 100, 4096, 65532}), 1, 12).Draw(t, "messages") {
			all = append(all, message(n)...)
		}
		const limit = 70000
		var s splitter
		var got []byte
		for rest := all; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "n")
			first := rapid.SampledFrom([]int{0, 100, limit}).Draw(t, "first")
			room, items := first, true
			err := s.split(rest[:n], first, limit, func(p []byte) error {
				if whole, err := wholeMessages(p, len(p)); err != nil || whole != len(p) || len(p) > room {
					t.Fatalf("%d bytes, %d in whole messages, room %d: %v", len(p), whole, room, err)
				}
				got = append(got, p...)
				room, items = limit, false
				return nil
			}, func() bool { return items })
			if err != nil || items {
				t.Fatal(err, items)
			}
			rest = rest[n:]
		}
		if !bytes.Equal(got, all) || len(s.rest) != 0 {
			t.Fatalf("%d bytes of %d, %d left", len(got), len(all), len(s.rest))
		}
	})
}

func TestSplitterRefuses(t *testing.T) {
	for _, p := range [][]byte{{1, 0, 0, 0, 0, 0, 0, 0}, {1, 0, 0, 0, 0, 0, 7, 0}} {
		var s splitter
		if err := s.split(p, link.MaxPayload, link.MaxPayload, nil, nil); err == nil {
			t.Errorf("%x: no error", p)
		}
	}
}
