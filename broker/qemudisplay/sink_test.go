package qemudisplay_test

import (
	"bytes"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/edid"
	"github.com/gpubroker/gpubroker/broker/qemudisplay"
	"github.com/gpubroker/gpubroker/broker/qemudisplay/qemudisplaytest"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
	"github.com/gpubroker/gpubroker/shmfallback"
)

func TestMain(m *testing.M) { fdtest.Main(m) }

// events counts what the sink tells.
type events struct {
	refresh atomic.Int64
	modes   atomic.Int64
	mu      sync.Mutex
	heads   []int // guarded by mu
}

func (e *events) Refresh() { e.refresh.Add(1) }

func (e *events) ModeChanged(head int) {
	e.modes.Add(1)
	e.mu.Lock()
	e.heads = append(e.heads, head)
	e.mu.Unlock()
}

// rig is a sink attached to a fake QEMU.
type rig struct {
	t    *testing.T
	q    *qemudisplaytest.QEMU
	s    *qemudisplay.Sink
	ev   *events
	logs *observer.ObservedLogs
}

func newRig(t *testing.T, o qemudisplaytest.Options, c qemudisplay.Config) *rig {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	r := &rig{t: t, q: qemudisplaytest.New(t, o), ev: &events{}, logs: logs}
	c.Log, c.Events = zap.New(core), r.ev
	r.s = qemudisplay.New(c)
	t.Cleanup(func() {
		if err := r.s.Close(); err != nil {
			t.Error(err)
		}
	})
	r.attach()
	return r
}

func (r *rig) attach() {
	before := r.ev.refresh.Load()
	r.s.Attach(r.q.Connect())
	r.q.Wait("refresh", func() bool { return r.ev.refresh.Load() > before })
}

// picture makes a shared buffer whose pixels are all different.
func picture(t *testing.T, w, h uint32, f dmabuf.Fourcc) *dmabuf.Buffer {
	t.Helper()
	b, err := shmfallback.Alloc(w, h, f, "test picture")
	if err != nil {
		t.Fatal(err)
	}
	paint(b, 0)
	t.Cleanup(b.Release)
	return b
}

func paint(b *dmabuf.Buffer, seed uint32) {
	for y := range b.Height {
		for x := range b.Width {
			binary.LittleEndian.PutUint32(b.Mem[y*b.Planes[0].Stride+x*4:], pixel(x, y, seed))
		}
	}
}

func pixel(x, y, seed uint32) uint32 { return (x*7919 + y*104729 + seed*15485863) * 2654435761 }

// flipped makes a buffer like b whose rows go from the bottom to the top.
func flipped(t *testing.T, b *dmabuf.Buffer) *dmabuf.Buffer {
	t.Helper()
	fd, err := b.Planes[0].FD.Dup()
	if err != nil {
		t.Fatal(err)
	}
	f, err := dmabuf.New(dmabuf.Desc{Kind: b.Kind, Width: b.Width, Height: b.Height, Fourcc: b.Fourcc, Modifier: b.Modifier,
		Planes: []dmabuf.Plane{{FD: fd, Stride: b.Planes[0].Stride}}, YInvert: true, Mem: b.Mem})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Release)
	return f
}

// direct makes a buffer that says it is a dma-buf; its memory is a memfd.
func direct(t *testing.T, w, h uint32, f dmabuf.Fourcc, m dmabuf.Modifier, edit func(*dmabuf.Desc)) *dmabuf.Buffer {
	t.Helper()
	src := picture(t, w, h, dmabuf.XRGB8888)
	fd, err := src.Planes[0].FD.Dup()
	if err != nil {
		t.Fatal(err)
	}
	d := dmabuf.Desc{Kind: dmabuf.KindDMABuf, Width: w, Height: h, Fourcc: f, Modifier: m,
		Planes: []dmabuf.Plane{{FD: fd, Stride: src.Planes[0].Stride}}, Origin: "test"}
	if edit != nil {
		edit(&d)
	}
	b, err := dmabuf.New(d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Release)
	return b
}

func (r *rig) present(head int, b *dmabuf.Buffer, src, damage display.Rect) {
	r.s.Present(&display.Frame{Head: head, Buffer: b, Source: src, Damage: damage, Opaque: true, FlushedAt: 1})
}

func whole(b *dmabuf.Buffer) display.Rect { return display.Rect{W: b.Width, H: b.Height} }

// want compares what a head shows with a part of a picture.
func (r *rig) want(head int, b *dmabuf.Buffer, src display.Rect) {
	r.t.Helper()
	s := r.q.Scanout(head)
	if s.W != src.W || s.H != src.H {
		r.t.Fatalf("head %d shows %dx%d, want %dx%d", head, s.W, s.H, src.W, src.H)
	}
	for y := range src.H {
		row := src.Y + y
		if b.YInvert {
			row = b.Height - 1 - row
		}
		p := b.Mem[row*b.Planes[0].Stride+src.X*4:][:src.W*4]
		if got := s.Pixels[y*src.W*4:][:src.W*4]; !bytes.Equal(got, p) {
			r.t.Fatalf("head %d row %d: % x…, want % x…", head, y, got[:8], p[:8])
		}
	}
}

func (r *rig) updates(n int) {
	r.t.Helper()
	r.q.Wait("update", func() bool { return r.q.Scanout(0).Updates >= n })
}

// quiet waits until nobody holds the buffer for reading.
func (r *rig) quiet(b *dmabuf.Buffer) {
	r.t.Helper()
	r.q.Wait("end of reads", func() bool { return !b.Reading() })
}

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

func TestDMABuf(t *testing.T) {
	const tiled = dmabuf.Modifier(1<<56 | 2)
	r := newRig(t, qemudisplaytest.Options{}, qemudisplay.Config{})
	if !r.s.Accepts(dmabuf.ABGR8888, tiled) || r.s.Accepts(dmabuf.RGB565, dmabuf.ModLinear) {
		t.Error("Accepts is wrong")
	}
	a := direct(t, 64, 48, dmabuf.ABGR8888, tiled, nil)
	b := direct(t, 64, 48, dmabuf.XRGB8888, dmabuf.ModInvalid, func(d *dmabuf.Desc) { d.YInvert = true })
	r.present(0, a, whole(a), display.Rect{W: 1, H: 1})
	r.updates(1)
	s := r.q.Scanout(0)
	if !s.DMABuf || !s.HasModifier || s.Modifier != uint64(tiled) || s.Fourcc != uint32(dmabuf.XBGR8888) ||
		s.FDStride != a.Planes[0].Stride || s.FDFlags != 1 || s.FDWidth != 64 || s.W != 64 || s.LastW != 64 || s.LastH != 48 {
		t.Errorf("scanout %+v", s)
	}
	var p [4]byte
	if err := r.q.ReadDMABuf(0, p[:], 4); err != nil || binary.LittleEndian.Uint32(p[:]) != pixel(1, 0, 0) {
		t.Errorf("descriptor reads % x, %v", p, err)
	}
	// The same buffer again is not imported again.
	for i := range 5 {
		r.present(0, a, whole(a), display.Rect{X: 7, Y: 8, W: 9, H: 10})
		r.updates(2 + i)
	}
	st := r.s.Stats()
	if s := r.q.Scanout(0); s.LastX != 7 || s.LastH != 10 || st.Imports.Load() != 1 || st.ImportsLive.Load() != 1 {
		t.Errorf("update %+v, imports %d, live %d", s, st.Imports.Load(), st.ImportsLive.Load())
	}
	if !a.Reading() {
		t.Error("the shown buffer is free to be drawn into")
	}
	r.present(0, b, whole(b), whole(b))
	r.updates(7)
	r.quiet(a)
	if s := r.q.Scanout(0); s.HasModifier || s.FDFlags != 0 || r.q.Count("DMABUF_SCANOUT") != 1 {
		t.Errorf("a buffer of unknown layout: %+v", s)
	}
	if st.FramesDMABuf.Load() != 7 || st.BytesCopied.Load() != 0 || st.Imports.Load() != 2 || st.ImportsLive.Load() != 1 {
		t.Errorf("frames %d, copied %d, imports %d, live %d", st.FramesDMABuf.Load(), st.BytesCopied.Load(), st.Imports.Load(), st.ImportsLive.Load())
	}
	r.s.Disable(0)
	r.quiet(b)
	r.q.Wait("blank", func() bool { return !r.q.Scanout(0).DMABuf })
	if st.ImportsLive.Load() != 0 {
		t.Errorf("%d imports live", st.ImportsLive.Load())
	}
}

// TestBackPressure holds the display's answer: nothing is sent meanwhile, the
// old buffer stays held, the newest frame comes next.
func TestBackPressure(t *testing.T) {
	r := newRig(t, qemudisplaytest.Options{}, qemudisplay.Config{})
	bufs := make([]*dmabuf.Buffer, 4)
	for i := range bufs {
		bufs[i] = direct(t, 32, 32, dmabuf.XRGB8888, dmabuf.ModLinear, nil)
	}
	r.present(0, bufs[0], whole(bufs[0]), whole(bufs[0]))
	r.updates(1)
	r.q.Block(true)
	r.present(0, bufs[1], whole(bufs[1]), whole(bufs[1]))
	r.updates(2)
	for range 10 {
		r.present(0, bufs[2], whole(bufs[2]), whole(bufs[2]))
		r.s.MoveCursor(0, 5, 6)
		time.Sleep(time.Millisecond) // time enough to send it, if it were sent
	}
	r.present(0, bufs[3], whole(bufs[3]), whole(bufs[3]))
	r.quiet(bufs[2])
	if !bufs[0].Reading() || !bufs[1].Reading() || r.q.Scanout(0).Updates != 2 {
		t.Errorf("reading %v %v, %d updates", bufs[0].Reading(), bufs[1].Reading(), r.q.Scanout(0).Updates)
	}
	r.q.Finish()
	r.quiet(bufs[0])
	r.updates(3)
	r.q.Finish()
	r.quiet(bufs[1])
	if n := r.s.Stats().FramesSkipped.Load(); n != 10 {
		t.Errorf("%d frames skipped", n)
	}
	if n := r.q.Count("CURSOR_POS_HIDE"); n != 1 {
		t.Errorf("%d cursor messages for ten moves", n)
	}
}

// TestMixed goes from pixels to a dma-buf and back, the order that can abort QEMU.
func TestMixed(t *testing.T) {
	r := newRig(t, qemudisplaytest.Options{}, qemudisplay.Config{})
	p := picture(t, 32, 32, dmabuf.XRGB8888)
	d := direct(t, 32, 32, dmabuf.XRGB8888, dmabuf.ModLinear, nil)
	for i := range 3 {
		r.present(0, p, whole(p), display.Rect{W: 1, H: 1})
		r.q.Wait("pixels", func() bool { return r.q.Scanout(0).Pixels != nil })
		r.want(0, p, whole(p))
		r.quiet(d)
		r.present(0, d, whole(d), whole(d))
		r.q.Wait("dma-buf", func() bool { return r.q.Scanout(0).DMABuf && r.s.Stats().FramesDMABuf.Load() == uint64(i+1) })
	}
}

func TestWhichTier(t *testing.T) {
	const tiled = dmabuf.Modifier(1<<56 | 2)
	for _, c := range []struct {
		name           string
		old            bool
		mode           qemudisplay.DMABuf
		linear, tiledM bool
	}{
		{"auto", false, qemudisplay.DMABufAuto, true, true},
		{"auto, old QEMU", true, qemudisplay.DMABufAuto, false, false},
		{"on, old QEMU", true, qemudisplay.DMABufOn, true, false},
		{"off", false, qemudisplay.DMABufOff, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, qemudisplaytest.Options{Old: c.old}, qemudisplay.Config{DMABuf: c.mode})
			if got := r.s.Accepts(dmabuf.XRGB8888, dmabuf.ModLinear); got != c.linear {
				t.Errorf("linear: %v", got)
			}
			if got := r.s.Accepts(dmabuf.XRGB8888, tiled); got != c.tiledM {
				t.Errorf("tiled: %v", got)
			}
			if c.old && r.s.EDID(0) != nil {
				t.Error("an EDID from a QEMU without")
			}
			if !c.linear {
				return
			}
			b := direct(t, 16, 16, dmabuf.XRGB8888, dmabuf.ModLinear, nil)
			r.present(0, b, whole(b), whole(b))
			r.updates(1)
			if s := r.q.Scanout(0); !s.DMABuf || s.HasModifier == c.old {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestRejected presents what the format allows and the protocol does not.
func TestRejected(t *testing.T) {
	const tiled = dmabuf.Modifier(1<<56 | 2)
	for _, c := range []struct {
		name string
		src  display.Rect
		edit func(*dmabuf.Desc)
	}{
		{"part", display.Rect{X: 8, W: 8, H: 16}, nil},
		{"offset", display.Rect{W: 16, H: 8}, func(d *dmabuf.Desc) { d.Planes[0].Offset = 256; d.Height = 8 }},
		{"part of an upside-down buffer", display.Rect{W: 16, H: 8}, func(d *dmabuf.Desc) { d.YInvert = true }},
		{"two planes", display.Rect{W: 16, H: 16}, func(d *dmabuf.Desc) {
			fd, err := d.Planes[0].FD.Dup()
			if err != nil {
				panic(err)
			}
			d.Planes = append(d.Planes, dmabuf.Plane{FD: fd, Stride: 64})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, qemudisplaytest.Options{}, qemudisplay.Config{})
			b := direct(t, 16, 16, dmabuf.XRGB8888, tiled, c.edit)
			r.present(0, b, c.src, c.src)
			r.q.Wait("refresh", func() bool { return r.ev.refresh.Load() == 2 })
			r.quiet(b)
			if r.s.Accepts(dmabuf.XRGB8888, tiled) || !r.s.Accepts(dmabuf.XRGB8888, dmabuf.ModLinear) {
				t.Error("Accepts did not learn")
			}
			r.present(0, b, c.src, c.src)
			r.q.Wait("skip", func() bool { return r.s.Stats().FramesSkipped.Load() == 2 })
			if r.ev.refresh.Load() != 2 {
				t.Error("asked for a refresh twice")
			}
			r.attach()
			if !r.s.Accepts(dmabuf.XRGB8888, tiled) {
				t.Error("a new display inherits the refusal")
			}
		})
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

func TestCursor(t *testing.T) {
	r := newRig(t, qemudisplaytest.Options{}, qemudisplay.Config{})
	pix := func(w, h uint32) []byte {
		p := make([]byte, w*h*4)
		for i := range w * h {
			binary.LittleEndian.PutUint32(p[i*4:], 0xff000000|i%w<<8|i/w)
		}
		return p
	}
	for i, c := range []struct {
		w, h, hotX, hotY   uint32
		x0, y0             uint32 // first pixel that is shown
		wantHotX, wantHotY uint32
	}{
		{64, 64, 3, 4, 0, 0, 3, 4},
		{24, 32, 5, 6, 0, 0, 5, 6},
		{128, 128, 10, 11, 0, 0, 10, 11},
		{128, 96, 64, 95, 32, 32, 32, 63},
		{256, 256, 255, 130, 192, 98, 63, 32},
		{65, 1, 0xffffffff, 0xffffffff, 1, 0, 63, 63},
	} {
		r.s.ShowCursor(&display.Cursor{Head: 0, X: 100, Y: int32(200 + i), HotX: c.hotX, HotY: c.hotY, W: c.w, H: c.h, Pixels: pix(c.w, c.h)})
		r.q.Wait("cursor", func() bool { return r.q.Cursor(0).Y == uint32(200+i) })
		got := r.q.Cursor(0)
		if !got.Visible || got.X != 100 || got.HotX != c.wantHotX || got.HotY != c.wantHotY {
			t.Errorf("%dx%d: visible %v, hot spot %d,%d, want %d,%d", c.w, c.h, got.Visible, got.HotX, got.HotY, c.wantHotX, c.wantHotY)
		}
		for y := range uint32(64) {
			for x := range uint32(64) {
				var want uint32
				if x < c.w && y < c.h {
					want = 0xff000000 | (c.x0+x)<<8 | (c.y0 + y)
				}
				if v := binary.LittleEndian.Uint32(got.Pixels[(y*64+x)*4:]); v != want {
					t.Fatalf("%dx%d: pixel %d,%d is %#x, want %#x", c.w, c.h, x, y, v, want)
				}
			}
		}
	}
	r.s.MoveCursor(0, 1, 2)
	r.q.Wait("move", func() bool { c := r.q.Cursor(0); return c.X == 1 && c.Y == 2 && c.Visible })
	if n := r.q.Count("CURSOR_UPDATE"); n != 6 {
		t.Errorf("%d pictures sent", n)
	}
	// A new display gets the picture again.
	r.attach()
	r.q.Wait("cursor again", func() bool { return r.q.Count("CURSOR_UPDATE") == 7 })
	r.s.ShowCursor(&display.Cursor{Head: 0, X: 9, Y: 9})
	r.q.Wait("hide", func() bool { return !r.q.Cursor(0).Visible })
	// Too few pixels: hidden, not read past the end.
	r.s.ShowCursor(&display.Cursor{Head: 0, W: 64, H: 64, Pixels: make([]byte, 64)})
	if r.logs.FilterMessage("cursor hidden").Len() != 1 {
		t.Error("a cursor without pixels was shown")
	}
	r.s.ShowCursor(&display.Cursor{Head: 99, W: 1, H: 1, Pixels: make([]byte, 4)})
	r.s.MoveCursor(-1, 0, 0)
}

func TestModes(t *testing.T) {
	monitor := edid.Build(edid.Params{Width: 1600, Height: 900, Name: "QEMU Monitor"})
	core, _ := observer.New(zap.DebugLevel)
	q := qemudisplaytest.New(t, qemudisplaytest.Options{Heads: 2, Width: 1600, Height: 900, EDID: func(int) []byte { return monitor }})
	ev := &events{}
	s := qemudisplay.New(qemudisplay.Config{Log: zap.New(core), Events: ev, Mode: display.Mode{W: 1024, H: 768}})
	defer s.Close()
	if m := s.Mode(0); m != (display.Mode{Enabled: true, W: 1024, H: 768}) || s.EDID(0) != nil || s.Mode(1).Enabled {
		t.Errorf("before QEMU: %+v", m)
	}
	fresh := func() {
		t.Helper()
		done := make(chan struct{})
		s.Freshen(func() { close(done) })
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			t.Fatal("Freshen does not answer")
		}
	}
	fresh() // without a display: at once
	s.Attach(q.Connect())
	fresh()
	if m := s.Mode(0); m != (display.Mode{Enabled: true, W: 1600, H: 900}) || !bytes.Equal(s.EDID(0), monitor) {
		t.Errorf("QEMU's: %+v, EDID of %d bytes", m, len(s.EDID(0)))
	}
	if n := ev.modes.Load(); n != 0 {
		t.Errorf("%d mode changes while the guest was asking", n)
	}
	// The window is resized; the guest asks, and the first answer is right.
	q.SetMode(0, 800, 600)
	q.SetMode(1, 640, 480)
	fresh()
	if m := s.Mode(0); m.W != 800 || !s.Mode(1).Enabled || s.EDID(1) == nil || s.Mode(2).Enabled {
		t.Errorf("after a resize: %+v, %+v", m, s.Mode(1))
	}
	// A caller that only uses Mode gets the old answer, then hears of the new one.
	q.SetMode(1, 0, 0)
	q.Wait("mode change", func() bool { s.Mode(1); return ev.modes.Load() > 0 })
	ev.mu.Lock()
	if ev.heads[0] != 1 {
		t.Errorf("mode of head %d changed", ev.heads[0])
	}
	ev.mu.Unlock()
	if s.Mode(1).Enabled || s.Mode(-1).Enabled || s.Mode(99).Enabled || s.EDID(99) != nil {
		t.Error("a head that is off has a mode")
	}
	// QEMU does not answer: what is known must do, after a second.
	q.Mute(true)
	start := time.Now()
	fresh()
	if d := time.Since(start); d < 500*time.Millisecond || d > 4*time.Second {
		t.Errorf("waited %v for a QEMU that does not answer", d)
	}
	if s.Mode(0).W != 800 {
		t.Error("the known mode is lost")
	}
}

func TestBadEDID(t *testing.T) {
	r := newRig(t, qemudisplaytest.Options{EDID: func(int) []byte { return make([]byte, 128) }}, qemudisplay.Config{})
	r.q.Wait("EDID", func() bool { return r.logs.FilterMessage("QEMU's EDID is not used").Len() == 1 })
	if r.s.EDID(0) != nil {
		t.Error("an EDID without a header is passed on")
	}
}
