package shmfallback

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// naive is CopyRect pixel by pixel over one flat source. order lists, for B, G, R
// and A of the result, the byte of the source pixel.
func naive(c *Copy) []byte {
	src := bytes.Join(c.Src, nil)
	dst := bytes.Clone(c.Dst)
	bpp := int(c.BytesPerPixel)
	order := [4][4]int{{0, 1, 2, 3}, {2, 1, 0, 3}, {3, 2, 1, 0}, {1, 2, 3, 0}}[c.Convert&3]
	for y := range int(c.H) {
		dy := y
		if c.Flip {
			dy = int(c.H) - 1 - y
		}
		for x := range int(c.W) {
			s := src[int(c.SrcOffset)+y*int(c.SrcStride)+x*bpp:]
			d := dst[(int(c.DstY)+dy)*int(c.DstStride)+(int(c.DstX)+x)*bpp:]
			for i := range bpp {
				d[i] = s[i]
				if c.Convert != ConvertNone {
					d[i] = s[order[i]]
				}
			}
			if c.Convert&ConvertAlpha != 0 {
				d[3] = 255
			}
		}
	}
	return dst
}

// segments cuts p into pieces of random lengths, empty ones too.
func segments(t *rapid.T, p []byte) [][]byte {
	var out [][]byte
	for len(p) > 0 {
		n := rapid.IntRange(0, min(len(p), 40)).Draw(t, "segment")
		out = append(out, p[:n])
		p = p[n:]
	}
	return out
}

func TestCopyRectModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &Copy{
			W: rapid.Uint32Range(0, 9).Draw(t, "w"), H: rapid.Uint32Range(0, 6).Draw(t, "h"),
			DstX: rapid.Uint32Range(0, 4).Draw(t, "x"), DstY: rapid.Uint32Range(0, 4).Draw(t, "y"),
			BytesPerPixel: rapid.SampledFrom([]uint32{1, 2, 3, 4, 4, 4, 8}).Draw(t, "bpp"),
			SrcOffset:     rapid.Uint64Range(0, 50).Draw(t, "offset"),
			Flip:          rapid.Bool().Draw(t, "flip"),
		}
		if c.BytesPerPixel == 4 {
			c.Convert = Convert(rapid.IntRange(0, 7).Draw(t, "convert"))
		}
		row := c.W * c.BytesPerPixel
		c.SrcStride = row + rapid.SampledFrom([]uint32{0, 0, 1, 7, 64}).Draw(t, "gap")
		c.DstStride = c.DstX*c.BytesPerPixel + row + rapid.SampledFrom([]uint32{0, 0, 3, 64}).Draw(t, "dst gap")
		if rapid.Bool().Draw(t, "packed") {
			c.DstX, c.DstStride, c.SrcStride = 0, row, row
		}
		srcLen, dstLen := int(c.SrcOffset), 0
		if c.W > 0 && c.H > 0 {
			srcLen += int((c.H-1)*c.SrcStride + row)
			dstLen = int((c.DstY+c.H-1)*c.DstStride + c.DstX*c.BytesPerPixel + row)
		}
		src := make([]byte, srcLen+rapid.IntRange(0, 3).Draw(t, "src tail"))
		for i := range src {
			src[i] = byte(i*31 + 7)
		}
		c.Src = segments(t, src)
		c.Dst = bytes.Repeat([]byte{0xee}, dstLen)
		want := naive(c)

		var also atomic.Uint64
		m := NewMeter(&also)
		if err := m.CopyRect(c); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(c.Dst, want) {
			t.Fatalf("got  % x\nwant % x", c.Dst, want)
		}
		if n := uint64(row) * uint64(c.H); m.Bytes() != n || also.Load() != n {
			t.Fatalf("counted %d and %d bytes, copied %d", m.Bytes(), also.Load(), n)
		}
		if srcLen == int(c.SrcOffset) {
			return
		}
		// One byte less on either side is refused, and then nothing moves.
		short := *c
		short.Src = segments(t, src[:srcLen-1])
		short.Dst = bytes.Clone(want)
		if err := m.CopyRect(&short); !errors.Is(err, ErrBounds) || !bytes.Equal(short.Dst, want) {
			t.Fatalf("source one byte short: %v", err)
		}
		short = *c
		short.Dst = c.Dst[:dstLen-1]
		if err := m.CopyRect(&short); !errors.Is(err, ErrBounds) {
			t.Fatalf("destination one byte short: %v", err)
		}
	})
}

// TestCopyRectHostile gives numbers whose sums and products overflow.
func TestCopyRectHostile(t *testing.T) {
	const big = 0xffffffff
	good := Copy{Dst: make([]byte, 4096), DstStride: 64, Src: [][]byte{make([]byte, 4096)}, SrcStride: 64, W: 8, H: 8, BytesPerPixel: 4}
	for _, c := range []struct {
		name string
		edit func(c *Copy)
		want error
		text string
	}{
		{"offset", func(c *Copy) { c.SrcOffset = 1<<64 - 1 }, ErrBounds, "18446744073709551615"},
		{"offset past the end", func(c *Copy) { c.SrcOffset = 4096 }, ErrBounds, "offset 4096"},
		{"offset near the end", func(c *Copy) { c.SrcOffset = 4096 - 480 + 1 }, ErrBounds, "480 bytes"},
		{"width", func(c *Copy) { c.W = big }, ErrInvalid, "4294967295x8"},
		{"height", func(c *Copy) { c.H = big }, ErrInvalid, "8x4294967295"},
		{"x", func(c *Copy) { c.DstX = big }, ErrInvalid, "+4294967295+0"},
		{"y", func(c *Copy) { c.DstY = big }, ErrInvalid, "+0+4294967295"},
		{"x and width", func(c *Copy) { c.DstX = 9 }, ErrBounds, "byte 68"},
		{"y and height", func(c *Copy) { c.DstY = 57 }, ErrBounds, "byte 4128"},
		{"source stride", func(c *Copy) { c.SrcStride = big }, ErrBounds, "size 4096"},
		{"small source stride", func(c *Copy) { c.SrcStride = 31 }, ErrInvalid, "stride 31"},
		{"source stride 0", func(c *Copy) { c.SrcStride = 0 }, ErrInvalid, "stride 0"},
		{"destination stride", func(c *Copy) { c.DstStride = big }, ErrBounds, "4294967295"},
		{"small destination stride", func(c *Copy) { c.DstStride = 31 }, ErrBounds, "stride 31"},
		{"no pixels", func(c *Copy) { c.BytesPerPixel = 0 }, ErrInvalid, "0 bytes per pixel"},
		{"huge pixels", func(c *Copy) { c.BytesPerPixel = big }, ErrInvalid, "limit 16"},
		{"conversion of 8", func(c *Copy) { c.BytesPerPixel = 8; c.Convert = ConvertRGBA }, ErrInvalid, "want 4"},
		{"no source", func(c *Copy) { c.Src = nil }, ErrBounds, "size 0"},
		{"no destination", func(c *Copy) { c.Dst = nil }, ErrBounds, "size 0"},
	} {
		var m Meter
		bad := good
		c.edit(&bad)
		err := m.CopyRect(&bad)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %v with %q", c.name, err, c.want, c.text)
		}
		if m.Bytes() != 0 {
			t.Errorf("%s: counted %d bytes", c.name, m.Bytes())
		}
	}
	var m Meter
	if err := m.CopyRect(&good); err != nil || m.Bytes() != 256 {
		t.Errorf("the good one: %v, %d bytes", err, m.Bytes())
	}
}

// TestCopyRectFault shrinks the file behind the source, as a hostile peer whose
// memory is not sealed can.
func TestCopyRectFault(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "guest"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	page := os.Getpagesize()
	if err := file.Truncate(int64(2 * page)); err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(int(file.Fd()), 0, 2*page, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(mem) }()
	if err := file.Truncate(int64(page)); err != nil {
		t.Fatal(err)
	}
	row := uint32(page / 2)
	var m Meter
	c := Copy{Dst: make([]byte, 2*page+64), DstStride: row + 4, Src: [][]byte{mem}, SrcStride: row, W: row / 4, H: 4, BytesPerPixel: 4}
	err = m.CopyRect(&c)
	if !errors.Is(err, ErrFault) {
		t.Fatalf("copy from a shrunken file: %v", err)
	}
	if m.Bytes() != uint64(page) {
		t.Errorf("counted %d bytes, two rows are %d", m.Bytes(), page)
	}
	c.Convert = ConvertABGR
	if err := m.CopyRect(&c); !errors.Is(err, ErrFault) {
		t.Errorf("conversion from a shrunken file: %v", err)
	}
}

func TestConvertFor(t *testing.T) {
	classic := []dmabuf.Fourcc{dmabuf.XRGB8888, dmabuf.ARGB8888, dmabuf.XBGR8888, dmabuf.ABGR8888,
		dmabuf.RGBX8888, dmabuf.RGBA8888, dmabuf.BGRX8888, dmabuf.BGRA8888}
	for _, from := range classic {
		// The DRM name lists a little-endian word from its top: build the pixel
		// with B=1, G=2, R=3, A or X=4 from it.
		src := make([]byte, 4)
		for i := range 4 {
			src[3-i] = map[byte]byte{'B': 1, 'G': 2, 'R': 3, 'A': 4, 'X': 4}[from.String()[i]]
		}
		for _, to := range []dmabuf.Fourcc{dmabuf.XRGB8888, dmabuf.ARGB8888} {
			conv, err := ConvertFor(from, to)
			if err != nil {
				t.Fatal(err)
			}
			dst := make([]byte, 4)
			var m Meter
			if err := m.CopyRect(&Copy{Dst: dst, DstStride: 4, Src: [][]byte{src}, SrcStride: 4, W: 1, H: 1, BytesPerPixel: 4, Convert: conv}); err != nil {
				t.Fatal(err)
			}
			want := []byte{1, 2, 3, 4}
			if to == dmabuf.ARGB8888 && !from.HasAlpha() {
				want[3] = 255
			}
			if !bytes.Equal(dst, want) {
				t.Errorf("%v to %v: % x, want % x", from, to, dst, want)
			}
		}
	}
	if c, err := ConvertFor(dmabuf.RGB565, dmabuf.RGB565); err != nil || c != ConvertNone {
		t.Errorf("the same format: %v %v", c, err)
	}
	if _, err := ConvertFor(dmabuf.RGB565, dmabuf.XRGB8888); !errors.Is(err, ErrInvalid) {
		t.Errorf("RGB565: %v", err)
	}
	if _, err := ConvertFor(dmabuf.XRGB8888, dmabuf.XBGR8888); !errors.Is(err, ErrInvalid) {
		t.Errorf("to XBGR8888: %v", err)
	}
}

func TestFill(t *testing.T) {
	var m Meter
	if err := m.Fill(10, func() error { return nil }); err != nil || m.Bytes() != 10 {
		t.Errorf("%v, %d bytes", err, m.Bytes())
	}
	boom := errors.New("boom")
	if err := m.Fill(10, func() error { return boom }); !errors.Is(err, boom) || m.Bytes() != 10 {
		t.Errorf("%v, %d bytes", err, m.Bytes())
	}
}

// pages cuts n bytes into segments of one page, as scattered guest memory has.
func pages(n int) [][]byte {
	var out [][]byte
	for ; n > 0; n -= 4096 {
		out = append(out, make([]byte, min(n, 4096)))
	}
	return out
}

func fullHD(convert Convert) *Copy {
	const stride = 1920 * 4
	return &Copy{Dst: make([]byte, stride*1080), DstStride: stride, Src: pages(stride * 1080), SrcStride: stride,
		W: 1920, H: 1080, BytesPerPixel: 4, Convert: convert}
}

func TestNoAllocs(t *testing.T) {
	var m Meter
	c := fullHD(ConvertRGBA)
	c.H = 20
	if n := testing.AllocsPerRun(50, func() {
		if m.CopyRect(c) != nil {
			t.Fail()
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCopyRect(b *testing.B) {
	gap := fullHD(ConvertNone)
	gap.W = 1919
	for _, c := range []struct {
		name string
		c    *Copy
	}{{"contiguous", fullHD(ConvertNone)}, {"rows", gap}, {"swizzle", fullHD(ConvertRGBA)}} {
		b.Run(c.name, func(b *testing.B) {
			var m Meter
			b.ReportAllocs()
			b.SetBytes(int64(c.c.rowBytes()) * int64(c.c.H))
			for b.Loop() {
				if err := m.CopyRect(c.c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
