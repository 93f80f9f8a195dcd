package vhostuser

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// fileID tells files apart, whatever descriptor they came by.
type fileID struct{ dev, ino uint64 }

func idOf(fd *dmabuf.FD) (id fileID, ok bool) {
	var st unix.Stat_t
	if err := unix.Fstat(fd.Int(), &st); err != nil {
		return id, false
	}
	return fileID{uint64(st.Dev), st.Ino}, true
}

// note remembers the file of a mapping. Called with mu.
func (c *Channel) note(m *MMap, fd *dmabuf.FD) {
	if id, ok := idOf(fd); ok {
		c.ours[m.Offset] = id
	}
}

// owns reports whether a memory region of the front-end is a mapping of ours.
func (c *Channel) owns(fd *dmabuf.FD) bool {
	id, ok := idOf(fd)
	if c == nil || !ok {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.ours {
		if o == id {
			return true
		}
	}
	return false
}

// committed waits until the mapping just made is part of the guest's memory. QEMU
// 11.1 answers SHMEM_MAP first and changes the memory afterwards; what a guest
// writes in between is lost. It does so before it looks at the next request, so
// another one is sent and its reply awaited: the one that does least, which makes
// the driver look at its config space.
//
// A device that stops meanwhile has the mapping, or never will; it is no error.
func (c *Channel) committed() error {
	if c.proto&ProtoReplyAck == 0 {
		return nil
	}
	c.mu.Lock()
	if c.closed || !c.open {
		c.mu.Unlock()
		return nil
	}
	err := c.put(BackendConfigChange, FlagNeedReply, nil)
	if err == nil {
		c.change = false // said with it
	}
	c.mu.Unlock()
	if errors.Is(err, ErrStopped) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	// A front-end without a use for the message refuses it, in the same order.
	if err := c.reply(BackendConfigChange); err != nil && !errors.Is(err, ErrRefused) {
		return err
	}
	return nil
}
