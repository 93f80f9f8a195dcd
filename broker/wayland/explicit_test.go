package wayland_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker/wayland/waylandtest"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

// syncDevice opens the first render node with timelines. TestExplicitInVM runs the
// tests that need it in a guest that has one.
func syncDevice(t *testing.T) *dmabuf.SyncDevice {
	t.Helper()
	nodes, _ := filepath.Glob("/dev/dri/renderD*")
	reason := errors.New("there is no render node")
	for _, node := range nodes {
		d, err := dmabuf.OpenSyncDevice(node)
		if err == nil {
			t.Cleanup(func() { _ = d.Close() })
			return d
		}
		reason = err
	}
	t.Skipf("%v; TestExplicitInVM runs this test in a guest", reason)
	return nil
}

// TestExplicitSync: commits of dma-bufs carry points, those of shared memory none; a
// buffer is free when its release point signals, whatever wl_buffer.release says.
func TestExplicitSync(t *testing.T) {
	dev := syncDevice(t)
	u, err := dmabuf.OpenUDMABuf()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = u.Close() })
	l := waylandtest.Layout{Fourcc: dmabuf.XRGB8888}
	c, s, _ := connect(t, waylandtest.Config{DMABuf: 3, Layouts: []waylandtest.Layout{l}, Sync: dev, HoldReleases: true})
	defer closeSink(t, s)
	var bufs [2]*dmabuf.Buffer
	for i := range bufs {
		bufs[i] = realDMABuf(t, u, pattern(headW, headH, i), dmabuf.XRGB8888, false)
		defer bufs[i].Release()
	}
	for i := range 6 {
		s.Present(frameOf(bufs[i%2]))
		k := c.WaitFrames(t, i+1)[i]
		if !k.Explicit || !k.Acquired {
			t.Fatalf("frame %d: explicit %v, acquired %v: nothing works on this buffer", i, k.Explicit, k.Acquired)
		}
		time.Sleep(5 * time.Millisecond)
		if i > 0 && !bufs[1-i%2].Reading() {
			t.Fatalf("frame %d: the buffer before is free without its release point", i)
		}
		c.Release()
		waylandtest.Eventually(t, "the buffer before is free", func() bool { return i == 0 || !bufs[1-i%2].Reading() })
		if !bufs[i%2].Reading() {
			t.Fatalf("frame %d: the shown buffer is free", i)
		}
	}
	if n := s.Stats().Imports.Load(); n != 2 {
		t.Errorf("%d imports, want 2", n)
	}
	b := shm(t, 7)
	s.Present(frameOf(b))
	if k := c.WaitFrames(t, 7)[6]; k.Explicit || !k.Buffer.Shm {
		t.Errorf("shared memory with points: %v", k.Explicit)
	}
	c.Release()
	waylandtest.Eventually(t, "the last dma-buf is free", func() bool { return !bufs[0].Reading() && !bufs[1].Reading() })
	s.Present(frameOf(bufs[0]))
	if k := c.WaitFrames(t, 8)[7]; !k.Explicit {
		t.Error("no points after shared memory")
	}
	c.Kill() // with a point that never signals
	waylandtest.Eventually(t, "the window is back", func() bool { return len(c.Frames()) == 9 })
	if k := c.Frames()[8]; !k.Explicit {
		t.Error("no points after a reconnect")
	}
	c.CloseWindows()
	waylandtest.Eventually(t, "the window is closed", func() bool { return c.Toplevels() == 0 })
	c.Release()
	waylandtest.Eventually(t, "the buffer of a closed window is free", func() bool { return !bufs[0].Reading() })
	s.Drop(bufs[0])
	s.Drop(bufs[1])
	s.Drop(b)
	waylandtest.Eventually(t, "all is forgotten", func() bool { return c.Buffers() == 0 })
}

// TestExplicitInVM runs it in a guest that plays the host: udmabuf has the buffers, and
// virtio-gpu a node with timeline syncobjs.
func TestExplicitInVM(t *testing.T) {
	if labtest.Root(t).InGuest() {
		t.Skip("already in the guest")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	vm := labtest.HostVM(t, lab.VMConfig{Devices: []string{"-device", "virtio-gpu-pci"}})
	if out, err := vm.Check(ctx, "modprobe virtio_gpu"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	binary := filepath.Join(t.TempDir(), "wayland.test")
	if err := lab.BuildTest(ctx, ".", binary); err != nil {
		t.Fatal(err)
	}
	out, code, err := vm.RunBinary(ctx, binary, nil, "-test.v", "-test.run", "^TestExplicitSync$")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("in the guest:\n%s", out)
	if code != 0 || !strings.Contains(out, "--- PASS: TestExplicitSync") {
		t.Errorf("the inner test ended with code %d", code)
	}
}
