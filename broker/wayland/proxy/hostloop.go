package proxy

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

// serveHost reads the compositor and sends to the guest until either ends.
func (c *client) serveHost() error {
	var polls [3]unix.PollFd
	polls[0] = unix.PollFd{Fd: int32(c.wakeFD.Int()), Events: unix.POLLIN}
	polls[1] = unix.PollFd{Fd: int32(c.stopFD.Int()), Events: unix.POLLIN}
	more := false // complete events are left in the buffer
	for {
		if err := c.sendOutput(); err != nil {
			return err
		}
		if c.ctx.Err() != nil {
			return context.Canceled
		}
		if !more {
			events := int16(unix.POLLIN)
			c.mu.Lock()
			if c.conn.Out.Pending() > 0 {
				events |= unix.POLLOUT
			}
			pending := c.out.Pending() > 0
			c.mu.Unlock()
			if pending {
				continue
			}
			polls[2] = unix.PollFd{Fd: int32(c.conn.FD()), Events: events}
			if _, err := unix.Poll(polls[:], -1); err != nil && !errors.Is(err, unix.EINTR) {
				return &OpError{Op: "poll", Err: err}
			}
		}
		var err error
		if more, err = c.turn(&polls, more); err != nil {
			return err
		}
	}
}

// turn does what poll found; more says that events are left to handle.
func (c *client) turn(polls *[3]unix.PollFd, more bool) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if polls[0].Revents != 0 {
		var count [8]byte
		_, _ = unix.Read(c.wakeFD.Int(), count[:])
		c.awake = false
	}
	if polls[2].Revents&unix.POLLOUT != 0 {
		// A broken pipe shows when reading, after the compositor's last words.
		if err := c.conn.Flush(); err != nil && !errors.Is(err, wire.ErrClosed) {
			return false, err
		}
	}
	if !more && polls[2].Revents&^unix.POLLOUT != 0 {
		if _, err := c.conn.Receive(); err != nil {
			if errors.Is(err, wire.ErrClosed) {
				return false, hostFault("it closed the connection")
			}
			return false, err
		}
	}
	polls[2].Revents = 0
	return c.dispatch()
}

// dispatch handles received events; more says that it stopped because the guest has
// to take what there is first. What handlers wrote for the compositor is sent.
func (c *client) dispatch() (more bool, err error) {
	for c.out.Pending() < c.limits.Backlog && len(c.items) < c.limits.Items {
		raw, ok, err := c.conn.Next()
		if err != nil {
			return false, hostFault("%w", err)
		}
		if !ok {
			if c.conn.Out.Pending() > 0 {
				if err := c.conn.Flush(); err != nil && !errors.Is(err, wire.ErrClosed) {
					return false, err
				}
			}
			return false, nil
		}
		if err := c.event(raw); err != nil {
			return false, err
		}
	}
	return true, nil
}

// takeOutput swaps the buffers and returns what waits for the guest.
func (c *client) takeOutput() (Chunk, bool) {
	if c.out.Pending() == 0 {
		return Chunk{}, false
	}
	c.out, c.spare = c.spare, c.out
	chunk := Chunk{Data: c.spare.Unsent(), Items: c.items}
	c.items = nil
	return chunk, true
}

// sendOutput passes on what waits for the guest, which may take its time.
func (c *client) sendOutput() error {
	c.mu.Lock()
	chunk, ok := c.takeOutput()
	if err := c.out.Err(); err != nil {
		c.mu.Unlock()
		return err
	}
	if ok {
		c.changed.Broadcast()
	}
	c.mu.Unlock()
	if !ok {
		return nil
	}
	err := c.guest.Send(c.late, chunk)
	c.mu.Lock()
	c.spare.Reset()
	c.mu.Unlock()
	return err
}
