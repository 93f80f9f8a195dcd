package dmabuf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"structs"

	"golang.org/x/sys/unix"
)

// Requests on /dev/udmabuf (linux/udmabuf.h).
const (
	ioctlUDMABufCreate     = 0x40187542 // _IOW('u', 0x42, struct udmabuf_create)
	ioctlUDMABufCreateList = 0x40087543 // _IOW('u', 0x43, struct udmabuf_create_list)

	udmabufCloexec  = 1
	udmabufListHead = 8  // struct udmabuf_create_list
	udmabufListItem = 24 // struct udmabuf_create_item
)

// udmabufCreate is struct udmabuf_create.
type udmabufCreate struct {
	_ structs.HostLayout

	memfd  uint32
	flags  uint32
	offset uint64
	size   uint64
}

// Span is a part of a memfd. Offset and Size are in bytes and must be multiples of
// the page size.
type Span struct {
	FD           *FD // stays the caller's
	Offset, Size uint64
}

// UDMABuf is the open /dev/udmabuf, which turns pages of memfds into dma-bufs. It is
// safe for concurrent use.
type UDMABuf struct {
	dev *FD
}

// udmabufPath is a variable for tests.
var udmabufPath = "/dev/udmabuf"

// OpenUDMABuf opens the device. ErrNotSupported says that there is none (with the
// kernel option that is missing) or that this user may not open it.
func OpenUDMABuf() (*UDMABuf, error) {
	dev, err := openDevice(udmabufPath, "the kernel lacks CONFIG_UDMABUF, or the module udmabuf is not loaded")
	if err != nil {
		return nil, err
	}
	return &UDMABuf{dev}, nil
}

// openDevice opens a device node; missing says what its absence means.
func openDevice(path, missing string) (*FD, error) {
	raw, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case err == nil:
		return NewFD(raw, path), nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		err = fmt.Errorf("%w: %s: %w", ErrNotSupported, missing, err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		err = fmt.Errorf("%w: no permission, see the owner and group of the node: %w", ErrNotSupported, err)
	}
	return nil, &OpError{Op: "open", Object: path, Err: err}
}

// Close closes the device; dma-bufs made of it stay.
func (u *UDMABuf) Close() error { return u.dev.Close() }

// Create makes a dma-buf of a part of a memfd that has F_SEAL_SHRINK and not
// F_SEAL_WRITE. They share the pages; nothing is copied. The caller owns the result.
func (u *UDMABuf) Create(s Span) (*FD, error) {
	arg := udmabufCreate{memfd: uint32(s.FD.Int()), flags: udmabufCloexec, offset: s.Offset, size: s.Size}
	raw, err := ioctl(u.dev, ioctlUDMABufCreate, &arg)
	runtime.KeepAlive(s.FD)
	if err != nil {
		return nil, &OpError{Op: "create udmabuf", Object: fmt.Sprintf("of %d bytes at %d of %s", s.Size, s.Offset, s.FD.Name()), Err: err}
	}
	return NewFD(raw, "udmabuf of "+s.FD.Name()), nil
}

// CreateList makes one dma-buf of several parts, in order. Adjoining parts of one
// memfd count once: see [UDMABufLimits].
func (u *UDMABuf) CreateList(spans []Span) (*FD, error) {
	spans = joinSpans(spans)
	if len(spans) == 0 {
		return nil, &OpError{Op: "create udmabuf", Object: "list", Err: fmt.Errorf("%w: no spans", ErrInvalid)}
	}
	if len(spans) == 1 {
		return u.Create(spans[0])
	}
	list := make([]byte, udmabufListHead, udmabufListHead+udmabufListItem*len(spans))
	binary.NativeEndian.PutUint32(list, udmabufCloexec)
	binary.NativeEndian.PutUint32(list[4:], uint32(len(spans)))
	total := uint64(0)
	for _, s := range spans {
		list = binary.NativeEndian.AppendUint32(list, uint32(s.FD.Int()))
		list = binary.NativeEndian.AppendUint32(list, 0)
		list = binary.NativeEndian.AppendUint64(list, s.Offset)
		list = binary.NativeEndian.AppendUint64(list, s.Size)
		total += s.Size
	}
	raw, err := ioctl(u.dev, ioctlUDMABufCreateList, &list[0])
	runtime.KeepAlive(spans)
	if err != nil {
		return nil, &OpError{Op: "create udmabuf", Object: fmt.Sprintf("of %d spans, %d bytes", len(spans), total), Err: err}
	}
	return NewFD(raw, "udmabuf of "+spans[0].FD.Name()), nil
}

// joinSpans joins spans that follow each other in one file, and drops empty ones.
func joinSpans(spans []Span) []Span {
	out := make([]Span, 0, len(spans))
	for _, s := range spans {
		if s.Size == 0 {
			continue
		}
		if n := len(out); n > 0 && out[n-1].FD == s.FD && out[n-1].Offset+out[n-1].Size == s.Offset {
			out[n-1].Size += s.Size
			continue
		}
		out = append(out, s)
	}
	return out
}

// UDMABufLimits returns the most spans and the most bytes that the kernel takes for
// one udmabuf (module parameters list_limit and size_limit_mb; the kernel's defaults
// where they cannot be read).
func UDMABufLimits() (spans int, bytes int64) {
	return udmabufParameter("list_limit", 1024), int64(udmabufParameter("size_limit_mb", 64)) << 20
}

func udmabufParameter(name string, otherwise int) int {
	text, err := os.ReadFile("/sys/module/udmabuf/parameters/" + name)
	if err != nil {
		return otherwise
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return otherwise
	}
	return n
}

// ProbeUDMABuf finds out whether udmabuf works, by making one of a page. It returns
// nil, an error that is ErrNotSupported and says why, or another error that proves
// nothing.
func ProbeUDMABuf() error {
	u, err := OpenUDMABuf()
	if err != nil {
		return err
	}
	defer func() { _ = u.Close() }()
	size := PageAlign(1)
	mem, err := NewMemfd("udmabuf probe", size)
	if err != nil {
		return err
	}
	defer func() { _ = mem.Close() }()
	buf, err := u.Create(Span{FD: mem, Size: uint64(size)})
	if err != nil {
		return err
	}
	return buf.Close()
}
