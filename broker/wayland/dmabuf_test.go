package wayland_test

import (
	"context"
	"fmt"
	"image"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

// realDMABuf makes a dma-buf of the picture: a udmabuf over the pages that draw
// writes to.
func realDMABuf(t testing.TB, u *dmabuf.UDMABuf, img picture, f dmabuf.Fourcc, yInvert bool) *dmabuf.Buffer {
	t.Helper()
	pages := buffer(t, img, f, yInvert)
	fd, err := u.Create(dmabuf.Span{FD: pages.Planes[0].FD, Size: uint64(len(pages.Mem))})
	if err != nil {
		pages.Release()
		t.Fatal(err)
	}
	b, err := dmabuf.New(dmabuf.Desc{
		Kind: dmabuf.KindDMABuf, Width: pages.Width, Height: pages.Height, Fourcc: f, Modifier: dmabuf.ModLinear,
		Planes:  []dmabuf.Plane{{FD: fd, Stride: pages.Planes[0].Stride}},
		YInvert: yInvert, Origin: "udmabuf", Mem: pages.Mem, Free: pages.Release,
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestWestonDMABuf shows real dma-bufs: formats, orientations, odd sizes, damage,
// crop, cursor, flips. It needs /dev/udmabuf; TestDMABufInVM runs it in a guest
// that has one.
func TestWestonDMABuf(t *testing.T) {
	labtest.Root(t)
	if err := dmabuf.ProbeUDMABuf(); err != nil {
		t.Skipf("%v; TestDMABufInVM runs this test in a guest", err)
	}
	u, err := dmabuf.OpenUDMABuf()
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	for _, size := range []image.Point{{headW, headH}, {317, 201}} {
		c := labtest.Weston(t, lab.WestonOptions{Renderer: "gl", W: size.X, H: size.Y})
		s := newSink(t, c.Socket(), nil)
		before := 0
		for i, f := range []dmabuf.Fourcc{dmabuf.XRGB8888, dmabuf.ARGB8888, dmabuf.XBGR8888, dmabuf.ABGR8888} {
			for _, yInvert := range []bool{false, true} {
				name := fmt.Sprintf("%v of %v inverted %v", f, size, yInvert)
				if !s.Accepts(f, dmabuf.ModLinear) {
					t.Fatalf("%s is not accepted", name)
				}
				img := pattern(size.X, size.Y, i)
				b := realDMABuf(t, u, img, f, yInvert)
				s.Present(frameOf(b))
				expect(t, c, name, img)
				s.Drop(b)
				b.Release()
			}
			if i == 0 {
				before = fdtest.Count(t)
			}
		}
		showParts(t, c, s, u, size)
		flip(t, c, s, u, size)
		st := s.Stats()
		if st.FramesShm.Load() != 0 || st.BytesCopied.Load() != 0 || st.FramesDMABuf.Load() == 0 {
			t.Errorf("%d frames as dma-bufs, %d as shared memory, %d bytes copied", st.FramesDMABuf.Load(), st.FramesShm.Load(), st.BytesCopied.Load())
		}
		s.Disable(0)
		eventually(t, "all imports are gone", func() bool { return st.ImportsLive.Load() == 0 })
		if after := fdtest.Count(t); after > before {
			t.Errorf("%d descriptors after two pictures, %d at the end", before, after)
		}
		closeSink(t, s)
	}
}

// showParts checks crop, the cursor and damage on top of a dma-buf.
func showParts(t *testing.T, c *lab.Compositor, s display.Sink, u *dmabuf.UDMABuf, size image.Point) {
	img := pattern(size.X+50, size.Y+30, 6)
	for _, yInvert := range []bool{false, true} {
		b := realDMABuf(t, u, img, dmabuf.XRGB8888, yInvert)
		f := frameOf(b)
		f.Source = display.Rect{X: 33, Y: 21, W: uint32(size.X), H: uint32(size.Y)}
		s.Present(f)
		ptr := arrow(32)
		s.ShowCursor(&display.Cursor{X: 40, Y: 30, W: 32, H: 32, Pixels: argb(ptr)})
		expect(t, c, "dma-buf with crop and cursor", paste(part(img, f.Source), ptr, 40, 30))
		s.ShowCursor(&display.Cursor{})
		s.Drop(b)
		b.Release()
	}
}

// flip shows two dma-bufs in turn as fast as the sink takes them.
func flip(t *testing.T, c *lab.Compositor, s display.Sink, u *dmabuf.UDMABuf, size image.Point) {
	imports := s.Stats().Imports.Load()
	var bufs [2]*dmabuf.Buffer
	var imgs [2]picture
	for i := range bufs {
		imgs[i] = pattern(size.X, size.Y, 10+i)
		bufs[i] = realDMABuf(t, u, imgs[i], dmabuf.XRGB8888, false)
		defer bufs[i].Release()
	}
	for i := range 60 {
		s.Present(frameOf(bufs[i%2]))
		time.Sleep(2 * time.Millisecond)
	}
	expect(t, c, "after flips", imgs[1])
	if n := s.Stats().Imports.Load() - imports; n != 2 {
		t.Errorf("%d imports for two buffers", n)
	}
	for _, b := range bufs {
		s.Drop(b)
	}
}

// TestDMABufInVM runs the dma-buf and the damage test in a guest that plays the
// host, with udmabuf and vgem.
func TestDMABufInVM(t *testing.T) {
	if labtest.Root(t).InGuest() {
		t.Skip("already in the guest")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	vm := labtest.HostVM(t, lab.VMConfig{})
	binary := filepath.Join(t.TempDir(), "wayland.test")
	if err := lab.BuildTest(ctx, ".", binary); err != nil {
		t.Fatal(err)
	}
	out, code, err := vm.RunBinary(ctx, binary, []string{labtest.Env + "=1"}, "-test.v", "-test.run", "^TestWeston(DMABuf|Damage)$")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("in the guest:\n%s", out)
	if code != 0 || !strings.Contains(out, "--- PASS: TestWestonDMABuf") {
		t.Errorf("the inner tests ended with code %d", code)
	}
}
