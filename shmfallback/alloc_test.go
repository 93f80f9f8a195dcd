package shmfallback

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
)

func TestAlloc(t *testing.T) {
	for _, c := range []struct {
		w, h   uint32
		f      dmabuf.Fourcc
		stride uint32
	}{
		{1, 1, dmabuf.XRGB8888, 256},
		{64, 64, dmabuf.ARGB8888, 256},
		{65, 3, dmabuf.XRGB8888, 512},
		{1921, 1081, dmabuf.XRGB8888, 7936},
		{100, 100, dmabuf.RGB565, 256},
		{100, 7, dmabuf.RGB888, 512},
	} {
		b, err := Alloc(c.w, c.h, c.f, "test")
		if err != nil {
			t.Fatal(err)
		}
		p := b.Planes[0]
		if b.Kind != dmabuf.KindShm || p.Stride != c.stride || p.Offset != 0 || b.Modifier != dmabuf.ModLinear {
			t.Errorf("%v stride %d, want %d", b, p.Stride, c.stride)
		}
		var st unix.Stat_t
		if err := unix.Fstat(p.FD.Int(), &st); err != nil {
			t.Fatal(err)
		}
		if uint64(st.Size) < b.Size(0) || st.Size%int64(os.Getpagesize()) != 0 || len(b.Mem) != int(st.Size) {
			t.Errorf("%v: file of %d bytes, mapping of %d, picture of %d", b, st.Size, len(b.Mem), b.Size(0))
		}
		if st.Blocks != 0 {
			t.Errorf("%v: %d blocks in use before anything was drawn", b, st.Blocks)
		}
		b.Mem[len(b.Mem)-1] = 7
		var last [1]byte
		if _, err := unix.Pread(p.FD.Int(), last[:], st.Size-1); err != nil || last[0] != 7 {
			t.Errorf("mapping and file differ: %v %v", last, err)
		}
		if err := unix.Ftruncate(p.FD.Int(), 0); !errors.Is(err, unix.EPERM) {
			t.Errorf("shrinking the file: %v, want EPERM", err)
		}
		b.Release()
	}
}

func TestAllocBad(t *testing.T) {
	for _, c := range []struct {
		w, h uint32
		f    dmabuf.Fourcc
		text string
	}{
		{0, 1, dmabuf.XRGB8888, "0x1"},
		{1, 16385, dmabuf.XRGB8888, "1x16385"},
		{0xffffffff, 2, dmabuf.XRGB8888, "4294967295x2"},
		{64, 64, dmabuf.NV12, "NV12"},
		{64, 64, dmabuf.Fourcc(1), "format"},
	} {
		b, err := Alloc(c.w, c.h, c.f, "test")
		if b != nil || !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%dx%d %v: %v", c.w, c.h, c.f, err)
		}
	}
}

func TestAllocLeaksNothing(t *testing.T) {
	before := fdtest.Count(t)
	for range 100 {
		b, err := Alloc(300, 200, dmabuf.XRGB8888, "loop")
		if err != nil {
			t.Fatal(err)
		}
		b.Release()
	}
	if after := fdtest.Count(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
