package relay

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/link"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// maxICC is the largest colour profile that is passed on, in bytes.
const maxICC = 254 << 10

// sealed makes read-only memory for a client of what the host sent. The descriptor is
// opened for reading only, because kernels before 6.7 refuse shared mappings of sealed
// memory that is open for writing, and old clients map keymaps so.
func sealed(name string, content []byte) (*dmabuf.FD, error) {
	if len(content) == 0 {
		raw, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("open /dev/null: %w", err)
		}
		return dmabuf.NewFD(raw, name), nil
	}
	fd, err := dmabuf.NewMemfd(name, int64(len(content)))
	if err != nil {
		return nil, err
	}
	for done := 0; done < len(content); {
		n, err := unix.Pwrite(fd.Int(), content[done:], int64(done))
		if err != nil && !errors.Is(err, unix.EINTR) {
			_ = fd.Close()
			return nil, fmt.Errorf("write %s: %w", name, err)
		}
		done += max(n, 0)
	}
	if _, err := unix.FcntlInt(uintptr(fd.Int()), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SEAL); err != nil {
		_ = fd.Close()
		return nil, fmt.Errorf("seal %s: %w", name, err)
	}
	raw, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd.Int()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fd, nil // no /proc: the seals protect it as well
	}
	_ = fd.Close()
	return dmabuf.NewFD(raw, name), nil
}

// setICC sends a colour profile by value: the part of the file that it is.
func setICC(c *Client, o *object, m wire.Message) (bool, error) {
	var req proto.WpImageDescriptionCreatorIccV1SetIccFileRequest
	if err := req.Decode(m); err != nil {
		return false, err
	}
	defer func() { _ = req.IccProfile.Close() }()
	if req.Length == 0 || req.Length > maxICC {
		return false, &ProtocolError{Object: o.id, Code: uint32(proto.WpImageDescriptionCreatorIccV1ErrorBadSize),
			Text: fmt.Sprintf("a profile of %d bytes, want 1 to %d", req.Length, maxICC)}
	}
	content := make([]byte, req.Length)
	for done := 0; done < len(content); {
		n, err := unix.Pread(req.IccProfile.Int(), content[done:], int64(req.Offset)+int64(done))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return false, &ProtocolError{Object: o.id, Code: uint32(proto.WpImageDescriptionCreatorIccV1ErrorBadFd),
				Text: fmt.Sprintf("the profile cannot be read at %d: %v", int64(req.Offset)+int64(done), err)}
		}
		done += n
	}
	// What is sent begins with the profile, and fills most of a frame.
	if err := c.flush(); err != nil {
		return false, err
	}
	c.begin(m)
	c.batchUint(0)
	c.batchUint(req.Length)
	c.finish()
	c.item(link.Item{Kind: link.ItemBytes, Bytes: content})
	return false, c.flush()
}
