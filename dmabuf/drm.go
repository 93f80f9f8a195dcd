package dmabuf

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// drmMajor is the device number of DRM nodes (drm/drm.h, DRM_MAJOR).
const drmMajor = 226

// OpenDRM opens a DRM node, such as /dev/dri/renderD128, for reading and writing. The
// caller owns the descriptor. ErrNotSupported says that the file is missing, closed to
// this user, or something else: Mesa takes any character device and renders in
// software then.
func OpenDRM(node string) (*FD, error) {
	fd, err := openDevice(node, "there is no such DRM node")
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd.Int(), &st); err != nil {
		_ = fd.Close()
		return nil, &OpError{Op: "open", Object: node, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || unix.Major(uint64(st.Rdev)) != drmMajor {
		_ = fd.Close()
		return nil, &OpError{Op: "open", Object: node, Err: fmt.Errorf("%w: it is not a DRM node", ErrNotSupported)}
	}
	return fd, nil
}
