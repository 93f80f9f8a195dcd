package shm_test

import (
	"bytes"
	"errors"
	"image"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/drm"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/inguest"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/shm"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
)

func TestMain(m *testing.M) { fdtest.Main(m) }

// memfd makes a client's file.
func memfd(t testing.TB, size int64, seals int) *dmabuf.FD {
	t.Helper()
	raw, err := unix.MemfdCreate("client", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	fd := dmabuf.NewFD(raw, "client")
	if err := unix.Ftruncate(raw, size); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(raw), unix.F_ADD_SEALS, seals); err != nil {
		t.Fatal(err)
	}
	return fd
}

func pool(t testing.TB, size int64, seals int) *shm.Pool {
	t.Helper()
	p, err := shm.NewPool(memfd(t, size, seals), int32(size))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Release)
	return p
}

func nodeOf(t testing.TB, want func(drm.Node) bool) drm.Node {
	t.Helper()
	nodes, err := drm.Nodes()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if want(n) {
			return n
		}
	}
	t.Fatalf("no such device among %+v", nodes)
	return drm.Node{}
}

// TestImportTier makes buffers of all the shapes that clients use.
func TestImportTier(t *testing.T) {
	inguest.Need(t)
	im, err := shm.OpenImporter(nodeOf(t, drm.Node.Imports).Path)
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	s := &shm.Store{Import: im, Shared: &shm.Totals{}, NoImport: errors.New("there is one")}
	const seal = unix.F_SEAL_SEAL
	for _, c := range []struct {
		name  string
		size  int64
		seals int
		g     shm.Geometry
		tier  shm.Tier
		at    uint64 // offset in the resource
	}{
		{"weston-simple-shm", 250000, unix.F_SEAL_SHRINK, shm.Geometry{Width: 250, Height: 250, Stride: 1000}, shm.TierImport, 0},
		{"the 3rd of 60 buffers", 15000000, unix.F_SEAL_SHRINK, shm.Geometry{Offset: 750000, Width: 250, Height: 250, Stride: 1000}, shm.TierImport, 750000 % 4096},
		{"Mesa: no seals", 1 << 20, 0, shm.Geometry{Width: 512, Height: 512, Stride: 2048}, shm.TierImport, 0},
		{"foot", 512 << 20, unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | seal, shm.Geometry{Offset: 128 << 20, Width: 640, Height: 480, Stride: 2560}, shm.TierImport, 0},
		{"wayland-cursor", 2304, unix.F_SEAL_SHRINK | seal, shm.Geometry{Width: 24, Height: 24, Stride: 96}, shm.TierImport, 0},
		{"cannot grow", 250000, unix.F_SEAL_SHRINK | unix.F_SEAL_GROW, shm.Geometry{Width: 250, Height: 250, Stride: 1000}, shm.TierStream, 0},
		{"cannot be sealed", 1 << 20, seal, shm.Geometry{Width: 512, Height: 512, Stride: 2048}, shm.TierStream, 0},
		{"cannot be written", 1 << 20, unix.F_SEAL_WRITE, shm.Geometry{Width: 512, Height: 512, Stride: 2048}, shm.TierStream, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.g.Format = dmabuf.XRGB8888
			b, err := s.NewBuffer(pool(t, c.size, c.seals), c.g)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			if b.Tier != c.tier || b.InPage != c.at {
				t.Fatalf("tier %v at %d, want %v at %d: %s", b.Tier, b.InPage, c.tier, c.at, s.Why())
			}
			if (b.Resource() != 0) != (c.tier == shm.TierImport) {
				t.Errorf("resource %d", b.Resource())
			}
			if c.tier != shm.TierImport && s.Why() == "" {
				t.Error("nothing says why")
			}
			t.Log(s.Why())
		})
	}
	t.Run("file shorter than the pool", func(t *testing.T) {
		p, err := shm.NewPool(memfd(t, 4096, 0), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Release()
		b, err := s.NewBuffer(p, shm.Geometry{Width: 512, Height: 512, Stride: 2048, Format: dmabuf.XRGB8888})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if b.Tier != shm.TierStream || !strings.Contains(s.Why(), "shorter") {
			t.Errorf("tier %v: %s", b.Tier, s.Why())
		}
	})
	t.Run("many", func(t *testing.T) {
		p := pool(t, 15000000, unix.F_SEAL_SHRINK)
		for range 3 {
			var all []*shm.Buffer
			for i := range int32(60) {
				b, err := s.NewBuffer(p, shm.Geometry{Offset: i * 250000, Width: 250, Height: 250, Stride: 1000, Format: dmabuf.XRGB8888})
				if err != nil || b.Tier != shm.TierImport {
					t.Fatalf("buffer %d: %v %s", i, err, s.Why())
				}
				all = append(all, b)
			}
			for _, b := range all {
				b.Close()
			}
		}
	})
}

// TestBlobTier copies into host memory.
func TestBlobTier(t *testing.T) {
	inguest.Need(t)
	d, err := drm.Open(nodeOf(t, drm.Node.HostMemory).Path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	if err := d.Name("blob tier"); err != nil {
		t.Fatal(err)
	}
	s := &shm.Store{Blobs: func() (*drm.Device, error) { return d, nil }, Shared: &shm.Totals{}, NoImport: errors.New("none")}
	const w, h, stride, offset = 300, 200, 1300, 777
	fd := memfd(t, offset+stride*h, 0)
	keep, err := fd.Dup()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = keep.Close() }()
	p, err := shm.NewPool(fd, offset+stride*h)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	b, err := s.NewBuffer(p, shm.Geometry{Offset: offset, Width: w, Height: h, Stride: stride, Format: dmabuf.ARGB8888})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if b.Tier != shm.TierBlob || b.Resource() == 0 {
		t.Fatalf("tier %v, resource %d: %s", b.Tier, b.Resource(), s.Why())
	}
	want := make([]byte, stride*h)
	for i := range want {
		want[i] = byte(i * 7)
	}
	if _, err := unix.Pwrite(keep.Int(), want, offset); err != nil {
		t.Fatal(err)
	}
	n, err := b.Copy([]image.Rectangle{b.Bounds()}, nil)
	if err != nil || n != stride*(h-1)+w*4 {
		t.Errorf("copied %d bytes (%v), want %d", n, err, stride*(h-1)+w*4)
	}
	// The last row's rest is nobody's.
	if got := shm.BlobMemory(b)[:n]; !bytes.Equal(got, want[:n]) {
		t.Error("the host's memory has other bytes")
	}
	clear(want)
	if _, err := unix.Pwrite(keep.Int(), want, offset); err != nil {
		t.Fatal(err)
	}
	n, err = b.Copy([]image.Rectangle{image.Rect(10, 20, 15, 30)}, nil)
	if err != nil || n != 5*4*10 {
		t.Errorf("copied %d bytes (%v), want %d", n, err, 5*4*10)
	}
	mem := shm.BlobMemory(b)
	for y := 19; y < 31; y++ {
		for x := 36; x < 64; x++ {
			in := y >= 20 && y < 30 && x >= 40 && x < 60
			if at := y*stride + x; (mem[at] == 0) != in && byte(at*7) != 0 {
				t.Fatalf("byte %d of row %d is %d", x, y, mem[at])
			}
		}
	}
	if got := s.Shared.Bytes[shm.TierBlob].Load(); got != stride*(h-1)+w*4+200 {
		t.Errorf("counted %d bytes", got)
	}
	small, err := s.NewBuffer(p, shm.Geometry{Width: 16, Height: 16, Stride: 64, Format: dmabuf.ARGB8888})
	if err != nil {
		t.Fatal(err)
	}
	defer small.Close()
	if small.Tier != shm.TierStream {
		t.Errorf("a cursor has tier %v", small.Tier)
	}
}
