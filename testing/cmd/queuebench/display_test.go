package main

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
)

func message(req uint32, words ...uint32) []byte {
	p := make([]byte, msgHeader)
	binary.NativeEndian.PutUint32(p, req)
	for _, w := range words {
		p = binary.NativeEndian.AppendUint32(p, w)
	}
	binary.NativeEndian.PutUint32(p[8:], uint32(len(p)-msgHeader))
	return p
}

func TestDisplay(t *testing.T) {
	for _, c := range []struct {
		name   string
		update []byte
		want   []uint32 // the picture of 3×2
		err    string
	}{
		{"whole rows", message(msgUpdate, 0, 0, 1, 3, 1, 1, 2, 3), []uint32{0, 0, 0, 1, 2, 3}, ""},
		{"a part", message(msgUpdate, 0, 1, 0, 2, 2, 1, 2, 3, 4), []uint32{0, 1, 2, 0, 3, 4}, ""},
		{"outside", message(msgUpdate, 0, 2, 0, 2, 1, 1, 2), nil, "UPDATE of 2x1+2+0 in 3x2"},
		{"too short", message(msgUpdate, 0, 0, 0, 3, 2, 1), nil, "with 24 bytes"},
		{"a dma-buf", message(9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), nil, errDMABuf.Error()},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b, err := vhostusertest.Pair()
			if err != nil {
				t.Fatal(err)
			}
			d := show(a)
			defer d.close()
			defer func() { _ = b.Close() }()
			if _, err := unix.Write(b.Int(), slices.Concat(message(msgScanout, 0, 3, 2), c.update)); err != nil {
				t.Fatal(err)
			}
			if c.err != "" {
				if err := d.waitStamp(99); err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("%v, want %q", err, c.err)
				}
				return
			}
			if err := d.waitStamp(c.want[5]); err != nil {
				t.Fatal(err)
			}
			w, h, pixels := d.picture()
			if w != 3 || h != 2 {
				t.Fatalf("%dx%d", w, h)
			}
			var got []uint32
			for p := pixels; len(p) > 0; p = p[4:] {
				got = append(got, binary.LittleEndian.Uint32(p))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

func TestDiffers(t *testing.T) {
	a, b := []byte{1, 2, 3, 0, 4, 5, 6, 0}, []byte{1, 2, 3, 255, 4, 5, 7, 0}
	if got := differs(a, b); got != 1 {
		t.Errorf("pixel %d differs, want 1", got)
	}
	if got := differs(a, a); got != -1 {
		t.Errorf("pixel %d of the same differs", got)
	}
}
