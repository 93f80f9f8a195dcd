package qemudisplay_test

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/qemudisplay"
	"github.com/gpubroker/gpubroker/broker/qemudisplay/qemudisplaytest"
	"github.com/gpubroker/gpubroker/dmabuf"
)

func TestPixels(t *testing.T) {
	for _, c := range []struct {
		name string
		f    dmabuf.Fourcc
		flip bool
	}{{"top first", dmabuf.XRGB8888, false}, {"bottom first", dmabuf.ARGB8888, true}} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, qemudisplaytest.Options{}, qemudisplay.Config{})
			b := picture(t, 61, 43, c.f)
			shown := b
			if c.flip {
				shown = flipped(t, b)
			}
			// The first frame is drawn whole whatever its damage says.
			r.present(0, shown, whole(b), display.Rect{X: 3, Y: 4, W: 5, H: 6})
			r.updates(1)
			r.want(0, shown, whole(b))
			r.quiet(shown)

			before := bytes.Clone(b.Mem)
			paint(b, 1)
			d := display.Rect{X: 10, Y: 20, W: 30, H: 7}
			r.present(0, shown, whole(b), d)
			r.updates(2)
			r.quiet(shown)
			if s := r.q.Scanout(0); s.LastX != 10 || s.LastY != 20 || s.LastW != 30 || s.LastH != 7 {
				t.Errorf("update of %dx%d+%d+%d", s.LastW, s.LastH, s.LastX, s.LastY)
			}
			// Only the damage is new.
			for y := range b.Height {
				row := y
				if c.flip {
					row = b.Height - 1 - y
				}
				for x := range b.Width {
					at := row*b.Planes[0].Stride + x*4
					want := before[at : at+4]
					if x >= d.X && x < d.X+d.W && y >= d.Y && y < d.Y+d.H {
						want = b.Mem[at : at+4]
					}
					if got := r.q.Scanout(0).Pixels[(y*b.Width+x)*4:][:4]; !bytes.Equal(got, want) {
						t.Fatalf("pixel %d,%d: % x, want % x", x, y, got, want)
					}
				}
				if t.Failed() || y > 30 {
					break
				}
			}
			st := r.s.Stats()
			if n, want := st.BytesCopied.Load(), uint64(61*43*4+30*7*4); n != want {
				t.Errorf("copied %d bytes, want %d", n, want)
			}
			if st.FramesShm.Load() != 2 || st.FramesDMABuf.Load() != 0 || st.Latency.Count() != 2 {
				t.Errorf("frames %d, dma-buf %d, latencies %d", st.FramesShm.Load(), st.FramesDMABuf.Load(), st.Latency.Count())
			}
			if n := r.q.Count("SCANOUT"); n != 1 {
				t.Errorf("%d SCANOUT for one size", n)
			}
		})
	}
}

func TestConversion(t *testing.T) {
	r := newRig(t, qemudisplaytest.Options{}, qemudisplay.Config{})
	b := picture(t, 4, 4, dmabuf.ABGR8888)
	r.present(0, b, whole(b), whole(b))
	r.updates(1)
	s := r.q.Scanout(0)
	for i := range 16 {
		p := b.Mem[uint32(i/4)*b.Planes[0].Stride+uint32(i%4)*4:]
		if got := s.Pixels[i*4:]; got[0] != p[2] || got[1] != p[1] || got[2] != p[0] {
			t.Fatalf("pixel %d: % x of % x", i, got[:4], p[:4])
		}
	}
	r.quiet(b)
	bad := picture(t, 4, 4, dmabuf.RGB565)
	r.present(0, bad, whole(bad), whole(bad))
	r.quiet(bad)
	if r.s.Stats().FramesSkipped.Load() != 1 || r.logs.FilterMessage("frame skipped").Len() != 1 {
		t.Error("a frame of RGB565 was not skipped")
	}
}

// TestSource shows parts of one buffer on two heads, resizes and blanks.
func TestSource(t *testing.T) {
	r := newRig(t, qemudisplaytest.Options{Heads: 2}, qemudisplay.Config{})
	b := picture(t, 100, 50, dmabuf.XRGB8888)
	left, right := display.Rect{W: 40, H: 50}, display.Rect{X: 40, Y: 10, W: 60, H: 40}
	r.present(0, b, left, whole(b))
	r.present(1, b, right, whole(b))
	r.q.Wait("both heads", func() bool { return r.q.Scanout(0).Updates == 1 && r.q.Scanout(1).Updates == 1 })
	r.want(0, b, left)
	r.want(1, b, right)

	r.present(0, b, right, display.Rect{X: 50, Y: 20, W: 1, H: 1})
	r.updates(2)
	r.want(0, b, right)

	r.s.Disable(0)
	r.q.Wait("blank", func() bool { return r.q.Scanout(0).Pixels == nil })
	r.s.Disable(0) // nothing more to blank
	r.present(0, b, left, display.Rect{W: 1, H: 1})
	r.updates(3)
	r.want(0, b, left)
	if n := r.q.Count("SCANOUT"); n != 5 {
		t.Errorf("%d SCANOUT, want 5", n)
	}
	// A part outside of the buffer is not read.
	r.present(0, b, display.Rect{X: 90, W: 40, H: 50}, whole(b))
	r.q.Wait("skip", func() bool { return r.s.Stats().FramesSkipped.Load() == 1 })
	r.quiet(b)
}

// TestLarge sends more than one UPDATE can hold.
func TestLarge(t *testing.T) {
	r := newRig(t, qemudisplaytest.Options{}, qemudisplay.Config{})
	b := picture(t, 2600, 1700, dmabuf.XRGB8888)
	r.present(0, b, whole(b), whole(b))
	r.quiet(b)
	r.updates(3)
	r.want(0, b, whole(b))
	if n := r.s.Stats().BytesCopied.Load(); n != 2600*1700*4 {
		t.Errorf("copied %d bytes", n)
	}
	if n := r.s.Stats().FramesShm.Load(); n != 1 {
		t.Errorf("%d frames", n)
	}
}

// TestSlow lets QEMU's main loop hang: the render thread goes on, the newest frame
// wins, no damage is lost.
func TestSlow(t *testing.T) {
	r := newRig(t, qemudisplaytest.Options{}, qemudisplay.Config{})
	a, b := picture(t, 300, 200, dmabuf.XRGB8888), picture(t, 300, 200, dmabuf.XRGB8888)
	r.present(0, a, whole(a), whole(a))
	r.updates(1)
	r.quiet(a)
	r.q.Hold(true)
	start := time.Now()
	for i := range 200 {
		paint(a, uint32(i))
		r.present(0, a, whole(a), display.Rect{X: uint32(i), W: 100, H: 200})
	}
	paint(b, 1000)
	r.present(0, b, whole(b), display.Rect{X: 290, W: 10, H: 200})
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("Present took %v while QEMU hung", d)
	}
	r.q.Hold(false)
	r.quiet(a)
	r.quiet(b)
	st := r.s.Stats()
	r.q.Wait("all frames", func() bool {
		return st.FramesShm.Load()+st.FramesSkipped.Load() == 202 && r.q.Scanout(0).Updates == int(st.FramesShm.Load())
	})
	if st.FramesSkipped.Load() < 100 {
		t.Errorf("only %d of 202 frames were skipped", st.FramesSkipped.Load())
	}
	// What the last frame shows is b in all columns that changed since a frame
	// was last sent; the last column changed with it.
	s := r.q.Scanout(0)
	at := (100*300 + 295) * 4
	if got := binary.LittleEndian.Uint32(s.Pixels[at:]); got != pixel(295, 100, 1000) {
		t.Errorf("pixel %#x is not of the newest frame", got)
	}
	if s.LastX+s.LastW != 300 || s.LastW < 100 {
		t.Errorf("last update covers columns %d to %d", s.LastX, s.LastX+s.LastW)
	}
}

func TestNoDisplay(t *testing.T) {
	r := newRig(t, qemudisplaytest.Options{NoDisplay: true}, qemudisplay.Config{DMABuf: qemudisplay.DMABufOff})
	b := picture(t, 16, 16, dmabuf.XRGB8888)
	for i := range 3 {
		r.present(0, b, whole(b), whole(b))
		r.updates(i + 1)
	}
	if e := r.q.Errors(); len(e) != 0 {
		t.Errorf("QEMU printed %q", e)
	}
}
