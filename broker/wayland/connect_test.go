package wayland_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland"
	"github.com/gpubroker/gpubroker/broker/wayland/waylandtest"
	"github.com/gpubroker/gpubroker/dmabuf"
)

func TestNoCompositor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none")
	s, err := wayland.NewSink(wayland.Config{Display: path})
	if s != nil || !errors.Is(err, wayland.ErrNoCompositor) || !errors.Is(err, unix.ENOENT) {
		t.Fatalf("error %v", err)
	}
	for _, want := range []string{path, "WAYLAND_DISPLAY", "no such file"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not say %q: %v", want, err)
		}
	}
	t.Setenv("XDG_RUNTIME_DIR", "")
	if _, err := wayland.NewSink(wayland.Config{Display: "wayland-9"}); !errors.Is(err, wayland.ErrNoCompositor) || !strings.Contains(err.Error(), "XDG_RUNTIME_DIR") {
		t.Errorf("error %v", err)
	}
	if _, err := wayland.NewSink(wayland.Config{Display: "/" + strings.Repeat("x", 108)}); !errors.Is(err, wayland.ErrNoCompositor) || !strings.Contains(err.Error(), "107") {
		t.Errorf("error %v", err)
	}
}

func TestDisplayByName(t *testing.T) {
	c := waylandtest.New(t, waylandtest.Config{})
	t.Setenv("XDG_RUNTIME_DIR", filepath.Dir(c.Socket()))
	t.Setenv("WAYLAND_DISPLAY", filepath.Base(c.Socket()))
	closeSink(t, newSink(t, "", nil))
	closeSink(t, newSink(t, filepath.Base(c.Socket()), nil))
}

func TestMissingGlobal(t *testing.T) {
	c := waylandtest.New(t, waylandtest.Config{NoXdgShell: true})
	_, err := wayland.NewSink(wayland.Config{Display: c.Socket()})
	if !errors.Is(err, wayland.ErrMissing) || !strings.Contains(err.Error(), "xdg_wm_base 0") {
		t.Errorf("error %v", err)
	}
}

// TestWait starts before the compositor.
func TestWait(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "w")
	ev := &events{}
	s, err := wayland.NewSink(wayland.Config{Display: path, Wait: true, Log: zap.NewNop(), Events: ev})
	if err != nil {
		t.Fatal(err)
	}
	b := shm(t, 3)
	defer closeSink(t, s)
	s.Present(frameOf(b))
	waylandtest.Eventually(t, "the frame is put aside", func() bool { return !b.Reading() })
	if s.Accepts(dmabuf.XRGB8888, dmabuf.ModLinear) {
		t.Error("dma-bufs are accepted without a compositor")
	}
	c, err := waylandtest.Listen(path, waylandtest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if k := c.WaitFrames(t, 1)[0]; k.Pixel&255 != 3 {
		t.Errorf("pixel %#x", k.Pixel)
	}
	if ev.refreshes.Load() != 1 || s.Stats().Reconnects.Load() != 0 {
		t.Errorf("%d refreshes, %d reconnects; want 1 and 0", ev.refreshes.Load(), s.Stats().Reconnects.Load())
	}
}
