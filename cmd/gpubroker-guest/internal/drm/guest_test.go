package drm_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/drm"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/inguest"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
)

func TestMain(m *testing.M) { fdtest.Main(m) }

// node returns the guest's device with 3D, or that without.
func node(t testing.TB, has3D bool) drm.Node {
	t.Helper()
	inguest.Need(t)
	nodes, err := drm.Nodes()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if n.Has3D == has3D {
			return n
		}
	}
	t.Fatalf("no device with 3D=%v among %+v", has3D, nodes)
	return drm.Node{}
}

func open(t testing.TB, n drm.Node) *drm.Device {
	t.Helper()
	d, err := drm.Open(n.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func TestNodes(t *testing.T) {
	gpu, imp := node(t, true), node(t, false)
	t.Logf("%+v\n%+v", gpu, imp)
	if !gpu.HostMemory() || !gpu.ContextInit || gpu.Imports() {
		t.Errorf("the GPU: %+v", gpu)
	}
	if !imp.Imports() || imp.HostMemory() || imp.CrossDomain() {
		t.Errorf("the import device: %+v", imp)
	}
	if _, err := drm.Open("/dev/null"); !errors.Is(err, dmabuf.ErrNotSupported) {
		t.Errorf("open /dev/null: %v", err)
	}
}

func comm(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("/proc/thread-self/comm")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// TestBlob makes host memory, shares it, and holds it more than once.
func TestBlob(t *testing.T) {
	d := open(t, node(t, true))
	before := comm(t)
	if err := d.Name("token-token-12"); err != nil {
		t.Fatal(err)
	}
	if after := comm(t); after != before {
		t.Errorf("the thread is called %q now and was %q", after, before)
	}
	if err := d.Name("again"); err != nil {
		t.Errorf("a second name: %v", err)
	}
	h, err := d.CreateBlob(drm.BlobHost3D, drm.BlobMappable|drm.BlobShareable, 1<<20, 0)
	if err != nil {
		t.Fatal(err)
	}
	mem, err := h.Map()
	if err != nil {
		t.Fatal(err)
	}
	copy(mem[1<<19:], "in the host's memory")
	fd, err := h.Export()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fd.Close() }()

	other := open(t, node(t, true))
	if err := other.Name("other"); err != nil {
		t.Fatal(err)
	}
	one, err := other.Import(fd)
	if err != nil {
		t.Fatal(err)
	}
	two, err := other.Import(fd)
	if err != nil {
		t.Fatal(err)
	}
	if one.Resource() != h.Resource() || two.Resource() != h.Resource() || h.Resource() == 0 || one.Size() != 1<<20 {
		t.Errorf("resources %d, %d of %d bytes, want %d of %d", one.Resource(), two.Resource(), one.Size(), h.Resource(), 1<<20)
	}
	one.Close()
	one.Close() // does nothing
	again, err := two.Map()
	if err != nil {
		t.Fatalf("one of two holds is gone, and the buffer with it: %v", err)
	}
	if !bytes.HasPrefix(again[1<<19:], []byte("in the host's memory")) {
		t.Error("another memory")
	}
	two.Close()
	if _, err := two.Map(); err == nil {
		t.Error("the last hold is gone, and the buffer is still there")
	}
	_, _ = dmabuf.Unmap(mem), dmabuf.Unmap(again)
	h.Close()
	if _, err := d.CreateBlob(drm.BlobHost3D, 0, 0, 0); err == nil {
		t.Error("a blob without a size")
	}
	_ = d.Close()
	if _, err := d.Import(fd); !errors.Is(err, os.ErrClosed) {
		t.Errorf("import after close: %v", err)
	}
}

// TestForeign imports memory of another kind.
func TestForeign(t *testing.T) {
	gpu, imp := open(t, node(t, true)), open(t, node(t, false))
	if err := gpu.Name("foreign"); err != nil {
		t.Fatal(err)
	}
	if err := imp.Name("no context here"); err != nil {
		t.Errorf("a device without contexts: %v", err)
	}
	udma, err := dmabuf.OpenUDMABuf()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = udma.Close() }()
	mem, err := dmabuf.NewMemfd("foreign", 8<<12)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mem.Close() }()
	buf, err := udma.Create(dmabuf.Span{FD: mem, Offset: 1 << 12, Size: 3 << 12})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = buf.Close() }()
	if _, err := gpu.Import(buf); !errors.Is(err, drm.ErrForeign) {
		t.Errorf("the GPU imports it: %v, want %v", err, drm.ErrForeign)
	}
	h, err := imp.Import(buf)
	if err != nil {
		t.Fatal(err)
	}
	if h.Resource() == 0 || h.Size() != 3<<12 {
		t.Errorf("resource %d of %d bytes", h.Resource(), h.Size())
	}
	h.Close()
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(null) }()
	if _, err := imp.Import(mem); err == nil {
		t.Error("a memfd is imported as a dma-buf")
	}
}
