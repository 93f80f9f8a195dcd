package dmabuf

import (
	"errors"
	"fmt"
	"structs"

	"golang.org/x/sys/unix"
)

// Requests on DRM nodes (drm/drm.h). Timelines need Linux 5.2, the eventfd 6.6.
const (
	ioctlGetCap          = 0xc010640c // DRM_IOCTL_GET_CAP
	ioctlSyncobjCreate   = 0xc00864bf // DRM_IOCTL_SYNCOBJ_CREATE
	ioctlSyncobjDestroy  = 0xc00864c0 // DRM_IOCTL_SYNCOBJ_DESTROY
	ioctlSyncobjToFD     = 0xc01064c1 // DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD
	ioctlSyncobjFromFD   = 0xc01064c2 // DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE
	ioctlSyncobjQuery    = 0xc01864cb // DRM_IOCTL_SYNCOBJ_QUERY
	ioctlSyncobjTransfer = 0xc02064cc // DRM_IOCTL_SYNCOBJ_TRANSFER
	ioctlSyncobjSignal   = 0xc01864cd // DRM_IOCTL_SYNCOBJ_TIMELINE_SIGNAL
	ioctlSyncobjEventfd  = 0xc01864cf // DRM_IOCTL_SYNCOBJ_EVENTFD

	capSyncobjTimeline   = 0x14 // DRM_CAP_SYNCOBJ_TIMELINE
	syncobjImportSyncFD  = 1    // DRM_SYNCOBJ_FD_TO_HANDLE_FLAGS_IMPORT_SYNC_FILE
	withoutSyncobjReason = "the driver has no timeline syncobjs, or the kernel is older than Linux 6.6"
)

type getCapArg struct {
	_ structs.HostLayout

	capability, value uint64
}

// syncobjArg is struct drm_syncobj_create and drm_syncobj_destroy.
type syncobjArg struct {
	_ structs.HostLayout

	handle, flags uint32
}

type syncobjFDArg struct {
	_ structs.HostLayout

	handle, flags uint32
	fd            int32
	_             uint32
}

type syncobjTransferArg struct {
	_ structs.HostLayout

	src, dst           uint32
	srcPoint, dstPoint uint64
	flags, _           uint32
}

type syncobjEventfdArg struct {
	_ structs.HostLayout

	handle, flags uint32
	point         uint64
	fd            int32
	_             uint32
}

// SyncDevice makes timeline syncobjs, the fences of Wayland's
// wp_linux_drm_syncobj_v1, on any DRM node: they are not tied to its hardware. Not
// for concurrent use, nor are its timelines.
type SyncDevice struct {
	fd     *FD
	binary uint32 // a syncobj that sync files pass through
	array  *syncobjArray
}

// OpenSyncDevice opens a DRM node, such as /dev/dri/renderD128. ErrNotSupported says
// that there is none, or that it cannot do what is needed. The caller closes it, after
// the timelines.
func OpenSyncDevice(node string) (*SyncDevice, error) {
	fd, err := OpenDRM(node)
	if err != nil {
		return nil, err
	}
	d := &SyncDevice{fd: fd, array: &syncobjArray{}}
	if err := d.init(); err != nil {
		_ = fd.Close()
		return nil, &OpError{Op: "use syncobjs of", Object: node, Err: err}
	}
	return d, nil
}

func (d *SyncDevice) init() error {
	arg := getCapArg{capability: capSyncobjTimeline}
	if _, err := ioctl(d.fd, ioctlGetCap, &arg); err != nil || arg.value == 0 {
		return fmt.Errorf("%w: %s", ErrNotSupported, withoutSyncobjReason)
	}
	// A kernel that knows the request misses the syncobj 0 first.
	if _, err := ioctl(d.fd, ioctlSyncobjEventfd, &syncobjEventfdArg{}); !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%w: %s", ErrNotSupported, withoutSyncobjReason)
	}
	var err error
	d.binary, err = d.create()
	return err
}

func (d *SyncDevice) create() (uint32, error) {
	arg := syncobjArg{}
	_, err := ioctl(d.fd, ioctlSyncobjCreate, &arg)
	return arg.handle, err
}

// Close frees the device; its timelines must be gone.
func (d *SyncDevice) Close() error { return d.fd.Close() }

// Timeline is a timeline syncobj: points, counted upwards, that signal when work ends.
type Timeline struct {
	d      *SyncDevice
	handle uint32
}

// NewTimeline makes a timeline at point 0. The caller destroys it.
func (d *SyncDevice) NewTimeline() (*Timeline, error) {
	handle, err := d.create()
	if err != nil {
		return nil, &OpError{Op: "create syncobj on", Object: d.fd.Name(), Err: err}
	}
	return &Timeline{d, handle}, nil
}

// ImportTimeline opens the timeline that somebody else exported. fd stays the
// caller's; the caller destroys the timeline, which leaves the others' alone.
func (d *SyncDevice) ImportTimeline(fd *FD) (*Timeline, error) {
	arg := syncobjFDArg{fd: int32(fd.Int())}
	if _, err := ioctl(d.fd, ioctlSyncobjFromFD, &arg); err != nil {
		return nil, &OpError{Op: "import syncobj", Object: fd.Name(), Err: err}
	}
	return &Timeline{d, arg.handle}, nil
}

// Export returns a descriptor of the timeline for another process. The caller owns it.
func (t *Timeline) Export() (*FD, error) {
	arg := syncobjFDArg{handle: t.handle, fd: -1}
	if _, err := ioctl(t.d.fd, ioctlSyncobjToFD, &arg); err != nil {
		return nil, &OpError{Op: "export syncobj of", Object: t.d.fd.Name(), Err: err}
	}
	return NewFD(int(arg.fd), "timeline syncobj"), nil
}

// Follow makes a point of the timeline signal when the work that is queued on a
// dma-buf and that a reader has to wait for has ended, and every earlier point has.
// It allocates nothing. ErrNotSupported: the kernel is older than 6.0.
func (t *Timeline) Follow(buf *FD, point uint64) error {
	export := syncFileArg{flags: syncFlags(false), fd: -1}
	if _, err := ioctl(buf, ioctlExportSyncFile, &export); err != nil {
		return &OpError{Op: "export sync file of", Object: buf.Name(), Err: oldKernel(err, "Linux 6.0")}
	}
	// The descriptor lives for the next request only and nobody else learns of it.
	load := syncobjFDArg{handle: t.d.binary, flags: syncobjImportSyncFD, fd: export.fd}
	_, err := ioctl(t.d.fd, ioctlSyncobjFromFD, &load)
	_ = unix.Close(int(export.fd))
	if err == nil {
		move := syncobjTransferArg{src: t.d.binary, dst: t.handle, dstPoint: point}
		_, err = ioctl(t.d.fd, ioctlSyncobjTransfer, &move)
	}
	if err != nil {
		return &OpError{Op: "set a point of a syncobj to the work on", Object: buf.Name(), Err: err}
	}
	return nil
}

// Notify makes the kernel add 1 to an eventfd when the point signals, also when
// nobody has said yet what it waits for. The eventfd stays the caller's.
func (t *Timeline) Notify(point uint64, eventfd *FD) error {
	arg := syncobjEventfdArg{handle: t.handle, point: point, fd: int32(eventfd.Int())}
	if _, err := ioctl(t.d.fd, ioctlSyncobjEventfd, &arg); err != nil {
		return &OpError{Op: "watch a syncobj with", Object: eventfd.Name(), Err: err}
	}
	return nil
}

// Value returns the last point that has signalled.
func (t *Timeline) Value() (uint64, error) {
	v, err := t.d.array.call(t.d.fd, ioctlSyncobjQuery, t.handle, 0)
	if err != nil {
		return 0, &OpError{Op: "read a syncobj of", Object: t.d.fd.Name(), Err: err}
	}
	return v, nil
}

// Signal signals a point now.
func (t *Timeline) Signal(point uint64) error {
	if _, err := t.d.array.call(t.d.fd, ioctlSyncobjSignal, t.handle, point); err != nil {
		return &OpError{Op: "signal a syncobj of", Object: t.d.fd.Name(), Err: err}
	}
	return nil
}

// Destroy frees the timeline here; whoever imported it keeps it. Nil does nothing.
func (t *Timeline) Destroy() {
	if t != nil {
		// It fails only for a handle that does not exist.
		_, _ = ioctl(t.d.fd, ioctlSyncobjDestroy, &syncobjArg{handle: t.handle})
	}
}
