package shm

import (
	"image"

	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/drm"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// maxUpdate is the most bytes of pixels that are handed out at a time: about what fits
// into one frame of the link.
const maxUpdate = 248 << 10

// Buffer is a wl_buffer in shared memory. Copy and Close are for one goroutine at a time.
type Buffer struct {
	Geometry
	Tier   Tier
	InPage uint64 // TierImport: bytes into the resource where the memory begins

	pool   *Pool
	handle *drm.Handle // of the import or the blob
	mem    []byte      // the blob, mapped
	pack   []byte
	totals *Totals
}

// Resource returns the resource id that the host knows; 0 for TierStream.
func (b *Buffer) Resource() uint32 {
	if b.handle == nil {
		return 0
	}
	return b.handle.Resource()
}

// Close lets go of the memory.
func (b *Buffer) Close() {
	if b.mem != nil {
		_ = dmabuf.Unmap(b.mem)
		b.totals.unblob(int64(len(b.mem)))
		b.mem = nil
	}
	if b.handle != nil {
		b.handle.Close()
		b.handle = nil
	}
	if b.pool != nil {
		b.pool.Release()
		b.pool = nil
	}
}

// Bounds returns the whole of the buffer, in pixels.
func (b *Buffer) Bounds() image.Rectangle { return image.Rect(0, 0, int(b.Width), int(b.Height)) }

// Copy brings rectangles of pixels to where the host reads them. For TierStream it
// calls send with packed rows, which send must not keep. It returns the bytes copied.
// ErrUnreadable says that the client cut its pool; what had been copied stays.
func (b *Buffer) Copy(rects []image.Rectangle, send func(image.Rectangle, []byte) error) (uint64, error) {
	if b.Tier == TierImport {
		return 0, nil
	}
	var total uint64
	for _, r := range rects {
		r = r.Intersect(b.Bounds())
		if r.Empty() {
			continue
		}
		n, err := uint64(0), error(nil)
		if b.Tier == TierBlob {
			n, err = b.copyRows(r)
		} else {
			n, err = b.sendRows(r, send)
		}
		total += n
		b.totals.Bytes[b.Tier].Add(n)
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

func (b *Buffer) bpp() int { return int(b.Format.BytesPerPixel()) }

// at returns the offset of a pixel from the buffer's start.
func (b *Buffer) at(x, y int) int { return y*int(b.Stride) + x*b.bpp() }

// copyRows copies a rectangle to the same place of the mapped blob. Nearly whole rows
// go in one piece.
func (b *Buffer) copyRows(r image.Rectangle) (uint64, error) {
	row := r.Dx() * b.bpp()
	if r.Dy() == 1 || row*4 >= int(b.Stride)*3 {
		from, to := b.at(r.Min.X, r.Min.Y), b.at(r.Min.X, r.Max.Y-1)+row
		return uint64(to - from), b.pool.read(b.mem[from:to], int64(b.Offset)+int64(from))
	}
	var n uint64
	for y := r.Min.Y; y < r.Max.Y; y++ {
		from := b.at(r.Min.X, y)
		if err := b.pool.read(b.mem[from:from+row], int64(b.Offset)+int64(from)); err != nil {
			return n, err
		}
		n += uint64(row)
	}
	return n, nil
}

// sendRows hands a rectangle out in bands of packed rows.
func (b *Buffer) sendRows(r image.Rectangle, send func(image.Rectangle, []byte) error) (uint64, error) {
	row := r.Dx() * b.bpp()
	// A row is at most 2 GiB wide by the rules, so wide ones are cut into columns, too.
	if row > maxUpdate {
		half := r
		half.Max.X = r.Min.X + r.Dx()/2
		r.Min.X = half.Max.X
		n, err := b.sendRows(half, send)
		if err != nil {
			return n, err
		}
		m, err := b.sendRows(r, send)
		return n + m, err
	}
	band := max(1, maxUpdate/row)
	var total uint64
	for y := r.Min.Y; y < r.Max.Y; y += band {
		part := image.Rect(r.Min.X, y, r.Max.X, min(y+band, r.Max.Y))
		size := row * part.Dy()
		if cap(b.pack) < size {
			b.pack = make([]byte, size)
		}
		pixels := b.pack[:size]
		if row == int(b.Stride) {
			if err := b.pool.read(pixels, int64(b.Offset)+int64(b.at(part.Min.X, y))); err != nil {
				return total, err
			}
		} else {
			for i := range part.Dy() {
				if err := b.pool.read(pixels[i*row:(i+1)*row], int64(b.Offset)+int64(b.at(part.Min.X, y+i))); err != nil {
					return total, err
				}
			}
		}
		if err := send(part, pixels); err != nil {
			return total, err
		}
		total += uint64(size)
	}
	return total, nil
}
