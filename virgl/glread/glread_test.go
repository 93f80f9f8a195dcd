package glread_test

import (
	"errors"
	"image/color"
	"os"
	"runtime"
	"testing"

	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
	"github.com/gpubroker/gpubroker/virgl"
	"github.com/gpubroker/gpubroker/virgl/glread"
	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

func TestMain(m *testing.M) {
	if os.Getenv("LIBGL_ALWAYS_SOFTWARE") == "" {
		_ = os.Setenv("LIBGL_ALWAYS_SOFTWARE", "1")
	}
	fdtest.Main(m)
}

// onThread runs f on a locked OS thread that ends with it.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
}

// withReader runs f with a reader, or skips in a build without GL.
func withReader(t *testing.T, f func(r glread.Reader)) {
	t.Helper()
	onThread(func() {
		r, err := glread.New("")
		if !built {
			if !errors.Is(err, glread.ErrNotSupported) {
				t.Errorf("the stub says %v, want ErrNotSupported", err)
			}
			t.Skip("built without GL; CGO_ENABLED=1 go test -tags egl has it")
		}
		if err != nil {
			t.Error(err)
			return
		}
		defer func() {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}()
		f(r)
	})
}

// texel is the test picture: every texel differs from its neighbours.
func texel(x, y int) color.NRGBA {
	return color.NRGBA{R: byte(x * 3), G: byte(y * 5), B: byte(x + y), A: byte(255 - x)}
}

// store writes a colour as a format has it in memory.
func store(p []byte, f dmabuf.Fourcc, c color.NRGBA) {
	switch f.Opaque() {
	case dmabuf.XRGB8888:
		p[0], p[1], p[2], p[3] = c.B, c.G, c.R, c.A
	case dmabuf.XBGR8888:
		p[0], p[1], p[2], p[3] = c.R, c.G, c.B, c.A
	case dmabuf.RGBX8888:
		p[0], p[1], p[2], p[3] = c.A, c.B, c.G, c.R
	case dmabuf.BGRX8888:
		p[0], p[1], p[2], p[3] = c.A, c.R, c.G, c.B
	}
}

const (
	width, height, stride = 37, 21, 256
)

// picture makes a buffer with the test picture, in shared memory or, with u, in a
// udmabuf.
func picture(t *testing.T, u *dmabuf.UDMABuf, f dmabuf.Fourcc, yInvert bool) *dmabuf.Buffer {
	t.Helper()
	size := dmabuf.PageAlign(stride * height)
	fd, err := dmabuf.NewMemfd("picture", size)
	if err != nil {
		t.Fatal(err)
	}
	mem, err := dmabuf.Map(fd, size, true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dmabuf.Unmap(mem) }()
	for y := range height {
		row := y
		if yInvert {
			row = height - 1 - y
		}
		for x := range width {
			store(mem[row*stride+4*x:], f, texel(x, y))
		}
	}
	kind := dmabuf.KindShm
	if u != nil {
		kind = dmabuf.KindDMABuf
		buf, err := u.Create(dmabuf.Span{FD: fd, Size: uint64(size)})
		_ = fd.Close()
		if err != nil {
			t.Fatal(err)
		}
		fd = buf
	}
	b, err := dmabuf.New(dmabuf.Desc{Kind: kind, Width: width, Height: height, Fourcc: f, Modifier: dmabuf.ModLinear,
		Planes: []dmabuf.Plane{{FD: fd, Stride: stride}}, YInvert: yInvert, Origin: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func compare(t *testing.T, r glread.Reader, b *dmabuf.Buffer) {
	t.Helper()
	img, err := r.Read(b)
	if err != nil {
		t.Error(err)
		return
	}
	for y := range height {
		for x := range width {
			want := texel(x, y)
			if !b.Fourcc.HasAlpha() {
				want.A = 255
			}
			if got := img.NRGBAAt(x, y); got != want {
				t.Errorf("%v, y inverted %v: texel %d,%d is %v, want %v", b, b.YInvert, x, y, got, want)
				return
			}
		}
	}
}

var formats = []dmabuf.Fourcc{
	dmabuf.XRGB8888, dmabuf.ARGB8888, dmabuf.XBGR8888, dmabuf.ABGR8888,
	dmabuf.RGBX8888, dmabuf.RGBA8888, dmabuf.BGRX8888, dmabuf.BGRA8888,
}

func TestReadShm(t *testing.T) {
	withReader(t, func(r glread.Reader) {
		t.Log(r.Renderer())
		if r.Renderer() == "" {
			t.Error("no GL_RENDERER")
		}
		for _, f := range formats {
			for _, yInvert := range []bool{false, true} {
				b := picture(t, nil, f, yInvert)
				compare(t, r, b)
				b.Release()
			}
		}
		b := picture(t, nil, dmabuf.RGB565, false)
		if _, err := r.Read(b); !errors.Is(err, glread.ErrNotSupported) {
			t.Errorf("16-bit shared memory: %v, want ErrNotSupported", err)
		}
		b.Release()
	})
}

func TestReadDMABuf(t *testing.T) {
	withReader(t, func(r glread.Reader) {
		u, err := dmabuf.OpenUDMABuf()
		if err != nil {
			t.Skip(err)
		}
		defer func() { _ = u.Close() }()
		before := fdtest.Count(t)
		for _, f := range formats {
			for _, yInvert := range []bool{false, true} {
				b := picture(t, u, f, yInvert)
				if f.Opaque() == dmabuf.RGBX8888 || f.Opaque() == dmabuf.BGRX8888 {
					// Drivers need not know these; they must say so cleanly.
					if _, err := r.Read(b); err != nil {
						if !errors.Is(err, glread.ErrImport) {
							t.Errorf("%v: %v, want ErrImport", b, err)
						}
						b.Release()
						continue
					}
				}
				compare(t, r, b)
				b.Release()
			}
		}
		bad := picture(t, u, 0x12345678, false)
		if _, err := r.Read(bad); !errors.Is(err, glread.ErrImport) {
			t.Errorf("unknown format: %v, want ErrImport", err)
		}
		bad.Release()
		if after := fdtest.Count(t); after > before+2 { // the driver frees the last one late
			t.Errorf("%d descriptors after 17 imports, %d before", after, before)
		}
	})
}

// TestPaint draws into a dma-buf and looks at its memory.
func TestPaint(t *testing.T) {
	withReader(t, func(r glread.Reader) {
		shm := picture(t, nil, dmabuf.XRGB8888, false)
		defer shm.Release()
		if err := r.Paint(shm); !errors.Is(err, glread.ErrNotSupported) {
			t.Errorf("into shared memory: %v, want ErrNotSupported", err)
		}
		u, err := dmabuf.OpenUDMABuf()
		if err != nil {
			t.Skip(err)
		}
		defer func() { _ = u.Close() }()
		b := picture(t, u, dmabuf.XRGB8888, false)
		defer b.Release()
		if err := r.Paint(b); err != nil {
			t.Error(err)
			return
		}
		mem, done, err := b.CPURead()
		if err != nil {
			t.Error(err)
			return
		}
		defer done()
		for y := range height {
			for x := range width {
				want := make([]byte, 4)
				store(want, dmabuf.XRGB8888, glread.Painted(x, y, width, height))
				for i, got := range mem[y*stride+4*x:][:3] {
					if d := int(got) - int(want[i]); d < -1 || d > 1 {
						t.Errorf("pixel %d,%d has byte %d %d, want %d", x, y, i, got, want[i])
						return
					}
				}
			}
		}
	})
}

// TestReadVirgl draws with virgl, exports, and looks at the result through a second
// GL context: whatever format the driver really stores, the colours must be right.
func TestReadVirgl(t *testing.T) {
	withReader(t, func(r glread.Reader) {
		onThread(func() {
			signalled := false
			v, err := virgl.New(virgl.Config{OnFence: func(_, _ uint32) { signalled = true }})
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = v.Close() }()
			if !v.Info().DMABufExport {
				t.Skip("the GL driver exports no dma-bufs (llvmpipe before Mesa 25, or no /dev/udmabuf)")
			}
			check := func(err error) {
				if err != nil {
					t.Error(err)
				}
			}
			check(v.CreateContext(1, 0, "glread"))
			for i, format := range []uint32{virglcmd.FormatB8G8R8A8, virglcmd.FormatB8G8R8X8, virglcmd.FormatR8G8B8A8, virglcmd.FormatR8G8B8X8} {
				id := uint32(i + 1)
				check(v.CreateResource(&virgl.ResourceArgs{ID: id, Target: virglcmd.TargetTexture2D, Format: format,
					Bind: virglcmd.BindRenderTarget, Width: 33, Height: 17, Depth: 1, ArraySize: 1}))
				v.AttachResource(1, id)
				var b virglcmd.Builder
				b.CreateSurface(10+id, id, format, 0, 0)
				b.SetFramebuffer(10 + id)
				b.Clear(virglcmd.ClearColor0, [4]float32{1, 128.0 / 255, 64.0 / 255, 1}, 0, 0)
				check(v.Submit(1, b.Bytes()))
				signalled = false
				check(v.CreateFence(1, id))
				for !signalled {
					v.Poll()
				}
				buf, err := v.Export(id)
				if err != nil {
					t.Error(err)
					return
				}
				readOther(t, buf)
				buf.Release()
			}
		})
	})
}

// readOther reads with a context on a thread of its own.
func readOther(t *testing.T, buf *dmabuf.Buffer) {
	onThread(func() {
		r, err := glread.New("")
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = r.Close() }()
		img, err := r.Read(buf)
		if err != nil {
			t.Error(err)
			return
		}
		want := color.NRGBA{255, 128, 64, 255}
		for y := range img.Rect.Dy() {
			for x := range img.Rect.Dx() {
				if got := img.NRGBAAt(x, y); got != want {
					t.Errorf("%v: texel %d,%d is %v, want %v", buf, x, y, got, want)
					return
				}
			}
		}
	})
}
