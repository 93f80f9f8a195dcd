package dmabuf

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// need ends a test with the kernel's own reason where a device is missing. A probe
// that fails for another reason fails the test.
func need(t *testing.T, probe error) {
	t.Helper()
	if errors.Is(probe, ErrNotSupported) {
		t.Skip(probe)
	}
	if probe != nil {
		t.Fatal(probe)
	}
}

// mapped maps a whole dma-buf or memfd until the test's end.
func mapped(t *testing.T, fd *FD, size int64) []byte {
	t.Helper()
	mem, err := Map(fd, size, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = Unmap(mem) })
	return mem
}

func closing(t *testing.T, fd *FD) *FD {
	t.Helper()
	t.Cleanup(func() { _ = fd.Close() })
	return fd
}

func openUDMABuf(t *testing.T) *UDMABuf {
	t.Helper()
	need(t, ProbeUDMABuf())
	u, err := OpenUDMABuf()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = u.Close() })
	return u
}

func TestUDMABuf(t *testing.T) {
	u := openUDMABuf(t)
	page := PageAlign(1)
	mem, err := NewMemfd("udmabuf test", 4*page)
	if err != nil {
		t.Fatal(err)
	}
	closing(t, mem)
	fd, err := u.Create(Span{mem, uint64(page), uint64(2 * page)})
	if err != nil {
		t.Fatal(err)
	}
	closing(t, fd)
	a, b := mapped(t, mem, 4*page), mapped(t, fd, 2*page)
	a[page], b[2*page-1] = 7, 8
	if b[0] != 7 || a[3*page-1] != 8 {
		t.Errorf("memfd and udmabuf do not share pages: %d, %d", b[0], a[3*page-1])
	}
	if flags, err := unix.FcntlInt(uintptr(fd.Int()), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v: want close-on-exec", flags, err)
	}
}

// TestUDMABufList scatters pages, as a guest's memory does.
func TestUDMABufList(t *testing.T) {
	u := openUDMABuf(t)
	page := uint64(PageAlign(1))
	var files [2]*FD
	for i := range files {
		fd, err := NewMemfd("udmabuf test", int64(8*page))
		if err != nil {
			t.Fatal(err)
		}
		files[i] = closing(t, fd)
	}
	spans := []Span{{files[0], 5 * page, page}, {files[1], 0, 2 * page}, {files[0], 0, page}, {files[0], page, page}}
	fd, err := u.CreateList(spans)
	if err != nil {
		t.Fatal(err)
	}
	closing(t, fd)
	all := mapped(t, fd, int64(5*page))
	at := uint64(0)
	for i, s := range spans {
		mem := mapped(t, s.FD, int64(8*page))
		mem[s.Offset], mem[s.Offset+s.Size-1] = byte(10+i), byte(20+i)
		if all[at] != byte(10+i) || all[at+s.Size-1] != byte(20+i) {
			t.Errorf("span %d: the udmabuf has %d and %d, want %d and %d", i, all[at], all[at+s.Size-1], 10+i, 20+i)
		}
		at += s.Size
	}
}

func TestUDMABufRefuses(t *testing.T) {
	u := openUDMABuf(t)
	page := uint64(PageAlign(1))
	raw, err := unix.MemfdCreate("unsealed", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	unsealed := closing(t, NewFD(raw, "unsealed"))
	if err := unix.Ftruncate(raw, int64(page)); err != nil {
		t.Fatal(err)
	}
	sealed, err := NewMemfd("sealed", int64(page))
	if err != nil {
		t.Fatal(err)
	}
	closing(t, sealed)
	for name, s := range map[string]Span{
		"unsealed":  {unsealed, 0, page},
		"unaligned": {sealed, 1, page},
		"half page": {sealed, 0, page / 2},
		"too long":  {sealed, 0, 2 * page},
	} {
		if fd, err := u.Create(s); err == nil {
			t.Errorf("%s: made a udmabuf", name)
			_ = fd.Close()
		}
	}
	if fd, err := u.CreateList([]Span{{sealed, 0, 0}}); !errors.Is(err, ErrInvalid) {
		t.Errorf("empty list: %v, %v; want ErrInvalid", fd, err)
	}
	spans, bytes := UDMABufLimits()
	if spans < 1 || bytes < 1<<20 {
		t.Errorf("limits %d spans, %d bytes", spans, bytes)
	}
}

func TestJoinSpans(t *testing.T) {
	a, b := &FD{}, &FD{}
	got := joinSpans([]Span{{a, 0, 1}, {a, 1, 2}, {a, 3, 0}, {a, 3, 1}, {b, 4, 1}, {a, 4, 1}, {a, 6, 1}})
	want := []Span{{a, 0, 4}, {b, 4, 1}, {a, 4, 1}, {a, 6, 1}}
	if !slices.Equal(got, want) {
		t.Errorf("joined to %v, want %v", got, want)
	}
}

// TestMissingDevices checks the reason that a missing or closed device gives.
func TestMissingDevices(t *testing.T) {
	dir := t.TempDir()
	defer func(u, h string) { udmabufPath, heapDir = u, h }(udmabufPath, heapDir)
	udmabufPath, heapDir = filepath.Join(dir, "udmabuf"), filepath.Join(dir, "heaps")
	for name, err := range map[string]error{"udmabuf": ProbeUDMABuf(), "heap": ProbeHeap(SystemHeap)} {
		if !errors.Is(err, ErrNotSupported) || !errors.Is(err, unix.ENOENT) {
			t.Errorf("%s: %v, want ErrNotSupported and ENOENT", name, err)
		}
	}
	if h := Heaps(); h != nil {
		t.Errorf("heaps %v in an empty folder", h)
	}
	if err := os.WriteFile(udmabufPath, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ProbeUDMABuf(); err == nil || errors.Is(err, ErrNotSupported) {
		t.Errorf("a plain file: %v, want an error that proves nothing", err)
	}
}

func openHeap(t *testing.T) *Heap {
	t.Helper()
	need(t, ProbeHeap(SystemHeap))
	h, err := OpenHeap(SystemHeap)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func TestHeap(t *testing.T) {
	h := openHeap(t)
	if !slices.Contains(Heaps(), SystemHeap) {
		t.Errorf("heaps %v lack %s", Heaps(), SystemHeap)
	}
	fd, err := h.Alloc(10000)
	if err != nil {
		t.Fatal(err)
	}
	closing(t, fd)
	mem := mapped(t, fd, PageAlign(10000))
	if mem[0] != 0 || mem[len(mem)-1] != 0 {
		t.Error("heap memory is not zeroed")
	}
	for _, size := range []int64{0, -1} {
		if _, err := h.Alloc(size); !errors.Is(err, ErrInvalid) {
			t.Errorf("size %d: %v, want ErrInvalid", size, err)
		}
	}
}

// TestCPUAccess runs DMA_BUF_IOCTL_SYNC on a real dma-buf.
func TestCPUAccess(t *testing.T) {
	h := openHeap(t)
	fd, err := h.Alloc(64 * 64 * 4)
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(Desc{Kind: KindDMABuf, Width: 64, Height: 64, Fourcc: XRGB8888, Planes: []Plane{{FD: fd, Stride: 256}}, Origin: "heap"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	mem := mapped(t, fd, 64*64*4)
	if err := b.BeginCPU(true); err != nil {
		t.Fatal(err)
	}
	mem[5] = 99
	if err := b.EndCPU(true); err != nil {
		t.Fatal(err)
	}
	p, done, err := b.CPURead()
	if err != nil {
		t.Fatal(err)
	}
	if p[5] != 99 || len(p) != 64*64*4 {
		t.Errorf("read %d in %d bytes", p[5], len(p))
	}
	done()
}

// TestCPUAccessOfShm needs no device: shared memory takes no ioctl.
func TestCPUAccessOfShm(t *testing.T) {
	fd, err := NewMemfd("shm", 4096)
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(Desc{Kind: KindShm, Width: 8, Height: 8, Fourcc: XRGB8888, Planes: []Plane{{FD: fd, Stride: 32}}, Origin: "memfd"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	if err := errors.Join(b.BeginCPU(true), b.EndCPU(true)); err != nil {
		t.Error(err)
	}
	p, done, err := b.CPURead()
	if err != nil || len(p) != 256 {
		t.Fatalf("%d bytes, %v", len(p), err)
	}
	done()
	wrong := *b.Planes[0].FD
	if _, err := ExportSyncFile(&wrong, false); !errors.Is(err, ErrNotSupported) {
		t.Errorf("sync file of a memfd: %v, want ErrNotSupported", err)
	}
}

// TestSyncFileIdle takes sync files of an idle buffer: they have signalled.
func TestSyncFileIdle(t *testing.T) {
	h := openHeap(t)
	buf, err := h.Alloc(4096)
	if err != nil {
		t.Fatal(err)
	}
	closing(t, buf)
	var files [2]*FD
	for i, write := range []bool{false, true} {
		f, err := ExportSyncFile(buf, write)
		if err != nil {
			t.Fatal(err)
		}
		files[i] = closing(t, f)
		if s, err := SyncFileStatus(f); err != nil || s != SyncSignalled {
			t.Errorf("status %v, %v; want signalled", s, err)
		}
		if err := WaitSyncFile(f, 0); err != nil {
			t.Error(err)
		}
		if err := ImportSyncFile(buf, f, write); err != nil {
			t.Error(err)
		}
	}
	m, err := MergeSyncFiles(files[0], files[1])
	if err != nil {
		t.Fatal(err)
	}
	closing(t, m)
	if err := WaitSyncFile(m, -1); err != nil {
		t.Error(err)
	}
}

func TestWaitRefuses(t *testing.T) {
	raw, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := closing(t, NewFD(raw, "event"))
	start := time.Now()
	if err := WaitSyncFile(f, 20*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("wait: %v, want os.ErrDeadlineExceeded", err)
	}
	if took := time.Since(start); took < 20*time.Millisecond {
		t.Errorf("gave up after %v, before the timeout of 20ms", took)
	}
	if _, err := MergeSyncFiles(f, f); err == nil {
		t.Error("merged what are no sync files")
	}
	if _, err := SyncFileStatus(f); err == nil {
		t.Error("status of what is no sync file")
	}
	if err := ImportSyncFile(f, f, true); !errors.Is(err, ErrNotSupported) {
		t.Errorf("import: %v, want ErrNotSupported", err)
	}
	_ = f.Close()
	if err := WaitSyncFile(f, 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("wait for a closed descriptor: %v", err)
	}
}
