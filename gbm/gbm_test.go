package gbm

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
	"github.com/gpubroker/gpubroker/virgl/dl"
)

func TestMain(m *testing.M) {
	if os.Getenv("LIBGL_ALWAYS_SOFTWARE") == "" {
		_ = os.Setenv("LIBGL_ALWAYS_SOFTWARE", "1")
	}
	fdtest.Main(m)
}

// device opens the first DRM node that GBM can allocate on, or skips with the reason.
func device(t *testing.T) *Device {
	t.Helper()
	nodes, _ := filepath.Glob("/dev/dri/*[0-9]")
	if len(nodes) == 0 {
		t.Skip("needs a DRM node: /dev/dri has none")
	}
	var errs []error
	for _, node := range nodes {
		d, err := OpenDevice(node)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		bo, err := d.Allocate(Request{Width: 64, Height: 64, Fourcc: dmabuf.XRGB8888, Use: UseScanout | UseLinear})
		if err != nil {
			errs = append(errs, err)
			_ = d.Close()
			continue
		}
		_ = bo.Close()
		t.Cleanup(func() {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
		return d
	}
	t.Skipf("no DRM node that GBM can allocate on: %v", errors.Join(errs...))
	return nil
}

func TestOpenRefuses(t *testing.T) {
	if _, err := OpenDevice(filepath.Join(t.TempDir(), "none")); !errors.Is(err, unix.ENOENT) {
		t.Errorf("missing node: %v, want ENOENT", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, node := range []string{file, "/dev/null"} {
		before := fdtest.Count(t)
		d, err := OpenDevice(node)
		if !errors.Is(err, ErrNotSupported) {
			t.Errorf("%s: %v, %v; want ErrNotSupported", node, d, err)
		}
		if after := fdtest.Count(t); after != before {
			t.Errorf("%s: %d descriptors after the failure, %d before", node, after, before)
		}
	}
}

func TestLibrary(t *testing.T) {
	if _, err := load(); err != nil {
		t.Errorf("the tests need the library: %v", err)
	}
	_, err := open(dl.Spec{Sonames: []string{"libnosuch.so.7"}, Package: "libgbm1"})
	if !errors.Is(err, ErrLibrary) || !errors.Is(err, dl.ErrMissing) || !strings.Contains(err.Error(), "libgbm1") {
		t.Errorf("missing: %v, want ErrLibrary and the package", err)
	}
	_, err = open(dl.Spec{Sonames: []string{"libc.so.6"}, Package: "libgbm1"})
	if !errors.Is(err, ErrLibrary) || !errors.Is(err, dl.ErrSymbol) || !strings.Contains(err.Error(), "gbm_bo_import") {
		t.Errorf("wrong library: %v, want ErrLibrary and the functions", err)
	}
}

func TestRequestLimits(t *testing.T) {
	for name, q := range map[string]Request{
		"width 0":   {Height: 1},
		"height 0":  {Width: 1},
		"width":     {Width: dmabuf.MaxDimension + 1, Height: 1},
		"height":    {Width: 1, Height: dmabuf.MaxDimension + 1},
		"modifiers": {Width: 1, Height: 1, Modifiers: make([]dmabuf.Modifier, maxModifiers+1)},
	} {
		if err := q.check(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
}

// TestImportStruct compares struct gbm_import_fd_modifier_data byte by byte.
func TestImportStruct(t *testing.T) {
	var fds [2]*dmabuf.FD
	for i := range fds {
		fd, err := dmabuf.NewMemfd("plane", 4096)
		if err != nil {
			t.Fatal(err)
		}
		fds[i] = fd
	}
	b, err := dmabuf.New(dmabuf.Desc{
		Kind: dmabuf.KindDMABuf, Width: 0x102, Height: 0x304, Fourcc: dmabuf.XRGB8888, Modifier: 0x0102030405060708,
		Planes: []dmabuf.Plane{{FD: fds[0], Offset: 0x11, Stride: 0x22}, {FD: fds[1], Offset: 0x33, Stride: 0x44}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	got := bytes.Repeat([]byte{0xee}, importSize)
	putImport(got, b)
	want := []byte{
		2, 1, 0, 0, 4, 3, 0, 0, 'X', 'R', '2', '4', 2, 0, 0, 0,
		byte(fds[0].Int()), 0, 0, 0, byte(fds[1].Int()), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
		0x22, 0, 0, 0, 0x44, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
		0x11, 0, 0, 0, 0x33, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
		8, 7, 6, 5, 4, 3, 2, 1,
	}
	if !bytes.Equal(got, want) {
		t.Errorf("struct is\n% x, want\n% x", got, want)
	}
}

func TestDevice(t *testing.T) {
	d := device(t)
	t.Logf("%s: back-end %s", d.Node(), d.Backend())
	if d.Backend() == "" {
		t.Error("no back-end name")
	}
	if !d.Supports(dmabuf.XRGB8888, UseScanout) && !d.Supports(dmabuf.XRGB8888, UseScanout|UseWrite) {
		t.Error("XRGB8888 is not supported for scanout")
	}
	if d.Supports(0x12345678, UseScanout) {
		t.Error("an unknown format is supported")
	}
	if n, err := d.ModifierPlanes(dmabuf.XRGB8888, dmabuf.ModLinear); err != nil || n > 1 {
		t.Errorf("XRGB8888 LINEAR: %d planes, %v", n, err)
	}
}

// fill writes a pattern through a mapping and compares it through the dma-buf.
func fill(t *testing.T, bo *BO) {
	t.Helper()
	bpp := bo.Fourcc.BytesPerPixel()
	m, err := bo.Map(0, 0, bo.Width, bo.Height, ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	for y := range bo.Height {
		row := m.Mem[y*m.Stride:][:bo.Width*bpp]
		for i := range row {
			row[i] = byte(int(y)*7 + i*3)
		}
	}
	m.Unmap()
	m.Unmap()
	b, err := bo.Export()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	if len(b.Planes) != 1 {
		t.Fatalf("%v has %d planes, want 1", b, len(b.Planes))
	}
	mem, done, err := b.CPURead()
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	p := b.Planes[0]
	for y := range bo.Height {
		row := mem[p.Offset+y*p.Stride:][:bo.Width*bpp]
		for i := range row {
			if row[i] != byte(int(y)*7+i*3) {
				t.Fatalf("%v: row %d byte %d is %#x, want %#x", b, y, i, row[i], byte(int(y)*7+i*3))
			}
		}
	}
}

func TestAllocate(t *testing.T) {
	d := device(t)
	before := fdtest.Count(t)
	for _, f := range []dmabuf.Fourcc{dmabuf.XRGB8888, dmabuf.ARGB8888, dmabuf.XBGR8888, dmabuf.RGB565} {
		for _, size := range [][2]uint32{{64, 64}, {1, 1}, {641, 479}} {
			bo, err := d.Allocate(Request{Width: size[0], Height: size[1], Fourcc: f, Use: UseScanout | UseLinear})
			if err != nil {
				if d.Supports(f, UseScanout|UseLinear) {
					t.Errorf("supported, but %v", err)
				}
				continue
			}
			t.Logf("%dx%d %v: modifier %v", bo.Width, bo.Height, bo.Fourcc, bo.Modifier)
			if bo.Width != size[0] || bo.Height != size[1] || bo.Fourcc != f {
				t.Errorf("asked for %v %v, got %dx%d %v", size, f, bo.Width, bo.Height, bo.Fourcc)
			}
			fill(t, bo)
			for range 2 {
				if err := bo.Close(); err != nil {
					t.Error(err)
				}
			}
			if _, err := bo.Export(); !errors.Is(err, ErrClosed) {
				t.Errorf("Export after Close: %v, want ErrClosed", err)
			}
			if _, err := bo.Map(0, 0, 1, 1, Read); !errors.Is(err, ErrClosed) {
				t.Errorf("Map after Close: %v, want ErrClosed", err)
			}
		}
	}
	bo, err := d.Allocate(Request{Width: 64, Height: 64, Fourcc: dmabuf.ARGB8888, Use: UseCursor | UseWrite})
	if err != nil {
		t.Errorf("cursor: %v", err)
	} else {
		_ = bo.Close()
	}
	if bo, err := d.Allocate(Request{Width: 64, Height: 64, Fourcc: 0x12345678, Use: UseScanout}); err == nil {
		t.Errorf("allocated an unknown format as %v", bo.Fourcc)
		_ = bo.Close()
	} else {
		t.Log(err)
	}
	if after := fdtest.Count(t); after != before {
		t.Errorf("%d descriptors at the end, %d before", after, before)
	}
}

func TestAllocateWithModifiers(t *testing.T) {
	d := device(t)
	bo, err := d.Allocate(Request{Width: 100, Height: 50, Fourcc: dmabuf.XRGB8888, Use: UseScanout, Modifiers: []dmabuf.Modifier{dmabuf.ModLinear}})
	if err != nil {
		t.Skipf("the driver allocates nothing by modifier: %v", err)
	}
	defer func() { _ = bo.Close() }()
	if bo.Modifier != dmabuf.ModLinear {
		t.Errorf("asked for LINEAR, got %v", bo.Modifier)
	}
	fill(t, bo)
}

func TestMapRefuses(t *testing.T) {
	d := device(t)
	bo, err := d.Allocate(Request{Width: 64, Height: 64, Fourcc: dmabuf.XRGB8888, Use: UseScanout | UseLinear})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bo.Close() }()
	for _, r := range [][4]uint32{{0, 0, 65, 1}, {0, 0, 1, 65}, {64, 0, 1, 1}, {0xffffffff, 0, 2, 1}, {0, 0, 0, 1}} {
		if _, err := bo.Map(r[0], r[1], r[2], r[3], Read); !errors.Is(err, ErrInvalid) {
			t.Errorf("%v: %v, want ErrInvalid", r, err)
		}
	}
}

// TestImport imports a dma-buf of another maker and finds its pixels.
func TestImport(t *testing.T) {
	d := device(t)
	u, err := dmabuf.OpenUDMABuf()
	if err != nil {
		t.Skip(err)
	}
	defer func() { _ = u.Close() }()
	const w, h, stride = 100, 40, 512
	size := dmabuf.PageAlign(stride * h)
	mem, err := dmabuf.NewMemfd("import", size)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mem.Close() }()
	pixels, err := dmabuf.Map(mem, size, true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dmabuf.Unmap(pixels) }()
	for i := range pixels {
		pixels[i] = byte(i * 11)
	}
	fd, err := u.Create(dmabuf.Span{FD: mem, Size: uint64(size)})
	if err != nil {
		t.Fatal(err)
	}
	b, err := dmabuf.New(dmabuf.Desc{Kind: dmabuf.KindDMABuf, Width: w, Height: h, Fourcc: dmabuf.XRGB8888,
		Modifier: dmabuf.ModLinear, Planes: []dmabuf.Plane{{FD: fd, Stride: stride}}, Origin: "udmabuf"})
	if err != nil {
		t.Fatal(err)
	}
	bo, err := d.Import(b, UseLinear)
	b.Release()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bo.Close() }()
	if bo.Width != w || bo.Height != h || bo.Fourcc != dmabuf.XRGB8888 {
		t.Errorf("imported as %dx%d %v", bo.Width, bo.Height, bo.Fourcc)
	}
	m, err := bo.Map(3, 5, 20, 10, Read)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Unmap()
	for y := range uint32(10) {
		got, want := m.Mem[y*m.Stride:][:80], pixels[(5+y)*stride+12:][:80]
		if !bytes.Equal(got, want) {
			t.Fatalf("row %d is % x, want % x", y, got, want)
		}
	}
}

func TestImportRefusesShm(t *testing.T) {
	d := device(t)
	fd, err := dmabuf.NewMemfd("shm", 4096)
	if err != nil {
		t.Fatal(err)
	}
	b, err := dmabuf.New(dmabuf.Desc{Kind: dmabuf.KindShm, Width: 8, Height: 8, Fourcc: dmabuf.XRGB8888,
		Planes: []dmabuf.Plane{{FD: fd, Stride: 32}}})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	if _, err := d.Import(b, UseScanout); !errors.Is(err, ErrNotSupported) {
		t.Errorf("%v, want ErrNotSupported", err)
	}
}

// TestAlloc2D draws in a buffer that outlives its device.
func TestAlloc2D(t *testing.T) {
	node := device(t).Node()
	before := fdtest.Count(t)
	d, err := OpenDevice(node)
	if err != nil {
		t.Fatal(err)
	}
	b, err := d.Alloc2D(641, 479, dmabuf.XRGB8888)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Allocate(Request{Width: 1, Height: 1, Fourcc: dmabuf.XRGB8888}); !errors.Is(err, ErrClosed) {
		t.Errorf("allocate on a closed device: %v, want ErrClosed", err)
	}
	if d.Supports(dmabuf.XRGB8888, UseScanout) {
		t.Error("a closed device supports something")
	}
	p := b.Planes[0]
	if b.Kind != dmabuf.KindDMABuf || b.Modifier != dmabuf.ModLinear || p.Stride < 641*4 || len(b.Mem) != int(p.Stride)*479 {
		t.Fatalf("%v, stride %d, %d bytes mapped", b, p.Stride, len(b.Mem))
	}
	if err := b.BeginCPU(true); err != nil {
		t.Fatal(err)
	}
	b.Mem[0], b.Mem[len(b.Mem)-1] = 5, 6
	if err := b.EndCPU(true); err != nil {
		t.Fatal(err)
	}
	again, err := dmabuf.Map(p.FD, int64(len(b.Mem)), false)
	if err != nil {
		t.Fatal(err)
	}
	if again[0] != 5 || again[len(again)-1] != 6 {
		t.Errorf("the dma-buf has %d and %d, want 5 and 6", again[0], again[len(again)-1])
	}
	_ = dmabuf.Unmap(again)
	b.Release()
	if after := fdtest.Count(t); after != before {
		t.Errorf("%d descriptors at the end, %d before", after, before)
	}
}
