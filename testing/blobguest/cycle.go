package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"time"
)

// cycleReport is what cycle prints.
type cycleReport struct {
	Cycles int    `json:"cycles"`
	Bytes  uint64 `json:"bytes"` // mapped in all
}

// maxLive is how many blobs exist at a time.
const maxLive = 8

// cycle makes n host blobs of random sizes, maps, writes and reads each, and lets
// them go in random order, a few alive at a time.
func cycle(n int, seed uint64, out io.Writer) error {
	c, err := openCard("/dev/dri/card0")
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	rep := cycleReport{}
	var live []*buffer
	drop := func() error {
		i := rng.IntN(len(live))
		b := live[i]
		if want := mark(b); !bytes.Equal(b.mem[:len(want)], want) || !bytes.Equal(b.mem[len(b.mem)-len(want):], want) {
			return fmt.Errorf("blob %d changed: % x … % x, want % x", b.res, b.mem[:8], b.mem[len(b.mem)-8:], want)
		}
		live[i] = live[len(live)-1]
		live = live[:len(live)-1]
		return c.free(b)
	}
	for rep.Cycles < n {
		if len(live) == maxLive || len(live) > 0 && rng.IntN(2) == 0 {
			if err := drop(); err != nil {
				return err
			}
			continue
		}
		b := &buffer{kind: kindHost, size: uint64(1+rng.IntN(64)) * page}
		if err := c.blob(b, memHost3D, flagMappable, 0, nil); err != nil {
			return fmt.Errorf("cycle %d: %w", rep.Cycles, err)
		}
		want := mark(b)
		copy(b.mem, want)
		copy(b.mem[len(b.mem)-len(want):], want)
		live = append(live, b)
		rep.Cycles++
		rep.Bytes += b.size
	}
	for len(live) > 0 {
		if err := drop(); err != nil {
			return err
		}
	}
	return json.NewEncoder(out).Encode(rep)
}

func mark(b *buffer) []byte { return fmt.Appendf(nil, "%08x", b.res) }

// hold makes n mapped blobs and keeps them until it is killed.
func hold(n int, out io.Writer) error {
	c, err := openCard("/dev/dri/card0")
	if err != nil {
		return err
	}
	for i := range n {
		b := &buffer{kind: kindHost, size: uint64(1+i) * page}
		if err := c.blob(b, memHost3D, flagMappable, 0, nil); err != nil {
			return fmt.Errorf("blob %d: %w", i, err)
		}
		copy(b.mem, mark(b))
	}
	if _, err := fmt.Fprintln(out, "holding"); err != nil {
		return err
	}
	for {
		time.Sleep(time.Hour)
	}
}
