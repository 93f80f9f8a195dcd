package vhostuser

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// Half remembers, where the process's death does not reach, that a request is half
// sent on the back-end channel. Its methods are called by one goroutine at a time.
type Half interface {
	SetHalf(on bool)
	IsHalf() bool
}

// A request goes out in two halves, because QEMU 11.1 looks at the channel in its main
// loop, also after a stop, and then crashes on every request that it knows. No lock
// of ours can prevent that a stop begins while a request lies in the socket. So the
// first byte goes alone. Once QEMU has read it, its main loop waits for the rest with
// the big lock held, and no stop can begin before the request is carried out. If a
// stop begins first, the rest makes it a request that QEMU does not know, which costs
// a line in its log.

// unknownRequest is added to a request's number to make it one that nobody knows; the
// first byte on the wire stays.
const unknownRequest = 1 << 8

// patience is how long a front-end may take to read the first byte before it has the
// rest anyway: it may be one that reads nothing less than a whole header.
const patience = 2 * time.Second

// put sends a request. Called with mu, which it gives up while it waits for the
// front-end. It returns ErrStopped if the gate was closed meanwhile.
func (c *Channel) put(kind BackendRequest, flags uint32, payload []byte, fds ...*dmabuf.FD) error {
	c.msg = header{request: uint32(kind), flags: flags | flagVersion, size: uint32(len(payload))}.append(c.msg[:0])
	c.msg = append(c.msg, payload...)
	c.setHalf(kind)
	if err := c.conn.send(c.msg[:1], fds...); err != nil {
		return err
	}
	end := time.Now().Add(patience)
	for pause := 10 * time.Microsecond; c.half != 0 && !c.closed && !c.conn.allRead() && time.Now().Before(end); {
		c.mu.Unlock()
		time.Sleep(pause)
		pause = min(2*pause, time.Millisecond)
		c.mu.Lock()
	}
	if c.half == 0 {
		return fmt.Errorf("%w: as the request was sent", ErrStopped)
	}
	err := c.conn.send(c.msg[1:])
	c.setHalf(0)
	return err
}

// spoil makes the request that is half sent one that does nothing. Called with mu.
func (c *Channel) spoil() {
	if c.half == 0 {
		return
	}
	_ = c.conn.send(header{request: uint32(c.half) + unknownRequest, flags: flagVersion}.append(nil)[1:]) // the reader finds out
	c.setHalf(0)
}

// setHalf says which request is half sent, 0 for none. Called with mu.
func (c *Channel) setHalf(kind BackendRequest) {
	c.half = kind
	if c.keep != nil {
		c.keep.SetHalf(kind != 0)
	}
}

// allRead reports whether the peer has read everything that was sent.
func (c *Conn) allRead() bool {
	raw, err := c.sock.SyscallConn()
	if err != nil {
		return true // closed
	}
	left := 0
	if cerr := raw.Control(func(fd uintptr) { left, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); cerr != nil || err != nil {
		return true
	}
	return left == 0
}
