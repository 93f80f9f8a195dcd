package vtest

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

const (
	// turn is how many messages of a client are served before others get theirs.
	turn = 64
	// readSize is how much is read at a time, in bytes, about what a unix socket holds.
	readSize = 256 << 10
	// keepBuffer is the largest buffer that a client keeps between large messages, in bytes.
	keepBuffer = 1 << 20
	// maxLarge limits what the buffers of all clients have beyond that, in bytes.
	maxLarge = 512 << 20
)

// conn moves a client's bytes. Render thread only.
type conn struct {
	srv    *Server
	id     uint64
	fd     *dmabuf.FD
	client *client
	since  time.Time

	in      []byte // what came and was not served yet is in[at:]
	at      int
	out     []parcel
	buf     []byte // of replies
	watched int16  // what the socket is polled for; 0: not at all
	more    bool   // messages may be left in the buffer
	closed  bool
	onTurn  func() // bound once
	large   int    // what its buffers have beyond keepBuffer, as counted
}

// parcel is a piece of output: bytes, or one byte with a descriptor.
type parcel struct {
	data []byte
	fd   *dmabuf.FD
}

var zero [1]byte

// room is the reply before, once it was sent.
func (c *conn) room() []byte {
	if c.pending() {
		return nil
	}
	return c.buf[:0]
}

func (c *conn) reply(b []byte) {
	if !c.pending() && cap(b) <= keepBuffer {
		c.buf = b
	}
	c.out = append(c.out, parcel{data: b})
}

func (c *conn) replyFD(fd *dmabuf.FD) { c.out = append(c.out, parcel{data: zero[:], fd: fd}) }

// start begins to serve.
func (c *conn) start() {
	c.in = make([]byte, 0, readSize)
	c.client = newClient(c.srv.cfg.GPU, c, c.resume)
	c.onTurn = func() { c.serve(false) }
	c.poll()
}

// resume goes on when what the client waited for is there: at once, or when the client
// that is being served had its turn.
func (c *conn) resume() {
	if c.srv.serving {
		c.srv.cfg.Loop.Post(c.onTurn)
		return
	}
	c.serve(false)
}

// serve is the watch of the socket.
func (c *conn) serve(ready bool) {
	if c.closed || !ready && !c.more && !c.pending() {
		return
	}
	c.srv.serving = true
	err := c.flush()
	if err == nil && ready && !c.blocked() {
		if err = c.read(); err == nil {
			err = c.count()
		}
	}
	for n := 0; err == nil && !c.blocked(); n++ {
		var used int
		c.align()
		used, err = c.client.feed(c.in[c.at:], 1)
		c.at += used
		if ferr := c.flush(); err == nil {
			err = ferr
		}
		if c.pending() && err == nil {
			err = c.count()
		}
		if c.more = used > 0; !c.more {
			break
		}
		if n == turn {
			c.srv.cfg.Loop.Again()
			break
		}
	}
	c.srv.serving = false
	if err != nil {
		c.end(err)
		return
	}
	c.tidy()
	c.poll()
}

// count counts large buffers, and says when all clients together have too many.
func (c *conn) count() error {
	n := cap(c.in)
	for i := range c.out {
		n += len(c.out[i].data)
	}
	n = max(n-keepBuffer, 0)
	all := c.srv.large - c.large + n
	if n > c.large && all > maxLarge {
		return fmt.Errorf("buffers of all clients of %d bytes: %w %d", all, ErrLimit, maxLarge)
	}
	c.srv.large, c.large = all, n
	return nil
}

// pending reports whether a reply waits to be sent.
func (c *conn) pending() bool { return len(c.out) > 0 }

// blocked reports whether the client must be left alone until something happens.
func (c *conn) blocked() bool { return c.pending() || c.client.waiting }

// poll says what the socket is polled for.
func (c *conn) poll() {
	want := int16(unix.POLLIN)
	switch {
	case c.pending():
		want = unix.POLLOUT
	case c.client.waiting:
		want = 0 // also not for the other end's leaving, which poll would report for ever
	}
	if want == c.watched {
		return
	}
	loop := c.srv.cfg.Loop
	switch {
	case want == 0:
		loop.Unwatch(c.fd.Int())
	case c.watched == 0:
		loop.Watch(c.fd.Int(), c.serve)
	}
	if want != 0 {
		loop.WatchFor(c.fd.Int(), want)
	}
	c.watched = want
}

// align moves what is left to the buffer's start if it begins where the renderer cannot
// read words.
func (c *conn) align() {
	if c.at%4 != 0 {
		c.compact()
	}
}

func (c *conn) compact() {
	n := copy(c.in, c.in[c.at:])
	c.in, c.at = c.in[:n], 0
}

// read takes what is there, up to what one message can have.
func (c *conn) read() error {
	if c.at == len(c.in) {
		c.in, c.at = c.in[:0], 0
	}
	if cap(c.in)-len(c.in) < readSize/2 {
		if c.at > 0 {
			c.compact()
		}
		if cap(c.in)-len(c.in) < readSize/2 { // the message at its start is not complete
			bigger := make([]byte, len(c.in), 2*cap(c.in))
			copy(bigger, c.in)
			c.in = bigger
		}
	}
	n, err := unix.Read(c.fd.Int(), c.in[len(c.in):cap(c.in)])
	switch {
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return fmt.Errorf("read: %w", err)
	case n == 0:
		if c.at < len(c.in) {
			return fmt.Errorf("%w inside a message", io.ErrUnexpectedEOF)
		}
		return io.EOF
	}
	c.in = c.in[:len(c.in)+n]
	return nil
}

// tidy gives large buffers back.
func (c *conn) tidy() {
	if c.at == len(c.in) && cap(c.in) > keepBuffer {
		c.in, c.at = make([]byte, 0, readSize), 0
	}
	if c.large > 0 {
		_ = c.count() // it became less
	}
}

// flush sends what the socket takes.
func (c *conn) flush() error {
	for len(c.out) > 0 {
		p := &c.out[0]
		var oob []byte
		if p.fd != nil {
			oob = unix.UnixRights(p.fd.Int())
		}
		n, err := unix.SendmsgN(c.fd.Int(), p.data, oob, nil, unix.MSG_NOSIGNAL)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil:
			return fmt.Errorf("send: %w", err)
		}
		if p.data = p.data[n:]; len(p.data) > 0 {
			continue
		}
		_ = p.fd.Close()
		c.out = slices.Delete(c.out, 0, 1)
	}
	return nil
}

// end closes the connection and gives back what the client had.
func (c *conn) end(err error) {
	if c.closed {
		return
	}
	c.closed = true
	if c.watched != 0 {
		c.srv.cfg.Loop.Unwatch(c.fd.Int())
	}
	c.client.close()
	for _, p := range c.out {
		_ = p.fd.Close()
	}
	c.out, c.in = nil, nil
	c.srv.large -= c.large
	_ = c.fd.Close()
	c.srv.gone(c, err)
}

// leftQuietly reports whether an error is only that a client left.
func leftQuietly(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) || errors.Is(err, errStopped)
}

func (c *conn) fields() []zap.Field {
	return []zap.Field{zap.Uint64("client", c.id), zap.String("name", c.client.name), zap.Uint32("version", c.client.version),
		zap.Uint64("messages", c.client.messages), zap.Uint64("submits", c.client.submits)}
}
