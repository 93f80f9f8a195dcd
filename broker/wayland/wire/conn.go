package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/unixsock"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Conn is one end of a Wayland connection. It belongs to one goroutine.
type Conn struct {
	// Out takes outgoing messages; Flush sends them.
	Out Writer

	fd  *dmabuf.FD
	max int
	in  []byte // received bytes not framed yet are in[r:w]
	r   int
	w   int
	fds FDQueue
	oob []byte
	sys sysmsg
}

// NewConn takes ownership of a connected stream socket and makes it
// non-blocking. maxMessage is the largest message accepted, in bytes; 0 means
// [MaxMessage]. On error the socket is closed.
func NewConn(fd *dmabuf.FD, maxMessage int) (*Conn, error) {
	if maxMessage <= 0 {
		maxMessage = MaxMessage
	}
	if err := unix.SetNonblock(fd.Int(), true); err != nil {
		_ = fd.Close()
		return nil, &OpError{Op: "make non-blocking", Err: err}
	}
	return &Conn{
		fd:  fd,
		max: min(maxMessage, maxSize),
		in:  make([]byte, 4*max(maxMessage, MaxMessage)),
		oob: make([]byte, unix.CmsgSpace(4*MaxFDs)),
	}, nil
}

// Dial connects to a compositor's socket by path. It does not wait: a
// compositor with a full backlog counts as an error (EAGAIN).
func Dial(path string) (*Conn, error) {
	fd, err := unixsock.Connect(path)
	if err != nil {
		return nil, &OpError{Op: "connect", Arg: path, Err: err}
	}
	return NewConn(fd, MaxMessage)
}

// FD returns the socket's number for poll(2); ownership stays.
func (c *Conn) FD() int { return c.fd.Int() }

// Receive does one recvmsg and returns the bytes it brought; 0 without an error
// means that nothing is there now. Bodies of earlier messages become invalid.
// [ErrClosed] means that the peer is gone.
func (c *Conn) Receive() (int, error) {
	if c.r > 0 {
		c.w = copy(c.in, c.in[c.r:c.w])
		c.r = 0
	}
	if c.w == len(c.in) {
		return 0, nil // Next has to be called first
	}
	n, oobn, flags, err := c.recvmsg()
	switch {
	case errors.Is(err, unix.EAGAIN):
		return 0, nil
	case errors.Is(err, unix.ECONNRESET):
		return 0, &OpError{Op: "receive", Err: ErrClosed}
	case err != nil:
		return 0, &OpError{Op: "receive", Err: err}
	}
	if err := c.takeRights(c.oob[:oobn]); err != nil {
		return 0, &OpError{Op: "receive", Err: err}
	}
	if flags&unix.MSG_CTRUNC != 0 {
		return 0, &OpError{Op: "receive", Err: fmt.Errorf("%w: the kernel dropped some (MSG_CTRUNC): more than %d in a message, or the limit of open files is reached", ErrDescriptors, MaxFDs)}
	}
	if n == 0 {
		return 0, &OpError{Op: "receive", Err: ErrClosed}
	}
	c.w += n
	return n, nil
}

func (c *Conn) recvmsg() (n, oobn, flags int, err error) {
	for {
		n, oobn, flags, err = c.sys.recv(c.fd.Int(), c.in[c.w:], c.oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
		if !errors.Is(err, unix.EINTR) {
			return n, oobn, flags, err
		}
	}
}

// takeRights queues the descriptors of a control buffer.
func (c *Conn) takeRights(oob []byte) error {
	if len(oob) == 0 {
		return nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return fmt.Errorf("%w: control message: %w", ErrDescriptors, err)
	}
	for i := range msgs {
		if msgs[i].Header.Level != unix.SOL_SOCKET || msgs[i].Header.Type != unix.SCM_RIGHTS {
			continue
		}
		raws, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			return fmt.Errorf("%w: control message: %w", ErrDescriptors, err)
		}
		for _, raw := range raws {
			c.fds.Push(dmabuf.NewFD(raw, "wayland received"))
		}
	}
	if c.fds.Len() > maxQueuedFDs {
		return fmt.Errorf("%w: %d unclaimed, limit %d", ErrDescriptors, c.fds.Len(), maxQueuedFDs)
	}
	return nil
}

// Next frames the next message; ok is false when no whole one has arrived. The
// caller must take or skip the message's descriptors before it asks for another.
func (c *Conn) Next() (m Message, ok bool, err error) {
	m, n, err := Frame(c.in[c.r:c.w], c.max)
	if err != nil || n == 0 {
		return Message{}, false, err
	}
	c.r += n
	m.FDs = &c.fds
	return m, true, nil
}

// Frame cuts one message off the front of b and returns its size in bytes, 0
// when b does not hold all of it yet. maxMessage limits the size that the
// header may name.
func Frame(b []byte, maxMessage int) (m Message, n int, err error) {
	if len(b) < headerSize {
		return Message{}, 0, nil
	}
	word := binary.LittleEndian.Uint32(b[4:])
	size := int(word >> 16)
	object := binary.LittleEndian.Uint32(b)
	if size < headerSize || size%4 != 0 || size > maxMessage {
		return Message{}, 0, &OpError{Op: "decode", Err: fmt.Errorf("%w: size %d of a message for object %d, want %d to %d in steps of 4",
			ErrMalformed, size, object, headerSize, maxMessage)}
	}
	if object == 0 {
		return Message{}, 0, &OpError{Op: "decode", Err: fmt.Errorf("%w: message for object 0", ErrMalformed)}
	}
	if len(b) < size {
		return Message{}, 0, nil
	}
	return Message{Object: ID(object), Opcode: uint16(word), Body: b[headerSize:size:size]}, size, nil
}

// Flush sends as much as the socket takes now. It returns nil when the socket
// is full: then Out.Pending is not 0, and the caller polls for POLLOUT.
func (c *Conn) Flush() error {
	if err := c.Out.Err(); err != nil {
		return err
	}
	for c.Out.Pending() > 0 {
		b, nfds := c.Out.window()
		n, err := c.sendmsg(b, c.Out.fds[:nfds])
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
			return &OpError{Op: "send", Err: ErrClosed}
		case err != nil:
			return &OpError{Op: "send", Err: err}
		}
		c.Out.advance(n, nfds)
	}
	return nil
}

func (c *Conn) sendmsg(b []byte, fds []outFD) (int, error) {
	var oob []byte
	if len(fds) > 0 {
		var raws [MaxFDs]int
		for i := range fds {
			raws[i] = fds[i].fd.Int()
		}
		oob = unix.UnixRights(raws[:len(fds)]...)
	}
	for {
		n, err := c.sys.send(c.fd.Int(), b, oob, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// Leave sends what is left and closes, in a way that lets the peer read it: where a socket
// is closed with unread bytes in it, the peer's next read gives ECONNRESET, and libwayland
// then drops what it has read, the error event too. So what still comes is read and dropped
// until the peer has closed or wait has passed. It blocks the goroutine.
func (c *Conn) Leave(wait time.Duration) error {
	err := c.Flush()
	if err == nil && unix.Shutdown(c.fd.Int(), unix.SHUT_WR) == nil {
		c.drop(time.Now().Add(wait))
	}
	return errors.Join(err, c.Close())
}

// drop reads until the peer has closed or end has come. The kernel closes descriptors that
// nobody asks for.
func (c *Conn) drop(end time.Time) {
	for {
		n, err := unix.Read(c.fd.Int(), c.in)
		left := time.Until(end)
		switch {
		case left <= 0, n == 0 && err == nil:
			return
		case err == nil, errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EAGAIN):
			return
		}
		fds := []unix.PollFd{{Fd: int32(c.fd.Int()), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, int(left.Milliseconds())+1); n <= 0 && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// Close closes the socket, unsent descriptors and unclaimed ones.
func (c *Conn) Close() error {
	c.Out.discard()
	c.fds.Close()
	return c.fd.Close()
}
