package dmabuf

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func syncDevice(t *testing.T) *SyncDevice {
	t.Helper()
	nodes, _ := filepath.Glob("/dev/dri/renderD*")
	reason := errors.New("no DRM node")
	for _, node := range nodes {
		d, err := OpenSyncDevice(node)
		if err == nil {
			t.Cleanup(func() { _ = d.Close() })
			return d
		}
		if !errors.Is(err, ErrNotSupported) {
			t.Fatal(err)
		}
		reason = err
	}
	t.Skipf("timeline syncobjs: %v", reason)
	return nil
}

func eventfd(t *testing.T) *FD {
	t.Helper()
	raw, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	return closing(t, NewFD(raw, "eventfd"))
}

func readable(t *testing.T, fd *FD, wait time.Duration) bool {
	t.Helper()
	fds := [1]unix.PollFd{{Fd: int32(fd.Int()), Events: unix.POLLIN}}
	n, err := unix.Poll(fds[:], int(wait.Milliseconds()))
	if err != nil {
		t.Fatal(err)
	}
	return n == 1
}

// TestTimeline follows the work on a buffer, across an export and import.
func TestTimeline(t *testing.T) {
	d := syncDevice(t)
	buf, attach, signal := vgemBuffer(t)
	tl, err := d.NewTimeline()
	if err != nil {
		t.Fatal(err)
	}
	defer tl.Destroy()
	fd, err := tl.Export()
	if err != nil {
		t.Fatal(err)
	}
	closing(t, fd)
	theirs, err := d.ImportTimeline(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Destroy()
	value := func() uint64 {
		v, err := theirs.Value()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	ev := eventfd(t)
	for p := uint64(1); p <= 2; p++ {
		if err := theirs.Notify(p, ev); err != nil { // before anybody said what it waits for
			t.Fatal(err)
		}
	}
	if err := tl.Follow(buf, 1); err != nil { // idle
		t.Fatal(err)
	}
	if !readable(t, ev, 5*time.Second) || value() != 1 {
		t.Fatalf("an idle buffer's point has not signalled; value %d", value())
	}
	var count [8]byte
	if _, err := unix.Read(ev.Int(), count[:]); err != nil {
		t.Fatal(err)
	}
	fence := attach()
	if err := tl.Follow(buf, 2); err != nil {
		t.Fatal(err)
	}
	if readable(t, ev, 50*time.Millisecond) || value() != 1 {
		t.Errorf("a busy buffer's point signalled; value %d", value())
	}
	signal(fence)
	if !readable(t, ev, 5*time.Second) || value() != 2 {
		t.Errorf("the point has not signalled with the work's end; value %d", value())
	}
	if err := theirs.Signal(7); err != nil {
		t.Fatal(err)
	}
	if v, err := tl.Value(); err != nil || v != 7 {
		t.Errorf("value %d, %v; want the 7 of the other side", v, err)
	}
	point := uint64(8)
	if n := testing.AllocsPerRun(20, func() {
		if err := errors.Join(tl.Follow(buf, point), tl.Notify(point, ev)); err != nil {
			t.Fatal(err)
		}
		point++
		if _, err := tl.Value(); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a frame, want none", n)
	}
}

func TestOpenSyncDeviceRefuses(t *testing.T) {
	for _, node := range []string{"/dev/null", "/no/such/node"} {
		if _, err := OpenSyncDevice(node); !errors.Is(err, ErrNotSupported) {
			t.Errorf("%s: %v, want ErrNotSupported", node, err)
		}
	}
}
