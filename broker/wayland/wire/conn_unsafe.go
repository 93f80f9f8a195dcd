package wire

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// sysmsg is struct msghdr with its one iovec, kept between calls: unix.Recvmsg
// also asks for the peer's address, which costs an allocation per call.
type sysmsg struct {
	hdr unix.Msghdr
	iov unix.Iovec
}

// set points the header at the buffers; oob may be empty, b may not.
func (s *sysmsg) set(b, oob []byte) {
	s.iov.Base = unsafe.SliceData(b)
	s.iov.SetLen(len(b))
	s.hdr = unix.Msghdr{Iov: &s.iov}
	s.hdr.SetIovlen(1)
	if len(oob) > 0 {
		s.hdr.Control = unsafe.SliceData(oob)
		s.hdr.SetControllen(len(oob))
	}
}

// recv is recvmsg(2) into b and oob.
func (s *sysmsg) recv(fd int, b, oob []byte, flags int) (n, oobn, gotFlags int, err error) {
	s.set(b, oob)
	r, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&s.hdr)), uintptr(flags))
	if errno != 0 {
		return 0, 0, 0, errno
	}
	return int(r), int(s.hdr.Controllen), int(s.hdr.Flags), nil
}

// send is sendmsg(2) of b with oob.
func (s *sysmsg) send(fd int, b, oob []byte, flags int) (int, error) {
	s.set(b, oob)
	r, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&s.hdr)), uintptr(flags))
	if errno != 0 {
		return 0, errno
	}
	return int(r), nil
}
