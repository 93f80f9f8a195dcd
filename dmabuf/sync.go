package dmabuf

import (
	"errors"
	"fmt"
	"os"
	"structs"
	"time"

	"golang.org/x/sys/unix"
)

// Requests on dma-bufs and sync files (linux/dma-buf.h, linux/sync_file.h).
const (
	ioctlExportSyncFile = 0xc0086202 // _IOWR('b', 2, struct dma_buf_export_sync_file), Linux 6.0
	ioctlImportSyncFile = 0x40086203 // _IOW('b', 3, struct dma_buf_import_sync_file), Linux 6.0
	ioctlSyncMerge      = 0xc0303e03 // _IOWR('>', 3, struct sync_merge_data)
	ioctlSyncFileInfo   = 0xc0383e04 // _IOWR('>', 4, struct sync_file_info)
)

// syncFileArg is struct dma_buf_export_sync_file and dma_buf_import_sync_file.
type syncFileArg struct {
	_ structs.HostLayout

	flags uint32
	fd    int32
}

// mergeArg is struct sync_merge_data.
type mergeArg struct {
	_ structs.HostLayout

	name  [32]byte
	fd2   int32
	fence int32
	flags uint32
	_     uint32
}

// fileInfoArg is struct sync_file_info, without an array of fences.
type fileInfoArg struct {
	_ structs.HostLayout

	name      [32]byte
	status    int32
	flags     uint32
	numFences uint32
	_         uint32
	fences    uint64
}

// SyncStatus is the state of a sync file.
type SyncStatus int

// The states. A negative value is the errno that the work ended with.
const (
	SyncActive    SyncStatus = 0
	SyncSignalled SyncStatus = 1
)

func syncFlags(write bool) uint32 {
	if write {
		return syncRead | syncWrite
	}
	return syncRead
}

// ExportSyncFile takes a snapshot of the work that is queued on a dma-buf as a sync
// file: the work that must end before somebody may read it, or write it if write is
// set. A buffer that nothing is queued on gives one that has signalled. The caller
// owns the result.
//
// ErrNotSupported: the kernel is older than 6.0.
func ExportSyncFile(buf *FD, write bool) (*FD, error) {
	arg := syncFileArg{flags: syncFlags(write), fd: -1}
	if _, err := ioctl(buf, ioctlExportSyncFile, &arg); err != nil {
		return nil, &OpError{Op: "export sync file of", Object: buf.Name(), Err: oldKernel(err, "Linux 6.0")}
	}
	return NewFD(int(arg.fd), "sync file of "+buf.Name()), nil
}

// ImportSyncFile adds a sync file's work to a dma-buf, as reading or, if write is
// set, as writing: whoever uses the buffer with implicit synchronisation waits for
// it. Both descriptors stay the caller's.
//
// ErrNotSupported: the kernel is older than 6.0.
func ImportSyncFile(buf, fence *FD, write bool) error {
	arg := syncFileArg{flags: syncFlags(write), fd: int32(fence.Int())}
	if _, err := ioctl(buf, ioctlImportSyncFile, &arg); err != nil {
		return &OpError{Op: "import sync file into", Object: buf.Name(), Err: oldKernel(err, "Linux 6.0")}
	}
	return nil
}

// oldKernel explains the error of a request that the kernel does not know.
func oldKernel(err error, since string) error {
	if errors.Is(err, unix.ENOTTY) {
		return fmt.Errorf("%w: the kernel is older than %s or this is not a dma-buf: %w", ErrNotSupported, since, err)
	}
	return err
}

// WaitSyncFile waits until a sync file has signalled; a negative timeout waits for
// ever. os.ErrDeadlineExceeded says that it had not in time. It also waits for a
// dma-buf: until nothing is queued that writes to it.
func WaitSyncFile(fence *FD, timeout time.Duration) error {
	if !fence.Valid() { // poll would skip it and wait in vain
		return &OpError{Op: "wait for", Object: fence.Name(), Err: os.ErrClosed}
	}
	deadline := time.Now().Add(timeout)
	for {
		ms := -1
		if timeout >= 0 {
			// Rounded up, so that the last poll does not come too early.
			ms = int((max(time.Until(deadline), 0) + time.Millisecond - 1) / time.Millisecond)
		}
		fds := [1]unix.PollFd{{Fd: int32(fence.Int()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds[:], ms)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return &OpError{Op: "wait for", Object: fence.Name(), Err: err}
		case n == 0:
			return &OpError{Op: "wait for", Object: fence.Name(), Err: os.ErrDeadlineExceeded}
		case fds[0].Revents&(unix.POLLERR|unix.POLLNVAL) != 0:
			return &OpError{Op: "wait for", Object: fence.Name(), Err: fmt.Errorf("%w: poll says %#x", ErrInvalid, fds[0].Revents)}
		}
		return nil
	}
}

// MergeSyncFiles makes a sync file that signals when both have. All three are
// independent; the caller owns the result.
func MergeSyncFiles(a, b *FD) (*FD, error) {
	arg := mergeArg{fd2: int32(b.Int()), fence: -1}
	copy(arg.name[:len(arg.name)-1], "gpubroker")
	if _, err := ioctl(a, ioctlSyncMerge, &arg); err != nil {
		return nil, &OpError{Op: "merge sync files", Object: a.Name(), Err: err}
	}
	return NewFD(int(arg.fence), "merged sync file"), nil
}

// SyncFileStatus tells whether a sync file has signalled, and with what result.
func SyncFileStatus(fence *FD) (SyncStatus, error) {
	var arg fileInfoArg
	if _, err := ioctl(fence, ioctlSyncFileInfo, &arg); err != nil {
		return 0, &OpError{Op: "read status of", Object: fence.Name(), Err: err}
	}
	return SyncStatus(arg.status), nil
}
