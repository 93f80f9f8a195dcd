package virgl

import (
	"bytes"
	"errors"
	"testing"

	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

// needExport skips where the driver cannot export, after checking that Export says so.
func needExport(t *testing.T, r *renderer) {
	t.Helper()
	if r.Info().DMABufExport {
		return
	}
	if err := r.CreateResource(&ResourceArgs{ID: 900, Target: virglcmd.TargetTexture2D, Format: virglcmd.FormatB8G8R8A8,
		Bind: virglcmd.BindRenderTarget, Width: 8, Height: 8, Depth: 1, ArraySize: 1}); err != nil {
		t.Fatal(err)
	}
	_, err := r.Export(900)
	if !errors.Is(err, ErrNotSupported) {
		t.Errorf("Info says no export, Export says %v", err)
	}
	t.Skipf("no dma-buf to look at: %v", err)
}

// texels reads a linear exported buffer through its dma-buf and gives each texel as
// red, green, blue, alpha in 8 bits, rows in memory order.
func texels(t *testing.T, b *dmabuf.Buffer) []byte {
	t.Helper()
	if b.Kind != dmabuf.KindDMABuf || len(b.Planes) != 1 || b.Modifier != dmabuf.ModLinear {
		t.Fatalf("%v with %d planes: want one linear plane in a dma-buf", b, len(b.Planes))
	}
	p := b.Planes[0]
	mem, err := dmabuf.Map(p.FD, int64(p.Offset)+int64(b.Size(0)), false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dmabuf.Unmap(mem) }()
	if err := b.BeginCPU(false); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.EndCPU(false) }()
	var out []byte
	for y := range b.Height {
		row := mem[p.Offset+y*p.Stride:]
		for x := range b.Width {
			rgba := decode(t, b.Fourcc, row[x*b.Fourcc.BytesPerPixel():])
			out = append(out, rgba[:]...)
		}
	}
	return out
}

func decode(t *testing.T, f dmabuf.Fourcc, p []byte) [4]byte {
	t.Helper()
	switch f {
	case dmabuf.ARGB8888:
		return [4]byte{p[2], p[1], p[0], p[3]}
	case dmabuf.XRGB8888:
		return [4]byte{p[2], p[1], p[0], 255}
	case dmabuf.ABGR8888:
		return [4]byte{p[0], p[1], p[2], p[3]}
	case dmabuf.XBGR8888:
		return [4]byte{p[0], p[1], p[2], 255}
	}
	t.Fatalf("no decoder for %v", f)
	return [4]byte{}
}

// TestExportColors clears textures of several formats and sizes and reads the colour
// from the exported memory, believing only the buffer's own fourcc and stride: on
// llvmpipe these are not those of the guest's format.
func TestExportColors(t *testing.T) {
	onThread(t, nil, func(r *renderer) {
		needExport(t, r)
		g := newGuest(t, r, 1)
		id := uint32(0)
		for _, f := range colorFormats {
			if len(f.texel) != 4 || f.format == virglcmd.FormatR10G10B10A2 {
				continue
			}
			for _, size := range [][2]uint32{{64, 64}, {1, 1}, {33, 7}, {641, 239}} {
				id++
				g.target(id, f.format, size[0], size[1], 0)
				b, err := r.Export(id)
				if err != nil {
					t.Fatal(err)
				}
				g.clear(id, f.format, testColor)
				r.settle()
				if b.Width != size[0] || b.Height != size[1] || b.YInvert {
					t.Errorf("%s: exported as %v, y inverted %v", f.name, b, b.YInvert)
				}
				t.Logf("%s %dx%d: %v stride %d", f.name, size[0], size[1], b, b.Planes[0].Stride)
				want := []byte{255, 128, 64, 255}
				for i, p := 0, texels(t, b); i < len(p); i += 4 {
					if !bytes.Equal(p[i:i+4], want) {
						t.Fatalf("%s: texel %d is % d, want % d", f.name, i/4, p[i:i+4], want)
					}
				}
				b.Release()
				r.UnrefResource(id)
			}
		}
	})
}

// TestExportOrientation uploads a picture and compares the exported rows: a resource
// with FlagY0Top has them bottom up, and the buffer says so.
func TestExportOrientation(t *testing.T) {
	const w, h = 37, 23
	onThread(t, nil, func(r *renderer) {
		needExport(t, r)
		g := newGuest(t, r, 1)
		for id, flags := range []uint32{0, FlagY0Top} {
			id := uint32(id + 1)
			g.target(id, virglcmd.FormatB8G8R8A8, w, h, flags)
			b, err := r.Export(id)
			if err != nil {
				t.Fatal(err)
			}
			if b.YInvert != (flags == FlagY0Top) {
				t.Errorf("flags %d: YInvert %v", flags, b.YInvert)
			}
			src := pattern(w, h)
			if err := r.AttachBacking(id, [][]byte{src}); err != nil {
				t.Fatal(err)
			}
			if err := r.TransferToHost(&Transfer{Resource: id, Box: Box{W: w, H: h, D: 1}}); err != nil {
				t.Fatal(err)
			}
			r.settle()
			got := texels(t, b)
			for y := range h {
				at := y
				if b.YInvert {
					at = h - 1 - y
				}
				for x := range w {
					want := decode(t, dmabuf.ARGB8888, src[4*(y*w+x):])
					if p := got[4*(at*w+x):][:4]; !bytes.Equal(p, want[:]) {
						t.Fatalf("flags %d: texel %d,%d is % d, want % d", flags, x, y, p, want)
					}
				}
			}
			b.Release()
		}
	})
}

// TestExportWhileDrawing exports a texture that is being drawn on: what was
// submitted before has to be in the exported memory.
func TestExportWhileDrawing(t *testing.T) {
	onThread(t, nil, func(r *renderer) {
		needExport(t, r)
		g := newGuest(t, r, 1)
		g.target(100, virglcmd.FormatB8G8R8A8, slowSize, slowSize, 0)
		g.slow(100, testColor) // learns how slow is slow enough
		for id := uint32(1); id <= 8; id++ {
			g.target(id, virglcmd.FormatB8G8R8A8, slowSize, slowSize, 0)
			g.slow(id, testColor)
			b, err := r.Export(id)
			if err != nil {
				t.Fatal(err)
			}
			for i, p := 0, texels(t, b); i < len(p); i += 4 {
				if want := []byte{255, 128, 64, 255}; !bytes.Equal(p[i:i+4], want) {
					t.Fatalf("resource %d: texel %d is % d, want % d", id, i/4, p[i:i+4], want)
				}
			}
			b.Release()
			r.UnrefResource(id)
		}
	})
}

// TestExportOutlives unrefs a resource whose buffer is still held: the pixels stay,
// and the descriptors go with the buffer.
func TestExportOutlives(t *testing.T) {
	onThread(t, nil, func(r *renderer) {
		needExport(t, r)
		g := newGuest(t, r, 1)
		before := 0
		for i := range uint32(50) {
			if i == 2 {
				before = fdtest.Count(t)
			}
			g.target(1, virglcmd.FormatB8G8R8A8, 100, 100, 0)
			b, err := r.Export(1)
			if err != nil {
				t.Fatal(err)
			}
			g.clear(1, virglcmd.FormatB8G8R8A8, testColor)
			r.settle()
			r.UnrefResource(1)
			if p := texels(t, b); !bytes.Equal(p[:4], []byte{255, 128, 64, 255}) {
				t.Fatalf("round %d: after unref the first texel is % d", i, p[:4])
			}
			b.Release()
			r.Poll()
		}
		if after := fdtest.Count(t); after > before+3 { // a fence or two may be on its way
			t.Errorf("%d descriptors after 50 exports, %d before", after, before)
		}
	})
}

// TestExportBefore1 takes the way of libraries without resource_get_info_ext and
// expects the same description.
func TestExportBefore1(t *testing.T) {
	onThread(t, nil, func(r *renderer) {
		needExport(t, r)
		g := newGuest(t, r, 1)
		g.target(1, virglcmd.FormatB8G8R8A8, 100, 50, FlagY0Top)
		var got [2]*dmabuf.Buffer
		for i := range got {
			b, err := r.Export(1)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Release()
			got[i] = b
			r.lib.resourceGetInfoExt = 0
		}
		a, b := got[0], got[1]
		if a.Width != b.Width || a.Height != b.Height || a.Fourcc != b.Fourcc || a.Modifier != b.Modifier ||
			a.YInvert != b.YInvert || len(a.Planes) != len(b.Planes) || a.Planes[0].Stride != b.Planes[0].Stride {
			t.Errorf("%v through the library, %v through EGL", a, b)
		}
	})
}

// TestExportRefuses expects an error for what has no picture.
func TestExportRefuses(t *testing.T) {
	onThread(t, nil, func(r *renderer) {
		g := newGuest(t, r, 1)
		if b, err := r.Export(g.vertices); err == nil {
			t.Errorf("a vertex buffer was exported as %v", b)
			b.Release()
		}
	})
}
