package dmabuf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"structs"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// vgem, a DRM driver without hardware, can put a fence on a buffer and signal it
// when told (drm/vgem_drm.h): work that takes as long as a test wants.
const (
	ioctlCreateDumb    = 0xc02064b2 // DRM_IOCTL_MODE_CREATE_DUMB
	ioctlHandleToFD    = 0xc00c642d // DRM_IOCTL_PRIME_HANDLE_TO_FD
	ioctlFenceAttach   = 0xc0106441 // DRM_IOCTL_VGEM_FENCE_ATTACH
	ioctlFenceSignal   = 0x40086442 // DRM_IOCTL_VGEM_FENCE_SIGNAL
	vgemFenceWrite     = 1
	primeReadWriteFlag = unix.O_RDWR | unix.O_CLOEXEC
)

type createDumb struct {
	_ structs.HostLayout

	height, width, bpp, flags, handle, pitch uint32
	size                                     uint64
}

type handleToFD struct {
	_ structs.HostLayout

	handle, flags uint32
	fd            int32
}

type fenceAttach struct {
	_ structs.HostLayout

	handle, flags, fence, _ uint32
}

type fenceSignal struct {
	_ structs.HostLayout

	fence, flags uint32
}

// vgemBuffer makes a buffer on a vgem node and returns it with a function that
// attaches a fence of a writer, and one that signals that fence.
func vgemBuffer(t *testing.T) (buf *FD, attach func() uint32, signal func(uint32)) {
	t.Helper()
	nodes, _ := filepath.Glob("/dev/dri/card*")
	reason := errors.New("no DRM node")
	for _, node := range nodes {
		driver, err := os.Readlink(fmt.Sprintf("/sys/class/drm/%s/device", filepath.Base(node)))
		if err != nil || filepath.Base(driver) != "vgem" {
			reason = fmt.Errorf("%s is on %q, not on vgem", node, driver)
			continue
		}
		raw, err := unix.Open(node, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		dev := closing(t, NewFD(raw, node))
		dumb := createDumb{height: 64, width: 64, bpp: 32}
		if _, err := ioctl(dev, ioctlCreateDumb, &dumb); err != nil {
			t.Fatal(err)
		}
		prime := handleToFD{handle: dumb.handle, flags: primeReadWriteFlag}
		if _, err := ioctl(dev, ioctlHandleToFD, &prime); err != nil {
			t.Fatal(err)
		}
		attach := func() uint32 {
			a := fenceAttach{handle: dumb.handle, flags: vgemFenceWrite}
			if _, err := ioctl(dev, ioctlFenceAttach, &a); err != nil {
				t.Fatal(err)
			}
			return a.fence
		}
		signal := func(fence uint32) {
			if _, err := ioctl(dev, ioctlFenceSignal, &fenceSignal{fence: fence}); err != nil {
				t.Fatal(err)
			}
		}
		return closing(t, NewFD(int(prime.fd), "vgem buffer")), attach, signal
	}
	t.Skipf("a fence that waits needs the driver vgem: %v", reason)
	return nil, nil, nil
}

// TestSyncFileBusy follows a writer's work through export, merge and import.
func TestSyncFileBusy(t *testing.T) {
	buf, attach, signal := vgemBuffer(t)
	other := openHeap(t)
	second, err := other.Alloc(4096)
	if err != nil {
		t.Fatal(err)
	}
	closing(t, second)

	fence := attach()
	busy, err := ExportSyncFile(buf, false)
	if err != nil {
		t.Fatal(err)
	}
	closing(t, busy)
	idle, err := ExportSyncFile(second, true)
	if err != nil {
		t.Fatal(err)
	}
	closing(t, idle)
	merged, err := MergeSyncFiles(idle, busy)
	if err != nil {
		t.Fatal(err)
	}
	closing(t, merged)
	if err := ImportSyncFile(second, busy, true); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]*FD{"exported": busy, "merged": merged, "imported": second} {
		if err := WaitSyncFile(f, 30*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s while the writer works: %v, want os.ErrDeadlineExceeded", name, err)
		}
	}
	if s, err := SyncFileStatus(busy); err != nil || s != SyncActive {
		t.Errorf("status %v, %v; want active", s, err)
	}
	time.AfterFunc(50*time.Millisecond, func() { signal(fence) })
	for name, f := range map[string]*FD{"exported": busy, "merged": merged, "imported": second} {
		if err := WaitSyncFile(f, 5*time.Second); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s, err := SyncFileStatus(merged); err != nil || s != SyncSignalled {
		t.Errorf("status %v, %v; want signalled", s, err)
	}
}
