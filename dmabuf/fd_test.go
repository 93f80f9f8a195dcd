package dmabuf_test

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

func newFD(t *testing.T, name string) *dmabuf.FD {
	t.Helper()
	raw, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	return dmabuf.NewFD(raw, name)
}

func isOpen(raw int) bool {
	_, err := unix.FcntlInt(uintptr(raw), unix.F_GETFD, 0)
	return err == nil
}

func TestFDClose(t *testing.T) {
	f := newFD(t, "one")
	raw := f.Int()
	if !f.Valid() || f.Name() != "one" || !isOpen(raw) {
		t.Fatalf("new: %d %q", raw, f.Name())
	}
	for range 2 {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if f.Valid() || f.Int() != -1 {
			t.Fatal("still valid after Close")
		}
	}
	if isOpen(raw) {
		t.Error("descriptor is open after Close")
	}
	if _, err := f.Dup(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Dup after Close: %v, want os.ErrClosed", err)
	}
	if got := f.Disown(); got != -1 {
		t.Errorf("Disown after Close: %d, want -1", got)
	}
}

func TestFDNil(t *testing.T) {
	var f *dmabuf.FD
	if f.Valid() || f.Int() != -1 || f.Close() != nil || f.Disown() != -1 || f.Name() == "" {
		t.Errorf("nil FD: %d %q", f.Int(), f.Name())
	}
	if _, err := f.Dup(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Dup of nil: %v", err)
	}
}

func TestFDNegative(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("NewFD(-1) did not panic")
		}
	}()
	dmabuf.NewFD(-1, "none")
}

func TestFDDup(t *testing.T) {
	f := newFD(t, "original")
	defer func() { _ = f.Close() }()
	d, err := f.Dup()
	if err != nil {
		t.Fatal(err)
	}
	if d.Int() == f.Int() || d.Name() != f.Name() {
		t.Errorf("dup is %d %q of %d %q", d.Int(), d.Name(), f.Int(), f.Name())
	}
	if flags, err := unix.FcntlInt(uintptr(d.Int()), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v: want close-on-exec", flags, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if !isOpen(f.Int()) {
		t.Error("closing the dup closed the original")
	}
}

func TestFDDisown(t *testing.T) {
	f := newFD(t, "given away")
	raw := f.Disown()
	if f.Valid() || !isOpen(raw) {
		t.Fatalf("after Disown: valid %v, open %v", f.Valid(), isOpen(raw))
	}
	if err := f.Close(); err != nil || !isOpen(raw) {
		t.Error("Close after Disown closed the descriptor")
	}
	if err := unix.Close(raw); err != nil {
		t.Fatal(err)
	}
}

// TestFDCloseOnce closes from many goroutines: exactly one system call may happen,
// or another goroutine's descriptor would be closed.
func TestFDCloseOnce(t *testing.T) {
	for range 50 {
		f := newFD(t, "contended")
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if err := f.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
}

func TestFDLeakReport(t *testing.T) {
	reports := make(chan string, 10)
	dmabuf.OnLeak(func(r string) { reports <- r })
	defer dmabuf.OnLeak(func(r string) { t.Error(r) })
	raw := func() int { return newFD(t, "forgotten").Int() }()
	deadline := time.After(10 * time.Second)
	for {
		runtime.GC()
		select {
		case r := <-reports:
			if !strings.Contains(r, "forgotten") || !strings.Contains(r, "newFD") {
				t.Errorf("report %q: want the name and the place", r)
			}
			if isOpen(raw) {
				t.Error("a lost descriptor stays open")
			}
			return
		case <-deadline:
			t.Fatal("no report of a lost descriptor within 10 s")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestOpenFDs(t *testing.T) {
	f := newFD(t, "listed")
	list := strings.Join(dmabuf.OpenFDs(), "\n")
	if !strings.Contains(list, "listed") || !strings.Contains(list, "fd_test.go") {
		t.Errorf("open descriptors:\n%s\nwant the name and the place", list)
	}
	_ = f.Close()
	if list := strings.Join(dmabuf.OpenFDs(), "\n"); strings.Contains(list, "listed") {
		t.Errorf("still listed after Close:\n%s", list)
	}
}
