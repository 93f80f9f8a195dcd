package wayland_test

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/wayland"
	"github.com/gpubroker/gpubroker/broker/wayland/waylandtest"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
)

// connect starts a fake compositor and a sink on it.
func connect(t *testing.T, cfg waylandtest.Config) (*waylandtest.Compositor, *wayland.Sink, *events) {
	t.Helper()
	c := waylandtest.New(t, cfg)
	ev := &events{}
	return c, newSink(t, c.Socket(), ev), ev
}

// shm makes a shared-memory buffer of 64x32 whose first pixel is px.
func shm(t testing.TB, px byte) *dmabuf.Buffer {
	t.Helper()
	b, err := shmfallback.Alloc(64, 32, dmabuf.XRGB8888, "test")
	if err != nil {
		t.Fatal(err)
	}
	b.Mem[0] = px
	t.Cleanup(func() {
		if n := b.References(); n != 1 {
			t.Errorf("%v: %d references at the end, want the test's own", b, n)
		}
		b.Release()
	})
	return b
}

// fakeDMABuf makes a buffer that says it is a dma-buf; the fake compositor does
// not look inside.
func fakeDMABuf(t testing.TB, f dmabuf.Fourcc, m dmabuf.Modifier, planes int) *dmabuf.Buffer {
	t.Helper()
	d := dmabuf.Desc{Kind: dmabuf.KindDMABuf, Width: 64, Height: 32, Fourcc: f, Modifier: m, Origin: "test"}
	for range planes {
		raw, err := unix.MemfdCreate("plane", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		d.Planes = append(d.Planes, dmabuf.Plane{FD: dmabuf.NewFD(raw, "plane"), Stride: 256})
	}
	b, err := dmabuf.New(d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Release)
	return b
}

// closeSink ends the sink while the buffers of the test still exist, so that
// their reference counts can be checked.
func closeSink(t *testing.T, s *wayland.Sink) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestFirstFrame(t *testing.T) {
	b := shm(t, 7)
	c, s, _ := connect(t, waylandtest.Config{Decorations: true})
	defer closeSink(t, s)
	s.Present(frameOf(b))
	k := c.WaitFrames(t, 1)[0]
	if k.Title != "test" || k.AppID != "gpubroker" {
		t.Errorf("title %q, app id %q", k.Title, k.AppID)
	}
	if k.MinW != 64 || k.MaxW != 64 || k.MinH != 32 || k.MaxH != 32 || k.Geometry != (waylandtest.Geometry{W: 64, H: 32}) || k.Opaque != whole(b) {
		t.Errorf("size %dx%d to %dx%d, geometry %v, opaque %v", k.MinW, k.MinH, k.MaxW, k.MaxH, k.Geometry, k.Opaque)
	}
	if k.Pixel&255 != 7 || !k.Frame || len(k.Damage) != 1 || k.Damage[0] != whole(b) {
		t.Errorf("pixel %#x, frame callback %v, damage %v", k.Pixel, k.Frame, k.Damage)
	}
	c.Ping(77)
	waylandtest.Eventually(t, "a pong", func() bool { p := c.Pongs(); return len(p) == 1 && p[0] == 77 })
}

// TestPacing holds frame callbacks back: of many frames the newest is shown when
// the callback comes, with the damage of all.
func TestPacing(t *testing.T) {
	b := [3]*dmabuf.Buffer{shm(t, 1), shm(t, 2), shm(t, 3)}
	c, s, _ := connect(t, waylandtest.Config{HoldFrames: true})
	defer closeSink(t, s)
	s.Present(frameOf(b[0]))
	c.WaitFrames(t, 1)
	f := frameOf(b[1])
	f.Damage = display.Rect{X: 1, Y: 1, W: 2, H: 2}
	s.Present(f)
	f = frameOf(b[2])
	f.Damage = display.Rect{X: 10, Y: 5, W: 1, H: 1}
	s.Present(f)
	waylandtest.Eventually(t, "a frame is skipped", func() bool { return s.Stats().FramesSkipped.Load() == 1 })
	if b[1].Reading() || !b[2].Reading() {
		t.Errorf("reading the skipped frame %v, the waiting one %v", b[1].Reading(), b[2].Reading())
	}
	if n := len(c.Frames()); n != 1 {
		t.Fatalf("%d frames before the callback, want 1", n)
	}
	c.Frame()
	frames := c.WaitFrames(t, 2)
	if want := (display.Rect{X: 1, Y: 1, W: 10, H: 5}); frames[1].Pixel&255 != 3 || frames[1].Damage[0] != want {
		t.Errorf("pixel %#x with damage %v, want 3 with %v", frames[1].Pixel, frames[1].Damage, want)
	}
	if n := s.Stats().Latency.Count(); n != 0 {
		t.Errorf("%d latencies of frames that carry no time", n)
	}
}

// TestHiddenWindow: without callbacks frames still move now and then.
func TestHiddenWindow(t *testing.T) {
	b := [2]*dmabuf.Buffer{shm(t, 1), shm(t, 2)}
	c, s, _ := connect(t, waylandtest.Config{HoldFrames: true})
	defer closeSink(t, s)
	start := time.Now()
	for i := range 3 {
		s.Present(frameOf(b[i%2]))
		c.WaitFrames(t, i+1)
	}
	if d := time.Since(start); d < 400*time.Millisecond || d > 5*time.Second {
		t.Errorf("two frames without callbacks took %v, want about 500 ms", d)
	}
	asked := 0
	for _, k := range c.Frames() {
		if k.Frame {
			asked++
		}
	}
	if asked != 1 {
		t.Errorf("%d callbacks asked for while the first is outstanding, want 1", asked)
	}
}

// TestFrozen stops the compositor: Present stays quick, the newest frame wins.
func TestFrozen(t *testing.T) {
	b := [4]*dmabuf.Buffer{shm(t, 0), shm(t, 1), shm(t, 2), shm(t, 3)}
	c, s, _ := connect(t, waylandtest.Config{})
	defer closeSink(t, s)
	s.Present(frameOf(b[0]))
	c.WaitFrames(t, 1)
	c.Freeze()
	const frames = 20000
	worst := time.Duration(0)
	for i := range frames {
		start := time.Now()
		s.Present(frameOf(b[i%4]))
		s.MoveCursor(0, int32(i), 3)
		worst = max(worst, time.Since(start))
	}
	if worst > 100*time.Millisecond {
		t.Errorf("a Present took %v", worst)
	}
	c.Thaw()
	waylandtest.Eventually(t, "the newest frame", func() bool {
		f := c.Frames()
		return f[len(f)-1].Pixel&255 == (frames-1)%4 && s.Stats().FramesShm.Load()+s.Stats().FramesSkipped.Load() == frames+1
	})
	if n := len(c.Frames()); n > 10 {
		t.Errorf("%d commits were queued for a compositor that does not read", n)
	}
}

func TestReleaseEndsRead(t *testing.T) {
	b := [2]*dmabuf.Buffer{shm(t, 1), shm(t, 2)}
	c, s, _ := connect(t, waylandtest.Config{HoldReleases: true})
	defer closeSink(t, s)
	s.Present(frameOf(b[0]))
	c.WaitFrames(t, 1)
	s.Present(frameOf(b[1]))
	c.WaitFrames(t, 2)
	time.Sleep(20 * time.Millisecond)
	if !b[0].Reading() || !b[1].Reading() {
		t.Error("a read ended before the release")
	}
	c.Release()
	waylandtest.Eventually(t, "the first buffer is free", func() bool { return !b[0].Reading() })
	if !b[1].Reading() {
		t.Error("the shown buffer is not read any more")
	}
}

// TestReattach shows one buffer again and again: one read, one import.
func TestReattach(t *testing.T) {
	b := shm(t, 1)
	c, s, _ := connect(t, waylandtest.Config{EarlyRelease: true})
	defer closeSink(t, s)
	for i := range 20 {
		s.Present(frameOf(b))
		c.WaitFrames(t, i+1)
	}
	waylandtest.Eventually(t, "two references of the sink and a read", func() bool { return b.References() == 4 && b.Reading() })
	if n := s.Stats().Imports.Load(); n != 1 {
		t.Errorf("%d imports, want 1", n)
	}
	if n := s.Stats().FramesShm.Load(); n != 20 {
		t.Errorf("%d frames, want 20", n)
	}
}

func TestDrop(t *testing.T) {
	b := [2]*dmabuf.Buffer{shm(t, 1), shm(t, 2)}
	c, s, _ := connect(t, waylandtest.Config{HoldReleases: true})
	defer closeSink(t, s)
	s.Present(frameOf(b[0]))
	c.WaitFrames(t, 1)
	s.Present(frameOf(b[1]))
	c.WaitFrames(t, 2)
	s.Drop(b[0])
	time.Sleep(20 * time.Millisecond)
	if n := c.Buffers(); n != 2 {
		t.Errorf("%d wl_buffers before the release, want 2", n)
	}
	c.Release()
	waylandtest.Eventually(t, "the dropped wl_buffer is gone", func() bool { return c.Buffers() == 1 && b[0].References() == 1 })
	s.Drop(b[1]) // still shown
	s.Disable(0)
	c.WaitFrames(t, 3)
	c.Release()
	waylandtest.Eventually(t, "only black is left", func() bool { return c.Buffers() == 1 && b[1].References() == 1 })
	waylandtest.Eventually(t, "the window closes", func() bool { c.Release(); return c.Toplevels() == 0 && c.Buffers() == 0 })
	if n := s.Stats().ImportsLive.Load(); n != 0 {
		t.Errorf("%d imports live", n)
	}
	if n := s.Stats().FramesShm.Load(); n != 2 {
		t.Errorf("%d frames counted, want 2: black is not one", n)
	}
}

// TestDropWaiting drops a buffer whose frame waits for the callback.
func TestDropWaiting(t *testing.T) {
	b := [2]*dmabuf.Buffer{shm(t, 1), shm(t, 2)}
	c, s, _ := connect(t, waylandtest.Config{HoldFrames: true})
	defer closeSink(t, s)
	s.Present(frameOf(b[0]))
	c.WaitFrames(t, 1)
	s.Present(frameOf(b[1]))
	s.Drop(b[1])
	c.WaitFrames(t, 2)
	s.Present(frameOf(b[0]))
	c.WaitFrames(t, 3)
	waylandtest.Eventually(t, "the dropped buffer is gone", func() bool { return b[1].References() == 1 && c.Buffers() == 1 })
}

func TestUserClosesWindow(t *testing.T) {
	b := shm(t, 1)
	c, s, _ := connect(t, waylandtest.Config{})
	defer closeSink(t, s)
	s.Present(frameOf(b))
	c.WaitFrames(t, 1)
	c.CloseWindows()
	waylandtest.Eventually(t, "the window is gone", func() bool { return c.Toplevels() == 0 && !b.Reading() })
	s.Present(frameOf(b))
	waylandtest.Eventually(t, "the frame is taken", func() bool { return s.Stats().FramesSkipped.Load() == 1 })
	if n := c.Toplevels(); n != 0 {
		t.Errorf("%d windows after a frame of the same size", n)
	}
	f := frameOf(b)
	f.Source.W = 48
	s.Present(f)
	c.WaitFrames(t, 2)
	c.CloseWindows()
	waylandtest.Eventually(t, "the window is gone again", func() bool { return c.Toplevels() == 0 })
	s.Disable(0)
	s.Present(f)
	c.WaitFrames(t, 3)
}

func TestTwoHeads(t *testing.T) {
	b := [2]*dmabuf.Buffer{shm(t, 1), shm(t, 2)}
	c, s, _ := connect(t, waylandtest.Config{})
	defer closeSink(t, s)
	for i := range b {
		f := frameOf(b[i])
		f.Head = i
		s.Present(f)
		k := c.WaitFrames(t, i+1)[i]
		if want := []string{"test", "test — head 1"}[i]; k.Title != want || k.Pixel&255 != uint32(i+1) {
			t.Errorf("head %d: title %q with pixel %#x, want %q", i, k.Title, k.Pixel, want)
		}
	}
	if n := c.Toplevels(); n != 2 {
		t.Errorf("%d windows, want 2", n)
	}
	if m := s.Mode(0); !m.Enabled || m.W != headW {
		t.Errorf("mode of head 0: %+v", m)
	}
	if m := s.Mode(1); m.Enabled {
		t.Errorf("mode of head 1: %+v", m)
	}
}

// TestCropWithoutViewporter shows part of a shared-memory buffer by a wl_buffer
// of that part, and refuses to do so with a dma-buf.
func TestCropWithoutViewporter(t *testing.T) {
	for _, yInvert := range []bool{false, true} {
		b := shm(t, 0)
		b.YInvert = yInvert
		crop := display.Rect{X: 8, Y: 4, W: 40, H: 20}
		row := uint32(4)
		if yInvert {
			row = 32 - 24
		}
		b.Mem[row*b.Planes[0].Stride+8*4] = 9
		c, s, _ := connect(t, waylandtest.Config{NoViewporter: true})
		f := frameOf(b)
		f.Source, f.Damage = crop, crop
		s.Present(f)
		k := c.WaitFrames(t, 1)[0]
		if k.Pixel&255 != 9 || k.Buffer.W != 40 || k.Buffer.H != 20 || k.Damage[0] != (display.Rect{W: 40, H: 20}) {
			t.Errorf("inverted %v: pixel %#x of a buffer of %dx%d, damage %v", yInvert, k.Pixel, k.Buffer.W, k.Buffer.H, k.Damage)
		}
		f.Damage = display.Rect{X: 10, Y: 5, W: 3, H: 2}
		s.Present(f)
		want := display.Rect{X: 2, Y: 1, W: 3, H: 2}
		if yInvert {
			want.Y = 20 - 1 - 2
		}
		if k := c.WaitFrames(t, 2)[1]; k.Damage[0] != want {
			t.Errorf("inverted %v: damage %v, want %v", yInvert, k.Damage, want)
		}
		closeSink(t, s)
	}
	l := waylandtest.Layout{Fourcc: dmabuf.XRGB8888}
	c, s, _ := connect(t, waylandtest.Config{NoViewporter: true, DMABuf: 3, Layouts: []waylandtest.Layout{l}})
	b := fakeDMABuf(t, l.Fourcc, l.Modifier, 1)
	f := frameOf(b)
	f.Source.W = 32
	s.Present(f)
	waylandtest.Eventually(t, "the frame is refused", func() bool { return s.Stats().FramesSkipped.Load() == 1 && !b.Reading() })
	if n := len(c.Frames()); n != 0 {
		t.Errorf("%d frames shown", n)
	}
}

// TestBadFrames gives the sink what wl_shm would end the connection for.
func TestBadFrames(t *testing.T) {
	good := shm(t, 5)
	c, s, _ := connect(t, waylandtest.Config{})
	defer closeSink(t, s)
	s.Present(frameOf(good))
	c.WaitFrames(t, 1)
	for name, spoil := range map[string]func(b *dmabuf.Buffer, f *display.Frame){
		"source outside":   func(_ *dmabuf.Buffer, f *display.Frame) { f.Source.X = 10 },
		"source overflows": func(_ *dmabuf.Buffer, f *display.Frame) { f.Source.X = ^uint32(0) },
		"file too short":   func(b *dmabuf.Buffer, _ *display.Frame) { b.Planes[0].Offset = 1 << 20 },
		"pool too large":   func(b *dmabuf.Buffer, _ *display.Frame) { b.Planes[0].Offset = 1 << 31 },
		"stride too small": func(b *dmabuf.Buffer, _ *display.Frame) { b.Planes[0].Stride = 64*4 - 1 },
		"unknown format":   func(b *dmabuf.Buffer, _ *display.Frame) { b.Fourcc = dmabuf.NV12 },
	} {
		b := shm(t, 1)
		f := frameOf(b)
		spoil(b, f)
		skipped := s.Stats().FramesSkipped.Load()
		s.Present(f)
		waylandtest.Eventually(t, name+": the frame is refused", func() bool { return s.Stats().FramesSkipped.Load() == skipped+1 && !b.Reading() })
		s.Drop(b)
		waylandtest.Eventually(t, name+": the buffer is free", func() bool { return b.References() == 1 })
	}
	s.Present(frameOf(good))
	c.WaitFrames(t, 2)
	if n := c.Accepted(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// TestConfigureLate: nothing is attached before the compositor configured the
// window, and then the newest frame.
func TestConfigureLate(t *testing.T) {
	b := [2]*dmabuf.Buffer{shm(t, 1), shm(t, 2)}
	c, s, _ := connect(t, waylandtest.Config{HoldConfigure: true})
	defer closeSink(t, s)
	s.Present(frameOf(b[0]))
	waylandtest.Eventually(t, "the window asks for its size", func() bool { return len(c.Commits()) == 1 })
	s.Present(frameOf(b[1]))
	waylandtest.Eventually(t, "the first frame is skipped", func() bool { return s.Stats().FramesSkipped.Load() == 1 })
	if n := len(c.Commits()); n != 1 {
		t.Errorf("%d commits before the configure, want 1", n)
	}
	c.Configure()
	if k := c.WaitFrames(t, 1)[0]; k.Pixel&255 != 2 || k.Damage[0] != whole(b[1]) {
		t.Errorf("pixel %#x with damage %v", k.Pixel, k.Damage)
	}
}
