package wayland_test

import (
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/wayland"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/waylandtest"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
)

// oneWindow shows a picture of w x h pixels, which is the head's mode too.
func oneWindow(t *testing.T, comp waylandtest.Config, cfg wayland.Config, w, h uint32) (*waylandtest.Compositor, *wayland.Sink, *events) {
	t.Helper()
	c, ev := waylandtest.New(t, comp), &events{}
	cfg.Display, cfg.Events = c.Socket(), ev
	cfg.Modes = []display.Mode{{Enabled: true, W: w, H: h, WidthMM: w / 4, HeightMM: h / 4}}
	s := openSink(t, cfg)
	present(t, s, w, h)
	c.WaitFrames(t, 1)
	return c, s, ev
}

// present shows a new picture of w x h pixels.
func present(t *testing.T, s *wayland.Sink, w, h uint32) {
	t.Helper()
	b, err := shmfallback.Alloc(w, h, dmabuf.XRGB8888, "test")
	if err != nil {
		t.Fatal(err)
	}
	s.Present(frameOf(b))
	s.Drop(b)
	b.Release()
}

// look is what a window looks like.
type look struct {
	geometry waylandtest.Geometry
	dest     [2]int32
	bars     *waylandtest.Child
}

var unset = [2]int32{-1, -1}

func expectLook(t *testing.T, c *waylandtest.Compositor, what string, want look) {
	t.Helper()
	var got waylandtest.Commit
	end := time.Now().Add(5 * time.Second)
	for {
		all := c.Commits()
		got = all[len(all)-1]
		ok := got.Geometry == want.geometry && got.Dest == want.dest && (len(got.Children) == 1) == (want.bars != nil)
		if ok && want.bars != nil {
			b := got.Children[0]
			ok = b.Below && b.X == want.bars.X && b.Y == want.bars.Y && b.Dest == want.bars.Dest && b.Pixel&0xffffff == 0
		}
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: geometry %v, destination %v, children %+v\nwant %+v", what, got.Geometry, got.Dest, got.Children, want)
		}
		time.Sleep(time.Millisecond)
	}
}

func expectMode(t *testing.T, s *wayland.Sink, w, h uint32) {
	t.Helper()
	waylandtest.Eventually(t, "the mode changes", func() bool { m := s.Mode(0); return m.Enabled && m.W == w && m.H == h })
}

// TestResize drags a window's edge: one mode change for all of it, the old picture
// scaled with bars meanwhile, and the new one pixel by pixel.
func TestResize(t *testing.T) {
	c, s, ev := oneWindow(t, waylandtest.Config{}, wayland.Config{Resize: true}, 320, 200)
	if k := c.Frames()[0]; k.MinW != 64 || k.MinH != 64 || k.MaxW != 0 || k.MaxH != 0 {
		t.Errorf("size %dx%d to %dx%d, want 64x64 to any", k.MinW, k.MinH, k.MaxW, k.MaxH)
	}
	start := time.Now()
	var sizes [][2]int32
	for w := int32(330); w <= 640; w += 10 {
		sizes = append(sizes, [2]int32{w, 200})
	}
	c.Drag(sizes)
	expectLook(t, c, "while the guest does not know", look{geometry: waylandtest.Geometry{X: -160, W: 640, H: 200}, dest: unset,
		bars: &waylandtest.Child{X: -160, Dest: [2]int32{640, 200}}})
	expectMode(t, s, 640, 200)
	if d := time.Since(start); d < 100*time.Millisecond {
		t.Errorf("the mode changed after %v, want the size to settle for 100 ms", d)
	}
	if n := ev.modes.Load(); n != 1 {
		t.Errorf("%d mode changes, want 1", n)
	}
	if m := s.Mode(0); m.WidthMM != 160 || m.HeightMM != 50 {
		t.Errorf("physical size %dx%d mm, want the pixels to keep theirs: 160x50", m.WidthMM, m.HeightMM)
	}
	present(t, s, 640, 200)
	expectLook(t, c, "the guest followed", look{geometry: waylandtest.Geometry{W: 640, H: 200}, dest: unset})

	c.Resize(800, 400)
	expectLook(t, c, "larger", look{geometry: waylandtest.Geometry{Y: -75, W: 800, H: 400}, dest: [2]int32{800, 250},
		bars: &waylandtest.Child{Y: -75, Dest: [2]int32{800, 400}}})
	expectMode(t, s, 800, 400)
	present(t, s, 784, 396) // guests round
	expectLook(t, c, "rounded", look{geometry: waylandtest.Geometry{X: -4, W: 800, H: 400}, dest: [2]int32{792, 400},
		bars: &waylandtest.Child{X: -4, Dest: [2]int32{800, 400}}})
	present(t, s, 793, 400)
	expectLook(t, c, "rounded by less than eight pixels", look{geometry: waylandtest.Geometry{X: -3, W: 800, H: 400}, dest: unset,
		bars: &waylandtest.Child{X: -3, Dest: [2]int32{800, 400}}})

	c.Resize(10, 20)
	expectMode(t, s, 64, 64)
	if n := ev.modes.Load(); n != 3 {
		t.Errorf("%d mode changes, want 3", n)
	}
}

// TestGuestChoosesMode: a floating window follows a mode that the guest took without
// being asked, but not the last mode of a guest that is behind.
func TestGuestChoosesMode(t *testing.T) {
	c, s, ev := oneWindow(t, waylandtest.Config{}, wayland.Config{Resize: true}, 320, 200)
	present(t, s, 400, 300)
	expectLook(t, c, "the guest's choice", look{geometry: waylandtest.Geometry{W: 400, H: 300}, dest: unset})
	c.Resize(400, 300, proto.XdgToplevelStateActivated) // repeats what is
	c.Resize(600, 300)
	expectMode(t, s, 600, 300)
	present(t, s, 500, 300) // on its way
	expectLook(t, c, "a guest that is behind", look{geometry: waylandtest.Geometry{X: -50, W: 600, H: 300}, dest: unset,
		bars: &waylandtest.Child{X: -50, Dest: [2]int32{600, 300}}})
	present(t, s, 600, 300)
	expectLook(t, c, "the guest followed", look{geometry: waylandtest.Geometry{W: 600, H: 300}, dest: unset})
	time.Sleep(2100 * time.Millisecond)
	present(t, s, 320, 200)
	expectLook(t, c, "the guest's choice again", look{geometry: waylandtest.Geometry{W: 320, H: 200}, dest: unset})
	c.Resize(600, 300, proto.XdgToplevelStateActivated) // an old size, repeated before the compositor saw the new one
	present(t, s, 320, 200)
	time.Sleep(150 * time.Millisecond)
	expectLook(t, c, "still", look{geometry: waylandtest.Geometry{W: 320, H: 200}, dest: unset})
	if n := ev.modes.Load(); n != 1 {
		t.Errorf("%d mode changes, want 1", n)
	}
}

// TestStates: sizes that come with a state bind the window, and end with it.
func TestStates(t *testing.T) {
	c, s, _ := oneWindow(t, waylandtest.Config{}, wayland.Config{Resize: true, Fullscreen: true}, 320, 200)
	if !c.Frames()[0].Full {
		t.Error("the window did not ask to be fullscreen")
	}
	for _, state := range []proto.XdgToplevelState{proto.XdgToplevelStateFullscreen, proto.XdgToplevelStateMaximized, proto.XdgToplevelStateTiledLeft} {
		c.Resize(640, 400, state)
		expectMode(t, s, 640, 400)
		expectLook(t, c, "bound", look{geometry: waylandtest.Geometry{W: 640, H: 400}, dest: [2]int32{640, 400}})
		present(t, s, 640, 400)
		expectLook(t, c, "followed", look{geometry: waylandtest.Geometry{W: 640, H: 400}, dest: unset})
		present(t, s, 400, 400)
		expectLook(t, c, "another picture", look{geometry: waylandtest.Geometry{X: -120, W: 640, H: 400}, dest: unset,
			bars: &waylandtest.Child{X: -120, Dest: [2]int32{640, 400}}})
		present(t, s, 320, 200)
		expectLook(t, c, "a smaller picture of the same shape", look{geometry: waylandtest.Geometry{W: 640, H: 400}, dest: [2]int32{640, 400}})
		present(t, s, 640, 400)
		expectLook(t, c, "unscaled", look{geometry: waylandtest.Geometry{W: 640, H: 400}, dest: unset})
		present(t, s, 320, 200)
		expectLook(t, c, "scaled again", look{geometry: waylandtest.Geometry{W: 640, H: 400}, dest: [2]int32{640, 400}})
		c.Resize(0, 0)
		expectMode(t, s, 320, 200)
		present(t, s, 320, 200)
		expectLook(t, c, "free", look{geometry: waylandtest.Geometry{W: 320, H: 200}, dest: unset})
	}
}

// TestFixedSize: without Resize the window is as large as its picture, but for what
// a compositor would end the connection for.
func TestFixedSize(t *testing.T) {
	c, s, ev := oneWindow(t, waylandtest.Config{}, wayland.Config{}, 320, 200)
	natural := look{geometry: waylandtest.Geometry{W: 320, H: 200}, dest: unset}
	c.Resize(500, 500)
	c.Resize(500, 500, proto.XdgToplevelStateFullscreen)
	present(t, s, 320, 200)
	c.WaitFrames(t, 2)
	expectLook(t, c, "smaller than the screen", natural)
	c.Resize(160, 200, proto.XdgToplevelStateFullscreen)
	expectLook(t, c, "larger than the screen", look{geometry: waylandtest.Geometry{Y: -50, W: 160, H: 200}, dest: [2]int32{160, 100},
		bars: &waylandtest.Child{Y: -50, Dest: [2]int32{160, 200}}})
	c.Resize(640, 400, proto.XdgToplevelStateMaximized)
	expectLook(t, c, "maximised", look{geometry: waylandtest.Geometry{W: 640, H: 400}, dest: [2]int32{640, 400}})
	c.Resize(320, 200)
	expectLook(t, c, "free", natural)
	if n := ev.modes.Load(); n != 0 {
		t.Errorf("%d mode changes, want none", n)
	}
	s.Resizable(true)
	c.Resize(700, 300)
	expectMode(t, s, 700, 300)
	s.Resizable(false)
	present(t, s, 320, 200)
	expectLook(t, c, "fixed again", natural)
}

// TestPointerOnScaledPicture: the pointer's place counts from the picture's corner,
// on the bars it is at the picture's edge.
func TestPointerOnScaledPicture(t *testing.T) {
	r := &recorder{}
	c, _, _ := oneWindow(t, waylandtest.Config{Seat: true, SeatVersion: 5}, wayland.Config{Resize: true, Input: r}, 320, 200)
	c.Resize(640, 200)
	expectLook(t, c, "with bars", look{geometry: waylandtest.Geometry{X: -160, W: 640, H: 200}, dest: unset,
		bars: &waylandtest.Child{X: -160, Dest: [2]int32{640, 200}}})
	c.Resize(640, 800)
	expectLook(t, c, "magnified", look{geometry: waylandtest.Geometry{Y: -200, W: 640, H: 800}, dest: [2]int32{640, 400},
		bars: &waylandtest.Child{Y: -200, Dest: [2]int32{640, 800}}})
	r.expect(t, c, "on the picture", func(d waylandtest.Devices) {
		x, y := at(320, 100)
		d.Pointer.SendEnter(d.Out, 1, d.Windows[0], x, y)
		d.Pointer.SendFrame(d.Out)
	}, "0:pointer(16384,8192)", "0:frame")
	r.expect(t, c, "on the bars", func(d waylandtest.Devices) {
		d.Pointer.SendLeave(d.Out, 1, d.Windows[0])
		x, y := at(160, 100)
		d.Pointer.SendEnter(d.Out, 1, d.Below[0], x, y)
		d.Pointer.SendFrame(d.Out)
		x, y = at(160, 799)
		d.Pointer.SendMotion(d.Out, 1, x, y)
		d.Pointer.SendFrame(d.Out)
		x, y = at(160, 300)
		d.Pointer.SendMotion(d.Out, 1, x, y)
		d.Pointer.SendFrame(d.Out)
	}, "0:pointer(8192,0)", "0:frame", "0:pointer(8192,32767)", "0:frame", "0:pointer(8192,8192)", "0:frame")
}
