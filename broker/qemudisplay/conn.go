package qemudisplay

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// sendGrace is how long a stopped connection goes on with a message that is
// half sent: QEMU waits for its end with the big lock held.
const sendGrace = 200 * time.Millisecond

// conn is the socket and what wakes its goroutine. All methods but stop and
// poke are called on that goroutine. The socket's file status is never changed,
// since QEMU may share it; every call asks not to block by itself.
type conn struct {
	sock *dmabuf.FD
	wake *dmabuf.FD // eventfd
	quit atomic.Bool

	in [headerSize + maxReply]byte
	n  int // bytes of in that are filled
}

// newConn takes ownership of sock, on error too.
func newConn(sock *dmabuf.FD) (*conn, error) {
	raw, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = sock.Close()
		return nil, &OpError{"create eventfd", err}
	}
	return &conn{sock: sock, wake: dmabuf.NewFD(raw, "qemu display wake")}, nil
}

var one = []byte{1, 0, 0, 0, 0, 0, 0, 0}

// poke wakes the goroutine. Any goroutine, while the conn is not closed.
func (c *conn) poke() {
	// An eventfd that was read less than 2^64-2 times takes this at once.
	_, _ = unix.Write(c.wake.Int(), one)
}

// stop makes every wait end with errStopped. Any goroutine, while the conn is not
// closed.
func (c *conn) stop() {
	c.quit.Store(true)
	c.poke()
}

func (c *conn) close() {
	_ = c.sock.Close()
	_ = c.wake.Close()
}

// wait sleeps until the socket has one of the events, somebody pokes, or the
// time is up (negative: never).
func (c *conn) wait(events int16, limit time.Duration) error {
	fds := [2]unix.PollFd{
		{Fd: int32(c.sock.Int()), Events: events},
		{Fd: int32(c.wake.Int()), Events: unix.POLLIN},
	}
	ms := -1
	if limit >= 0 {
		ms = int((limit + time.Millisecond - 1) / time.Millisecond)
	}
	if _, err := unix.Poll(fds[:], ms); err != nil && !errors.Is(err, unix.EINTR) {
		return &OpError{"poll", err}
	}
	if fds[1].Revents&unix.POLLIN != 0 {
		var count [8]byte
		_, _ = unix.Read(c.wake.Int(), count[:])
	}
	return nil
}

// send sends a whole message, with a descriptor if fd is not nil; the caller
// keeps it.
func (c *conn) send(msg []byte, fd *dmabuf.FD) error {
	if c.quit.Load() {
		return errStopped
	}
	var rights []byte
	if fd != nil {
		rights = unix.UnixRights(fd.Int())
	}
	var deadline time.Time
	for len(msg) > 0 {
		n, err := unix.SendmsgN(c.sock.Int(), msg, rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if n > 0 {
			msg, rights = msg[n:], nil // the descriptor goes with the first byte
			continue
		}
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			limit := time.Duration(-1)
			if c.quit.Load() {
				if deadline.IsZero() {
					deadline = time.Now().Add(sendGrace)
				}
				if limit = time.Until(deadline); limit <= 0 {
					return errStopped
				}
			}
			if err := c.wait(unix.POLLOUT, limit); err != nil {
				return err
			}
		case isHangup(err):
			return errHangup
		default:
			return &OpError{"send", err}
		}
	}
	return nil
}

// receive reads what is there without waiting. It returns errHangup when QEMU
// closed its end.
func (c *conn) receive() error {
	for c.n < len(c.in) {
		n, _, err := unix.Recvfrom(c.sock.Int(), c.in[c.n:], unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return nil
		case isHangup(err):
			return errHangup
		case err != nil:
			return &OpError{"receive", err}
		case n == 0:
			return errHangup
		default:
			c.n += n
		}
	}
	return nil
}

// next takes a complete reply to want out of what was received.
func (c *conn) next(want request) (reply, bool, error) {
	r, n, err := parse(c.in[:c.n], want)
	if err != nil {
		return reply{}, false, &OpError{"read reply", err}
	}
	if n == 0 {
		return reply{}, false, nil
	}
	return r, true, nil
}

// consume forgets the reply that next returned.
func (c *conn) consume(r reply) {
	n := headerSize + len(r.payload)
	c.n = copy(c.in[:], c.in[n:c.n])
}

// unexpected reports bytes that came while no reply is due.
func (c *conn) unexpected() error {
	if c.n == 0 {
		return nil
	}
	return &OpError{"read reply", fmt.Errorf("%w: %d bytes while no reply is due", ErrProtocol, c.n)}
}

func isHangup(err error) bool {
	return errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.ENOTCONN)
}
