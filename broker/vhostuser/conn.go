package vhostuser

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// Conn carries messages over a unix stream socket. One goroutine may read and
// one may write at the same time; Close and Interrupt may come from any.
type Conn struct {
	// Resume is how many of the first messages tell again what another back-end was
	// told that died. After them the rings go on where its ledgers say; see
	// Config.Ledgers. Set it before Serve.
	Resume int

	sock *net.UnixConn

	in  [maxPayload]byte
	oob []byte
	msg Message
	out []byte
}

func newConn(sock *net.UnixConn) *Conn {
	return &Conn{sock: sock, oob: make([]byte, unix.CmsgSpace(4*maxFDs))}
}

// FromFD makes a connection of a connected socket (option --fd, libvirt's way).
// It takes ownership of fd, also on error.
func FromFD(fd *dmabuf.FD) (*Conn, error) {
	if !fd.Valid() {
		return nil, &OpError{Op: "use socket", Err: os.ErrClosed}
	}
	raw := fd.Disown()
	file := os.NewFile(uintptr(raw), "vhost-user socket")
	defer func() { _ = file.Close() }() // FileConn works on a copy
	c, err := net.FileConn(file)
	if err != nil {
		return nil, &OpError{Op: "use socket", Err: fmt.Errorf("descriptor %d: %w", raw, err)}
	}
	sock, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, &OpError{Op: "use socket", Err: fmt.Errorf("%w: descriptor %d is a %T, must be a connected unix socket", ErrProtocol, raw, c)}
	}
	return newConn(sock), nil
}

// Close closes the socket; a blocked Read or Send returns with an error.
func (c *Conn) Close() error { return c.sock.Close() }

// Interrupt makes a Read or Send that is blocked, and every later one, fail with
// os.ErrDeadlineExceeded.
func (c *Conn) Interrupt() { _ = c.sock.SetDeadline(time.Unix(1, 0)) }

// Read waits for the next message. The message and its payload are valid until
// the next Read; the caller takes or closes the descriptors. It returns io.EOF
// if the peer closed the socket between two messages, and ErrProtocol if the
// stream makes no sense.
//
// Received eventfds share their file description with the peer: their status
// flags must never be changed.
func (c *Conn) Read() (*Message, error) {
	m := &c.msg
	m.CloseFDs()
	var head [headerSize]byte
	if err := c.fill(head[:], true); err != nil {
		m.CloseFDs()
		return nil, err
	}
	h, err := decodeHeader(head[:])
	if err != nil {
		m.CloseFDs()
		return nil, err
	}
	m.Request, m.Flags, m.Payload = h.request, h.flags, c.in[:h.size]
	if err := c.fill(m.Payload, false); err != nil {
		m.CloseFDs()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("payload of %v: %w", Request(h.request), err)
	}
	return m, nil
}

// fill reads exactly len(p) bytes. Descriptors come with the header; with the
// payload they are an error.
func (c *Conn) fill(p []byte, fds bool) error {
	for n := 0; n < len(p); {
		got, oobn, flags, _, err := c.sock.ReadMsgUnix(p[n:], c.oob)
		if oobn > 0 {
			if err := c.takeFDs(c.oob[:oobn]); err != nil {
				return err
			}
			if !fds {
				return fmt.Errorf("%w: descriptors in the middle of a message", ErrProtocol)
			}
		}
		if flags&unix.MSG_CTRUNC != 0 {
			return fmt.Errorf("%w: more than %d descriptors, or no room for them", ErrProtocol, maxFDs)
		}
		if err != nil {
			if errors.Is(err, io.EOF) && n > 0 {
				return io.ErrUnexpectedEOF
			}
			return err
		}
		n += got
	}
	return nil
}

// takeFDs makes every descriptor in oob an owned one of the message.
func (c *Conn) takeFDs(oob []byte) error {
	cmsgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return fmt.Errorf("%w: control message: %w", ErrProtocol, err)
	}
	for i := range cmsgs {
		raws, err := unix.ParseUnixRights(&cmsgs[i])
		if err != nil {
			continue // another kind of control message, which carries no descriptors
		}
		for _, raw := range raws {
			c.msg.FDs = append(c.msg.FDs, dmabuf.NewFD(raw, "vhost-user message"))
		}
	}
	return nil
}

// Send writes one message. fds are borrowed.
func (c *Conn) Send(request, flags uint32, payload []byte, fds ...*dmabuf.FD) error {
	c.out = header{request: request, flags: flags | flagVersion, size: uint32(len(payload))}.append(c.out[:0])
	c.out = append(c.out, payload...)
	return c.send(c.out, fds...)
}

// send writes bytes of a message; the descriptors go with the first of them.
func (c *Conn) send(p []byte, fds ...*dmabuf.FD) error {
	var oob []byte
	if len(fds) > 0 {
		raws := make([]int, len(fds))
		for i, fd := range fds {
			raws[i] = fd.Int()
		}
		oob = unix.UnixRights(raws...)
	}
	n, _, err := c.sock.WriteMsgUnix(p, oob, nil)
	for err == nil && n < len(p) {
		var more int
		more, err = c.sock.Write(p[n:])
		n += more
	}
	return err
}

// hungUp reports whether err means that the peer is gone, which is an ordinary
// event: QEMU exited, or was killed with messages unread.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)
}
