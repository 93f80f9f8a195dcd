package dmabuf

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// MaxPlanes is the most memory planes a buffer can have (drm_fourcc.h, the
// linux-dmabuf protocol and EGL agree on four).
const MaxPlanes = 4

// MaxDimension is the largest width or height accepted, in pixels.
const MaxDimension = 16384

// Kind says how a buffer's memory can be handed to another process.
type Kind uint8

// The kinds of buffer.
const (
	KindDMABuf Kind = iota + 1 // every plane's fd is a dma-buf
	KindShm                    // one plane in a sealed memfd, fit for a wl_shm pool
)

func (k Kind) String() string {
	switch k {
	case KindDMABuf:
		return "dmabuf"
	case KindShm:
		return "shm"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Plane is one memory plane of a buffer.
type Plane struct {
	FD     *FD    // owned by the buffer; planes never share one FD
	Offset uint32 // bytes from the start of the fd
	Stride uint32 // bytes from one row to the next
}

// Desc describes a buffer to New.
type Desc struct {
	Kind     Kind
	Width    uint32 // pixels
	Height   uint32 // pixels
	Fourcc   Fourcc
	Modifier Modifier
	Planes   []Plane // 1 to MaxPlanes; New takes ownership of their fds
	YInvert  bool    // the first row in memory is the bottom row of the picture
	Origin   string  // who made it: "virgl", "gbm", "memfd", "udmabuf"

	// Mem is the CPU mapping of plane 0 from offset 0 of its fd, if the maker
	// has one. It must stay valid until Free runs.
	Mem []byte
	// Free, if set, runs once after the last Release, after the fds are closed,
	// on whichever goroutine released last.
	Free func()
}

var lastBufferID atomic.Uint64

// Buffer is a picture in memory that other processes can be given. Its
// description never changes after New, so it may be read from any goroutine.
//
// Two counts keep it alive and whole. References ([Buffer.Retain],
// [Buffer.Release]) keep memory and fds: the guest's resource, a sink's import
// and a pending fence each hold one. Reads ([Buffer.BeginRead],
// [Buffer.EndRead]) say that somebody, usually a compositor, may be looking at
// the pixels just now; a maker that redraws buffers waits until Reading is
// false.
type Buffer struct {
	Desc
	// ID is unique in this process and never used again: the key for a sink's
	// table of imports.
	ID uint64

	refs  atomic.Int32
	reads atomic.Int32

	mu     sync.Mutex
	onIdle func(*Buffer) // guarded by mu
}

// New makes a buffer with one reference, held by the caller. On error the
// planes' fds are closed too: ownership passes either way.
func New(d Desc) (*Buffer, error) {
	if err := d.check(); err != nil {
		closePlanes(d.Planes)
		return nil, &OpError{Op: "new buffer", Object: d.Origin, Err: err}
	}
	b := &Buffer{Desc: d, ID: lastBufferID.Add(1)}
	b.refs.Store(1)
	return b, nil
}

func (d *Desc) check() error {
	if d.Kind != KindDMABuf && d.Kind != KindShm {
		return fmt.Errorf("%w: %v", ErrInvalid, d.Kind)
	}
	if d.Width == 0 || d.Height == 0 || d.Width > MaxDimension || d.Height > MaxDimension {
		return fmt.Errorf("%w: size %dx%d, limit %dx%d", ErrInvalid, d.Width, d.Height, MaxDimension, MaxDimension)
	}
	if len(d.Planes) == 0 || len(d.Planes) > MaxPlanes {
		return fmt.Errorf("%w: %d planes, limit %d", ErrInvalid, len(d.Planes), MaxPlanes)
	}
	if d.Kind == KindShm && len(d.Planes) != 1 {
		return fmt.Errorf("%w: shared memory with %d planes, limit 1", ErrInvalid, len(d.Planes))
	}
	for i, p := range d.Planes {
		if !p.FD.Valid() {
			return fmt.Errorf("%w: plane %d has no descriptor", ErrInvalid, i)
		}
		if p.Stride == 0 {
			return fmt.Errorf("%w: plane %d has stride 0", ErrInvalid, i)
		}
	}
	return nil
}

func closePlanes(planes []Plane) {
	for _, p := range planes {
		_ = p.FD.Close()
	}
}

// Retain adds a reference and returns b.
func (b *Buffer) Retain() *Buffer {
	if b.refs.Add(1) <= 1 {
		b.refs.Add(-1)
		panic("dmabuf: Retain of a freed buffer")
	}
	return b
}

// Release drops a reference; the last one closes the fds and runs Free.
// Release on nil does nothing.
func (b *Buffer) Release() {
	if b == nil {
		return
	}
	n := b.refs.Add(-1)
	if n > 0 {
		return
	}
	if n < 0 {
		b.refs.Add(1)
		panic("dmabuf: Release of a freed buffer")
	}
	closePlanes(b.Planes)
	if b.Free != nil {
		b.Free()
	}
}

// References returns the number of references, for status reports.
func (b *Buffer) References() int { return int(b.refs.Load()) }

// BeginRead says that the pixels may be looked at from now on. It also retains.
func (b *Buffer) BeginRead() {
	b.Retain()
	b.reads.Add(1)
}

// EndRead ends one BeginRead. When it was the last, the function set by OnIdle
// runs on this goroutine.
func (b *Buffer) EndRead() {
	n := b.reads.Add(-1)
	if n < 0 {
		panic("dmabuf: EndRead without BeginRead")
	}
	if n == 0 {
		b.mu.Lock()
		f := b.onIdle
		b.mu.Unlock()
		if f != nil {
			f(b)
		}
	}
	b.Release()
}

// Reading reports whether anybody is between BeginRead and EndRead.
func (b *Buffer) Reading() bool { return b.reads.Load() > 0 }

// OnIdle sets the function that runs when the last reader is gone. It must not
// block: it runs on a sink's goroutine.
func (b *Buffer) OnIdle(f func(*Buffer)) {
	b.mu.Lock()
	b.onIdle = f
	b.mu.Unlock()
}

// Size returns the bytes that plane i spans, without its offset.
func (b *Buffer) Size(i int) uint64 {
	rows := uint64(b.Height)
	if b.Fourcc == NV12 && i == 1 { // colour is halved both ways
		rows = (rows + 1) / 2
	}
	return uint64(b.Planes[i].Stride) * rows
}

func (b *Buffer) String() string {
	return fmt.Sprintf("%s buffer %d %dx%d %v %v (%s)", b.Kind, b.ID, b.Width, b.Height, b.Fourcc, b.Modifier, b.Origin)
}
