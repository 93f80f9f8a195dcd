package dmabuf_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

func TestMemfd(t *testing.T) {
	size := dmabuf.PageAlign(10000)
	fd, err := dmabuf.NewMemfd("test", size, unix.F_SEAL_SEAL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fd.Close() }()
	seals, err := dmabuf.Seals(fd)
	if err != nil {
		t.Fatal(err)
	}
	if want := unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL; seals&want != want {
		t.Errorf("seals %#x, want at least %#x", seals, want)
	}
	for _, n := range []int64{0, size - 1, size + 1} {
		if err := unix.Ftruncate(fd.Int(), n); !errors.Is(err, unix.EPERM) {
			t.Errorf("truncate to %d: %v, want EPERM", n, err)
		}
	}

	a, err := dmabuf.Map(fd, size, true)
	if err != nil {
		t.Fatal(err)
	}
	b, err := dmabuf.Map(fd, size, false)
	if err != nil {
		t.Fatal(err)
	}
	a[0], a[size-1] = 1, 2
	if b[0] != 1 || b[size-1] != 2 || b[1] != 0 {
		t.Errorf("second mapping sees %d %d %d", b[0], b[1], b[size-1])
	}
	for _, m := range [][]byte{a, b, nil} {
		if err := dmabuf.Unmap(m); err != nil {
			t.Error(err)
		}
	}
}

func TestMemfdRefuses(t *testing.T) {
	for _, size := range []int64{0, -1} {
		if fd, err := dmabuf.NewMemfd("none", size); !errors.Is(err, dmabuf.ErrInvalid) {
			t.Errorf("size %d: %v, %v; want ErrInvalid", size, fd, err)
		}
	}
	if fd, err := dmabuf.NewMemfd("huge", 1<<62); err == nil {
		_ = fd.Close() // sparse files may be that large
	}
	if fd, err := dmabuf.NewMemfd("bad seal", 4096, 1<<30); !errors.Is(err, unix.EINVAL) {
		t.Errorf("unknown seal: %v, %v; want EINVAL", fd, err)
	}
}

func TestSealsOfOthers(t *testing.T) {
	// On tmpfs the folder's files have seals too; a pipe never has.
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	r, w := dmabuf.NewFD(p[0], "pipe"), dmabuf.NewFD(p[1], "pipe")
	defer func() { _, _ = r.Close(), w.Close() }()
	if n, err := dmabuf.Seals(r); !errors.Is(err, dmabuf.ErrNotSupported) {
		t.Errorf("pipe: %#x, %v; want ErrNotSupported", n, err)
	}
	if _, err := dmabuf.Map(r, 4096, false); err == nil {
		t.Error("mapped a pipe")
	}
	_ = r.Close()
	if n, err := dmabuf.Seals(r); !errors.Is(err, unix.EBADF) {
		t.Errorf("closed: %#x, %v; want EBADF", n, err)
	}
}

func TestPageAlign(t *testing.T) {
	page := dmabuf.PageAlign(1)
	for size, want := range map[int64]int64{0: 0, 1: page, page: page, page + 1: 2 * page} {
		if got := dmabuf.PageAlign(size); got != want {
			t.Errorf("PageAlign(%d) = %d, want %d", size, got, want)
		}
	}
}
