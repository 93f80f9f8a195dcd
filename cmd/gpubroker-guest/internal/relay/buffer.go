package relay

import (
	"sync"
	"time"

	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/drm"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/shm"
)

// linger is how long the memory of a buffer stays after the client has destroyed it
// while it was shown and then has shown something else: the host learns of both later,
// and it says nothing when it stops reading a buffer that is destroyed.
const linger = 500 * time.Millisecond

// buffer is a wl_buffer: shared memory, or planes of dma-bufs.
type buffer struct {
	shm    *shm.Buffer   // nil for others
	planes []*drm.Handle // empty for others
	dma    bool          // it is made of dma-bufs

	// The copy that the host has: of the client's goroutine.
	lastSurface *surface
	lastSeq     uint64

	mu        sync.Mutex
	held      int  // surfaces that show it
	busy      bool // committed, and the host has not released it
	destroyed bool
	freed     bool
	timer     *time.Timer
	releases  []syncPoint // signalled when the host releases it
	gone      func(*buffer)
}

// hold notes that a surface shows the buffer. nil is no buffer.
func (b *buffer) hold() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held++
	b.busy = true
}

// unhold notes that a surface shows another, or is gone.
func (b *buffer) unhold() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held--
	b.settle()
}

// use notes that the buffer was committed once more, and what to signal then.
func (b *buffer) use(release *syncPoint) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.busy = true
	if release != nil {
		b.releases = append(b.releases, *release)
	}
}

// release notes that the host does not read the buffer any more.
func (b *buffer) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.busy = false
	b.signal()
	b.settle()
}

// destroy notes that the client has destroyed the wl_buffer.
func (b *buffer) destroy() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.destroyed = true
	b.settle()
}

// dead reports whether the client has destroyed it.
func (b *buffer) dead() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.destroyed
}

// settle frees a destroyed buffer now or soon; b.mu is held.
func (b *buffer) settle() {
	switch {
	case !b.destroyed || b.freed || b.timer != nil:
	case !b.busy:
		b.freeLocked()
	case b.held == 0:
		b.timer = time.AfterFunc(linger, b.free)
	}
}

// free lets go of everything. A second call does nothing.
func (b *buffer) free() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.freeLocked()
}

func (b *buffer) freeLocked() {
	if b.freed {
		return
	}
	b.freed = true
	if b.timer != nil {
		b.timer.Stop()
	}
	b.signal()
	if b.shm != nil {
		b.shm.Close()
	}
	closePlanes(b.planes)
	b.planes = nil
	if b.gone != nil {
		b.gone(b)
	}
}

func (b *buffer) signal() {
	for _, p := range b.releases {
		p.signal()
	}
	b.releases = b.releases[:0]
}

func closePlanes(planes []*drm.Handle) {
	for _, h := range planes {
		h.Close()
	}
}
