package crossdomain

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// send is SEND: whole or not at all.
func (c *Context) send(p []byte) error {
	if c.typ == ChannelNone {
		return refused("the context has no channel")
	}
	c.mu.Lock()
	known, failed := c.slots, c.failed
	c.mu.Unlock()
	if failed != nil {
		return failed
	}
	m, err := decodeSend(p, known)
	if err != nil {
		return err
	}
	if m.slots != known {
		c.mu.Lock()
		c.slots = m.slots
		c.mu.Unlock()
	}
	if err := c.in.check(len(m.data)); err != nil {
		if errors.Is(err, ErrFlood) {
			err = fmt.Errorf("%w: nobody reads, limits %d bytes and %d messages", err, hardBytes, hardMessages)
			c.refuseMore(&OpError{c.cfg.ID, CmdSend, err})
		}
		return err
	}
	if len(m.ids) == 0 && len(m.data) == 0 {
		return nil
	}
	items, err := c.items(m.ids)
	if err != nil {
		return err
	}
	c.in.push(sent{data: slices.Clone(m.data), items: items})
	return nil
}

// items turns identifiers into what they stand for; all or none.
func (c *Context) items(ids []id) (items []proxy.Item, err error) {
	var pipes []*readPipe
	defer func() {
		if err == nil {
			for _, r := range pipes {
				c.goRun(r.pump)
			}
			return
		}
		for i := range items {
			items[i].Close()
		}
		for _, r := range pipes {
			r.forget()
		}
	}()
	for i, x := range ids {
		if c.typ == ChannelStream {
			return items, refused("identifier %d: a stream has only bytes", i)
		}
		switch x.typ {
		case IDBlob:
			// Those that are pinned for a SEND that fails are let go with the context,
			// or when too many are.
			if err := c.dev.Pin(x.id); err != nil {
				return items, refused("identifier %d: %w", i, err)
			}
			items = append(items, proxy.Item{Kind: proxy.ItemResource, Device: proxy.DeviceGPU, Resource: x.id})
		case IDReadPipe:
			r, fd, err := c.newReadPipe(x.id)
			if err != nil {
				return items, fmt.Errorf("identifier %d: %w", i, err)
			}
			pipes = append(pipes, r)
			items = append(items, proxy.Item{Kind: proxy.ItemPipe, FD: fd})
		default:
			return items, refused("identifier %d has type %d, want %d (blob) or %d (read pipe)", i, x.typ, IDBlob, IDReadPipe)
		}
	}
	return items, nil
}

// newReadPipe makes a pipe that the guest reads from; the result is its write end.
// The guest has chosen its number.
func (c *Context) newReadPipe(id uint32) (*readPipe, *dmabuf.FD, error) {
	if id < firstReadPipe {
		return nil, nil, refused("read pipe %#x, want a number from %#x on", id, uint32(firstReadPipe))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, used := c.reads[id]; used {
		return nil, nil, refused("read pipe %#x is open", id)
	}
	if len(c.reads) >= maxPipes {
		return nil, nil, refused("%d pipes are open, which is the limit", maxPipes)
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, refused("pipe: %w", err)
	}
	r := &readPipe{c: c, id: id, file: pipeFile(dmabuf.NewFD(p[0], "pipe for a guest"))}
	c.reads[id] = struct{}{}
	return r, dmabuf.NewFD(p[1], "pipe to a guest"), nil
}

// write is WRITE.
func (c *Context) write(p []byte) error {
	m, err := decodeWrite(p)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.writes[m.id]
	if w == nil {
		return refused("identifier %d is no pipe that the guest writes to", m.id)
	}
	if c.piped+len(m.data) > hardPipeBytes {
		delete(c.writes, m.id)
		w.abandon()
		return fmt.Errorf("%w: nobody reads the pipe, limit %d bytes", ErrFlood, hardPipeBytes)
	}
	w.push(slices.Clone(m.data), m.hangUp)
	if m.hangUp {
		delete(c.writes, m.id)
	}
	return nil
}
