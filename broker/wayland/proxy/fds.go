package proxy

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Limits of memory that is passed by value, in bytes.
const (
	maxKeymap = 1 << 20
	maxICC    = 32 << 20
)

// readFD copies the first size bytes of a file. It does not map it: a file that is
// cut meanwhile then is an error and not a fault.
func readFD(fd *dmabuf.FD, size, limit uint32) ([]byte, error) {
	if size > limit {
		return nil, fmt.Errorf("%d bytes, limit %d", size, limit)
	}
	b := make([]byte, size)
	for got := 0; got < len(b); {
		n, err := unix.Pread(fd.Int(), b[got:], int64(got))
		if err == nil && n == 0 {
			err = fmt.Errorf("the file ends at byte %d", got)
		}
		if err != nil {
			return nil, fmt.Errorf("%d bytes: %w", size, err)
		}
		got += n
	}
	return b, nil
}

// passBytes sends an event on whose descriptor is memory to be read.
func (c *client) passBytes(m *message, size, limit uint32) error {
	b, err := readFD(m.fd, size, limit)
	if err != nil {
		return hostFault("%s: %w", m.name(), err)
	}
	if c.start(m) {
		c.out.End()
		c.items = append(c.items, Item{Kind: ItemBytes, Bytes: b})
	}
	return nil
}

func keymap(c *client, m *message) error { return c.passBytes(m, m.uint(2), maxKeymap) }

func iccFile(c *client, m *message) error { return c.passBytes(m, m.uint(1), maxICC) }

// sendSelection passes the write end of a pipe to the client that owns a selection.
func sendSelection(c *client, m *message) error {
	if c.start(m) {
		c.out.End()
		c.items = append(c.items, Item{Kind: ItemPipe, FD: m.fd})
		m.fd = nil
	}
	return nil
}

// receive passes the write end of the guest's pipe to the compositor.
func receive(c *client, m *message) error {
	if m.item.Kind != ItemPipe || m.item.FD == nil {
		return fault(m.obj.guest, codeMethod, "%s brings item kind %d, want a pipe (%d)", m.name(), m.item.Kind, ItemPipe)
	}
	c.begin(m)
	c.conn.Out.FD(m.item.FD)
	m.item.FD = nil
	c.conn.Out.End()
	return c.conn.Out.Err()
}

// setICC passes a colour profile on as a file.
func setICC(c *client, m *message) error {
	const badSize = uint32(proto.WpImageDescriptionCreatorIccV1ErrorBadSize)
	offset, length := m.uint(1), m.uint(2)
	if m.item.Kind != ItemBytes {
		return fault(m.obj.guest, codeMethod, "%s brings item kind %d, want bytes (%d)", m.name(), m.item.Kind, ItemBytes)
	}
	have := uint64(len(m.item.Bytes))
	if length == 0 || length > maxICC || have > maxICC || uint64(offset)+uint64(length) > have {
		return fault(m.obj.guest, badSize, "%s: %d bytes at %d of %d, limit %d", m.name(), length, offset, have, maxICC)
	}
	fd, err := dmabuf.NewMemfd("icc profile", int64(have), unix.F_SEAL_SEAL)
	if err != nil {
		return fault(m.obj.guest, codeMemory, "%s: %w", m.name(), err)
	}
	for b, at := m.item.Bytes, int64(0); len(b) > 0; {
		n, err := unix.Pwrite(fd.Int(), b, at)
		if err != nil {
			_ = fd.Close()
			return fault(m.obj.guest, codeMemory, "%s: %w", m.name(), err)
		}
		b, at = b[n:], at+int64(n)
	}
	proto.WpImageDescriptionCreatorIccV1(m.obj.host).SetIccFile(&c.conn.Out, fd, offset, length)
	return c.conn.Out.Err()
}
