package wayland

import (
	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// bufferDamage turns damage in picture coordinates (y 0 is the top row) into
// wl_surface.damage_buffer coordinates (y 0 is the first row in memory) of a
// wl_buffer that covers the part base of the picture. The result is empty if the
// damage lies outside src or base.
func bufferDamage(damage, src, base display.Rect, yInvert bool) display.Rect {
	d := damage.Intersect(src).Intersect(base)
	if d.Empty() {
		return display.Rect{}
	}
	d.X -= base.X
	d.Y -= base.Y
	if yInvert {
		d.Y = base.H - d.Y - d.H
	}
	return d
}

// cropOffset returns where in the memory of a one-plane buffer the part crop of
// the picture starts, in bytes from the start of the fd.
func cropOffset(b *dmabuf.Buffer, crop display.Rect) uint64 {
	row := crop.Y
	if b.YInvert {
		row = b.Height - crop.Y - crop.H
	}
	p := b.Planes[0]
	return uint64(p.Offset) + uint64(row)*uint64(p.Stride) + uint64(crop.X)*uint64(b.Fourcc.BytesPerPixel())
}

// whole returns the rectangle of all of b.
func whole(b *dmabuf.Buffer) display.Rect { return display.Rect{W: b.Width, H: b.Height} }

// clip is the visible part of a cursor: where it goes in the window, and which
// part of the picture that is.
type clip struct {
	x, y int32
	src  display.Rect // empty if nothing is visible
}

// clipCursor places a w x h picture at x, y in a window of winW x winH pixels.
func clipCursor(x, y int32, w, h, winW, winH uint32) clip {
	x0, w0, left := clipSpan(int64(x), int64(w), int64(winW))
	y0, h0, top := clipSpan(int64(y), int64(h), int64(winH))
	if w0 <= 0 || h0 <= 0 {
		return clip{}
	}
	return clip{int32(x0), int32(y0), display.Rect{X: uint32(left), Y: uint32(top), W: uint32(w0), H: uint32(h0)}}
}

// clipSpan cuts [at, at+size) to [0, limit); skip is what was cut off in front.
func clipSpan(at, size, limit int64) (start, length, skip int64) {
	start = max(at, 0)
	end := min(at+size, limit)
	return start, end - start, start - at
}
