package vhostuser

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// commitTimeout bounds the wait for the memory change that follows a SHMEM_MAP:
// far longer than QEMU needs, and short enough for a guest to live with.
const commitTimeout = 2 * time.Second

// commit waits for the memory change that makes a mapping real. QEMU 11.1 answers
// SHMEM_MAP first and changes the guest's memory afterwards; what a guest writes
// in between is lost. The last part of the change is a message to us: a memory
// region with a descriptor of the mapped file.
type commit struct{ done chan struct{} } // holds one

// fileID tells files apart, whatever descriptor they came by.
type fileID struct{ dev, ino uint64 }

func idOf(fd *dmabuf.FD) (id fileID, ok bool) {
	var st unix.Stat_t
	if err := unix.Fstat(fd.Int(), &st); err != nil {
		return id, false
	}
	return fileID{uint64(st.Dev), st.Ino}, true
}

func (c *commit) finish() {
	if c == nil {
		return
	}
	select {
	case c.done <- struct{}{}:
	default:
	}
}

// expectCommit makes the commit that the mapping of fd ends with; nil where there
// will be none to see. Called with mu, before the request goes out.
func (c *Channel) expectCommit(m *MMap, fd *dmabuf.FD) *commit {
	c.commit = nil
	id, ok := idOf(fd)
	if !ok {
		return nil
	}
	c.ours[m.Offset] = id
	if c.proto&ProtoReplyAck != 0 {
		c.commit = &commit{done: make(chan struct{}, 1)}
	}
	return c.commit
}

// owns hears of a memory region that the front-end adds, and reports whether it is
// a mapping of ours. If so the change that it belongs to is being made: the
// front-end waits for our answer to this message at the end of it.
func (c *Channel) owns(fd *dmabuf.FD) bool {
	id, ok := idOf(fd)
	if c == nil || !ok {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.ours {
		if o == id {
			c.commit.finish()
			return true
		}
	}
	return false
}

// wait waits until the memory change is made. A front-end that stops the device
// or goes away has made it or never will.
func (c *commit) wait() {
	if c == nil {
		return
	}
	t := time.NewTimer(commitTimeout)
	defer t.Stop()
	select {
	case <-c.done:
	case <-t.C:
	}
}
