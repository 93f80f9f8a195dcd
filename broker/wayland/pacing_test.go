package wayland_test

import (
	"slices"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker/wayland/waylandtest"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// TestShown: a frame is reported at the callback of its commit, one that was
// superseded with the one after it.
func TestShown(t *testing.T) {
	b := [2]*dmabuf.Buffer{shm(t, 1), shm(t, 2)}
	c, s, ev := connect(t, waylandtest.Config{HoldFrames: true})
	defer closeSink(t, s)
	if s.Paces(0) || s.Paces(-1) || s.Paces(16) {
		t.Error("a head without a window paces")
	}
	show := func(serial uint64) {
		f := frameOf(b[serial%2])
		f.Serial = serial
		s.Present(f)
	}
	show(1)
	c.WaitFrames(t, 1)
	time.Sleep(10 * time.Millisecond)
	if got := ev.serials(); len(got) != 0 || s.Paces(0) {
		t.Fatalf("reported %v before the callback", got)
	}
	c.Frame()
	waylandtest.Eventually(t, "the first frame is reported", func() bool { return slices.Equal(ev.serials(), []uint64{1}) && s.Paces(0) })
	show(2)
	c.WaitFrames(t, 2)
	show(3)
	waylandtest.Eventually(t, "frame 3 waits", func() bool { return b[1].Reading() })
	show(4)
	waylandtest.Eventually(t, "frame 3 is superseded", func() bool { return s.Stats().FramesSkipped.Load() == 1 })
	c.Frame()
	c.WaitFrames(t, 3)
	c.Frame()
	waylandtest.Eventually(t, "frames 2 and 4 are reported", func() bool { return slices.Equal(ev.serials(), []uint64{1, 2, 4}) })

	// A hidden window: the frame goes out after a while and nobody waits for it.
	show(5)
	c.WaitFrames(t, 4)
	show(6)
	waylandtest.Eventually(t, "the head no longer paces", func() bool { return !s.Paces(0) })
	c.WaitFrames(t, 5)
	if got := ev.serials(); !slices.Contains(got, 6) {
		t.Errorf("reported %v, want 6 too", got)
	}
	c.Frame()
	waylandtest.Eventually(t, "it paces again", func() bool { return s.Paces(0) })

	show(7)
	c.WaitFrames(t, 6)
	c.CloseWindows()
	waylandtest.Eventually(t, "the window is closed", func() bool {
		return ev.closed.Load() == 1 && !s.Paces(0) && slices.Contains(ev.serials(), 7)
	})
}

// TestShownWithoutPicture: nobody waits for a frame that cannot be shown, nor for one
// of a compositor that went away.
func TestShownWithoutPicture(t *testing.T) {
	good, bad := shm(t, 1), shm(t, 2)
	bad.Fourcc = dmabuf.NV12
	c, s, ev := connect(t, waylandtest.Config{})
	defer closeSink(t, s)
	f := frameOf(good)
	f.Serial = 1
	s.Present(f)
	waylandtest.Eventually(t, "the good frame is reported", func() bool { return slices.Equal(ev.serials(), []uint64{1}) && s.Paces(0) })
	f = frameOf(bad)
	f.Serial = 2
	s.Present(f)
	waylandtest.Eventually(t, "the bad frame is reported", func() bool { return slices.Equal(ev.serials(), []uint64{1, 2}) })
	c.Set(func(k *waylandtest.Config) { k.HoldFrames = true })
	f = frameOf(good)
	f.Serial = 3
	s.Present(f)
	c.WaitFrames(t, 2)
	c.Kill()
	waylandtest.Eventually(t, "the lost frame is reported", func() bool { return slices.Contains(ev.serials(), 3) })
}
