package vhostuser_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gpubroker/gpubroker/broker/vhostuser"
)

// codecs decodes a payload and encodes the result again.
var codecs = []struct {
	name  string
	again func(p []byte) ([]byte, error)
}{
	{"u64", func(p []byte) ([]byte, error) {
		v, err := vhostuser.DecodeU64(p)
		return vhostuser.AppendU64(nil, v), err
	}},
	{"vring state", func(p []byte) ([]byte, error) {
		v, err := vhostuser.DecodeVringState(p)
		return v.Append(nil), err
	}},
	{"vring address", func(p []byte) ([]byte, error) {
		v, err := vhostuser.DecodeVringAddr(p)
		return v.Append(nil), err
	}},
	{"vring fd", func(p []byte) ([]byte, error) {
		v, err := vhostuser.DecodeVringFD(p)
		return v.Append(nil), err
	}},
	{"memory table", func(p []byte) ([]byte, error) {
		v, err := vhostuser.DecodeMemTable(p)
		return v.Append(nil), err
	}},
	{"memory region", func(p []byte) ([]byte, error) {
		v, err := vhostuser.DecodeSingleRegion(p)
		return vhostuser.AppendSingleRegion(nil, v), err
	}},
	{"config", func(p []byte) ([]byte, error) {
		v, err := vhostuser.DecodeConfig(p)
		return v.Append(nil), err
	}},
	{"mmap", func(p []byte) ([]byte, error) {
		v, err := vhostuser.DecodeMMap(p)
		return v.Append(nil), err
	}},
	{"shmem config", func(p []byte) ([]byte, error) {
		v, err := vhostuser.DecodeShmemConfig(p)
		return v.Append(nil), err
	}},
}

var wireSeeds = map[string][]byte{
	"u64":           vhostuser.AppendU64(nil, 0x0102030405060708),
	"vring state":   vhostuser.VringState{Index: 1, Num: 256}.Append(nil),
	"vring address": vhostuser.VringAddr{Index: 1, Flags: 1, Desc: 0x1000, Used: 0x2000, Avail: 0x3000, Log: 0x4000}.Append(nil),
	"vring fd":      vhostuser.VringFD{Index: 1, NoFD: true}.Append(nil),
	"memory table": (&vhostuser.MemTable{N: 2, Regions: [8]vhostuser.MemRegion{
		{GPA: 0, Size: 1 << 30, UserAddr: 0x7f0000000000}, {GPA: 1 << 32, Size: 1 << 30, UserAddr: 0x7f0040000000, MmapOffset: 1 << 30},
	}}).Append(nil),
	"memory region": vhostuser.AppendSingleRegion(nil, vhostuser.MemRegion{GPA: 1, Size: 2, UserAddr: 3, MmapOffset: 4}),
	"config":        vhostuser.ConfigSpace{Offset: 4, Flags: 1, Data: []byte("config")}.Append(nil),
	"mmap":          vhostuser.MMap{ID: 1, FDOffset: 0x1000, Offset: 0x2000, Len: 0x3000, Write: true}.Append(nil),
	"shmem config":  (&vhostuser.ShmemConfig{Sizes: [256]uint64{1: 256 << 20}}).Append(nil),
}

// TestWireBytes pins the encodings, byte for byte, so that an error made the same
// way in both directions cannot hide.
func TestWireBytes(t *testing.T) {
	want := map[string]string{
		"u64":           "0807060504030201",
		"vring state":   "0100000000010000",
		"vring address": "01000000 01000000 0010000000000000 0020000000000000 0030000000000000 0040000000000000",
		"vring fd":      "0101000000000000",
		"memory table": "02000000 00000000" +
			"0000000000000000 0000004000000000 00000000007f0000 0000000000000000" +
			"0000000001000000 0000004000000000 00000040007f0000 0000004000000000",
		"memory region": "0000000000000000 0100000000000000 0200000000000000 0300000000000000 0400000000000000",
		"config":        "04000000 06000000 01000000 636f6e666967",
		"mmap":          "01 00000000000000 0010000000000000 0020000000000000 0030000000000000 0100000000000000",
		"shmem config":  "01000000 00000000 0000000000000000 0000001000000000" + strings.Repeat("0000000000000000", 254),
	}
	for name, p := range wireSeeds {
		if got, want := hex.EncodeToString(p), strings.ReplaceAll(want[name], " ", ""); got != want {
			t.Errorf("%s: %s", name, cmp.Diff(want, got))
		}
	}
}

func TestWireLengths(t *testing.T) {
	for _, c := range codecs {
		seed := wireSeeds[c.name]
		if again, err := c.again(seed); err != nil || !bytes.Equal(again, seed) {
			t.Errorf("%s does not survive a round trip: %v", c.name, err)
		}
		for _, p := range [][]byte{nil, seed[:len(seed)-1], append(bytes.Clone(seed), 0)} {
			if _, err := c.again(p); !errors.Is(err, vhostuser.ErrMessage) {
				t.Errorf("%s of %d bytes: %v", c.name, len(p), err)
			}
		}
	}
}

// FuzzPayload decodes anything as every payload: what decodes must encode to the
// same bytes, but for the fields that carry nothing.
func FuzzPayload(f *testing.F) {
	for i, c := range codecs {
		f.Add(uint8(i), wireSeeds[c.name])
		f.Add(uint8(i), wireSeeds[c.name][:4])
	}
	f.Fuzz(func(t *testing.T, which uint8, p []byte) {
		c := codecs[int(which)%len(codecs)]
		once, err := c.again(p)
		if err != nil {
			if !errors.Is(err, vhostuser.ErrMessage) {
				t.Fatalf("%s: %v is not an ErrMessage", c.name, err)
			}
			return
		}
		if len(once) != len(p) {
			t.Fatalf("%s: %d bytes decode and encode to %d", c.name, len(p), len(once))
		}
		twice, err := c.again(once)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%s: not stable: %x, %x, %v", c.name, once, twice, err)
		}
	})
}

func TestNames(t *testing.T) {
	if s := vhostuser.ReqSetMemTable.String(); s != "SET_MEM_TABLE" {
		t.Error(s)
	}
	if s := vhostuser.Request(35).String(); s != "request 35" {
		t.Error(s)
	}
	if s := vhostuser.Request(0xffffffff).String(); s != "request 4294967295" {
		t.Error(s)
	}
	if s := vhostuser.BackendShmemMap.String(); s != "SHMEM_MAP" {
		t.Error(s)
	}
	if s := vhostuser.BackendRequest(77).String(); s != "backend request 77" {
		t.Error(s)
	}
}
