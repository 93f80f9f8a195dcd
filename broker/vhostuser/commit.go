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
type commit struct {
	file fileID
	done chan struct{} // holds one
}

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
func (c *Channel) expectCommit(fd *dmabuf.FD) *commit {
	c.commit = nil
	if id, ok := idOf(fd); ok && c.proto&ProtoReplyAck != 0 {
		c.commit = &commit{file: id, done: make(chan struct{}, 1)}
	}
	return c.commit
}

// memoryAdded hears of a memory region of the front-end.
func (c *Channel) memoryAdded(id fileID) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.commit != nil && c.commit.file == id {
		c.commit.finish()
	}
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
