package shm

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// Pool is a client's wl_shm_pool: memory that the client may write, and may cut,
// while it is read here. It is read with pread(2) and never mapped, so that a file
// that was cut is an error and not a fault. It lives until its last buffer is gone.
type Pool struct {
	fd   *dmabuf.FD
	size int64
	refs atomic.Int32
}

// NewPool takes ownership of fd, which the client says has size bytes. The caller
// has one reference to the pool.
func NewPool(fd *dmabuf.FD, size int32) (*Pool, error) {
	p := &Pool{fd: fd}
	p.refs.Store(1)
	err := p.Resize(size)
	if err == nil {
		// A pipe or a socket would give what it gives once.
		_, err = unix.Pread(fd.Int(), make([]byte, 1), 0)
		if err != nil {
			err = &OpError{Op: "create pool", Err: fmt.Errorf("%w: not readable memory: %w", ErrInvalid, err)}
		}
	}
	if err != nil {
		_ = fd.Close()
		return nil, err
	}
	return p, nil
}

// Resize notes that the client has made the pool larger.
func (p *Pool) Resize(size int32) error {
	if size <= 0 || int64(size) < p.size {
		return &OpError{Op: "resize pool", Err: fmt.Errorf("%w: size %d bytes, want at least %d", ErrInvalid, size, max(p.size, 1))}
	}
	p.size = int64(size)
	return nil
}

// Release drops a reference.
func (p *Pool) Release() {
	if p.refs.Add(-1) == 0 {
		_ = p.fd.Close()
	}
}

func (p *Pool) retain() { p.refs.Add(1) }

// read fills b with what stands at offset.
func (p *Pool) read(b []byte, offset int64) error {
	for len(b) > 0 {
		n, err := unix.Pread(p.fd.Int(), b, offset)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return &OpError{Op: "read", Object: p.fd.Name(), Err: err}
		case n == 0:
			return &OpError{Op: "read", Object: p.fd.Name(), Err: fmt.Errorf("%w: the file ends at %d", ErrUnreadable, offset)}
		}
		b, offset = b[n:], offset+int64(n)
	}
	return nil
}

// Geometry is what wl_shm_pool.create_buffer says of a buffer.
type Geometry struct {
	Offset, Width, Height, Stride int32 // bytes, pixels, pixels, bytes
	Format                        dmabuf.Fourcc
}

// bytes returns the size of the buffer's memory.
func (g Geometry) bytes() int64 { return int64(g.Stride) * int64(g.Height) }

// check applies the rules of wl_shm.
func (g Geometry) check(p *Pool) error {
	bad := func(format string, args ...any) error {
		return &OpError{Op: "create buffer", Err: fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)}
	}
	bpp := int64(g.Format.BytesPerPixel())
	switch {
	case bpp == 0:
		return bad("format %v is not known", g.Format)
	case g.Format == dmabuf.NV12:
		return bad("format %v has several planes", g.Format)
	case g.Width <= 0 || g.Height <= 0 || g.Offset < 0:
		return bad("%dx%d pixels at offset %d", g.Width, g.Height, g.Offset)
	case int64(g.Stride) < int64(g.Width)*bpp:
		return bad("stride %d bytes, want at least %d for %d pixels", g.Stride, int64(g.Width)*bpp, g.Width)
	case g.bytes() > math.MaxInt32 || int64(g.Offset)+g.bytes() > p.size:
		return bad("%d bytes at offset %d do not fit into the pool's %d", g.bytes(), g.Offset, p.size)
	}
	return nil
}

// Fourcc turns a wl_shm.format into a DRM format: they are the same but for two.
func Fourcc(format uint32) dmabuf.Fourcc {
	switch format {
	case 0:
		return dmabuf.ARGB8888
	case 1:
		return dmabuf.XRGB8888
	}
	return dmabuf.Fourcc(format)
}
