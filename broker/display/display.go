// Package display is the contract between the broker's device and whoever shows
// its scanouts: a Wayland compositor, QEMU's own display, or nobody.
//
// Frames flow one way, from the render thread into a [Sink]. A sink never makes
// the render thread wait; what it wants to tell the broker it says through
// [Events], from any goroutine.
package display

import (
	"errors"
	"sync/atomic"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// MaxHeads is VIRTIO_GPU_MAX_SCANOUTS (virtio spec 5.7.5).
const MaxHeads = 16

// ErrClosed is returned by a sink that was closed.
var ErrClosed = errors.New("display closed")

// Rect is a rectangle in pixels; W or H 0 means empty.
type Rect struct{ X, Y, W, H uint32 }

// Empty reports whether r covers no pixel.
func (r Rect) Empty() bool { return r.W == 0 || r.H == 0 }

// Union returns the smallest rectangle that covers both.
func (r Rect) Union(o Rect) Rect {
	if r.Empty() {
		return o
	}
	if o.Empty() {
		return r
	}
	x0, y0 := min(r.X, o.X), min(r.Y, o.Y)
	x1, y1 := max(r.X+r.W, o.X+o.W), max(r.Y+r.H, o.Y+o.H)
	return Rect{x0, y0, x1 - x0, y1 - y0}
}

// Intersect returns what both cover.
func (r Rect) Intersect(o Rect) Rect {
	x0, y0 := max(r.X, o.X), max(r.Y, o.Y)
	x1, y1 := min(r.X+r.W, o.X+o.W), min(r.Y+r.H, o.Y+o.H)
	if x1 <= x0 || y1 <= y0 {
		return Rect{}
	}
	return Rect{x0, y0, x1 - x0, y1 - y0}
}

// Frame is a picture for one head: a buffer whose content changed.
type Frame struct {
	Head   int
	Buffer *dmabuf.Buffer
	// Source is the part of the buffer that the head shows, in buffer pixels
	// with y=0 at the top row of the picture (whatever Buffer.YInvert says).
	Source Rect
	// Damage is what changed since the last Present of this head, in the same
	// coordinates as Source. The first frame of a buffer is damaged whole.
	Damage Rect
	// Opaque says to ignore the alpha of the format (every guest scanout).
	Opaque bool
	// Serial counts the head's frames; see Events.Shown.
	Serial uint64
	// FlushedAt is when the RESOURCE_FLUSH was decoded, in nanoseconds of
	// CLOCK_MONOTONIC, for the flush-to-commit latency.
	FlushedAt int64
}

// Cursor is a pointer image for one head.
type Cursor struct {
	Head       int
	X, Y       int32  // where the picture's top left pixel is in the scanout; may lie outside
	HotX, HotY uint32 // the pixel that points, for displays that move a pointer of their own
	W, H       uint32 // pixels; 0 hides the cursor
	Pixels     []byte // ARGB8888 premultiplied, W*H*4 bytes; the sink copies what it keeps
}

// Mode is what a head should look like to the guest.
type Mode struct {
	Enabled           bool
	W, H              uint32 // pixels
	MilliHz           uint32 // refresh rate, 0 = 60000
	WidthMM, HeightMM uint32 // physical size, 0 = unknown
}

// Sink shows frames. Present, Disable, ShowCursor, MoveCursor and Drop are
// called on the render thread and must return at once.
type Sink interface {
	// Name is "wayland", "qemu" or "headless".
	Name() string
	// Accepts reports whether a dma-buf of this format can be shown without a
	// copy just now. The answer may change; see Events.Refresh.
	Accepts(f dmabuf.Fourcc, m dmabuf.Modifier) bool
	// Present shows a frame. The sink calls BeginRead on the buffer before it
	// returns and EndRead when the picture was superseded and released. Of
	// frames that come faster than the display takes them, the newest wins and
	// the damages add up.
	Present(f *Frame)
	// Disable blanks the head.
	Disable(head int)
	// ShowCursor sets the cursor's picture and position; MoveCursor only moves it.
	ShowCursor(c *Cursor)
	MoveCursor(head int, x, y int32)
	// Drop says that the buffer will not be presented again: forget imports
	// of it as soon as the display lets go of it.
	Drop(b *dmabuf.Buffer)
	// Mode returns the mode that the display wants for the head.
	Mode(head int) Mode
	// EDID returns the display's own EDID for the head, or nil: the broker
	// makes one.
	EDID(head int) []byte
	// Stats returns the sink's counters; they may be read at any time.
	Stats() *Stats
	// Close lets go of every buffer and waits for the sink's goroutines.
	Close() error
}

// Events is what a sink tells the broker. Methods may be called on any
// goroutine and do not block.
type Events interface {
	// ModeChanged says that Mode(head) has a new answer.
	ModeChanged(head int)
	// Shown says that the display has taken the head's frame of this serial, and with
	// it all before, and would take the next one now (a Wayland frame callback).
	// Sinks that do not know say nothing; the broker does not wait long for it.
	Shown(head int, serial uint64)
	// Closed says that the user closed the head's window.
	Closed(head int)
	// Refresh asks for every enabled head to be presented again, whole: the
	// compositor came back, or its formats changed, or an import failed.
	Refresh()
}

// Pacer is a [Sink] that reports through Events.Shown when its display has taken a
// frame. A fenced RESOURCE_FLUSH completes then, so that the guest draws in step.
type Pacer interface {
	// Paces reports whether the head's frames will be reported. Called on the render
	// thread.
	Paces(head int) bool
}

// Stats are a sink's counters.
type Stats struct {
	FramesDMABuf  atomic.Uint64 // frames handed over as a dma-buf
	FramesShm     atomic.Uint64 // frames handed over as shared memory
	FramesSkipped atomic.Uint64 // superseded before the display took them
	BytesCopied   atomic.Uint64 // pixel bytes that the sink itself copied (sockets without shared memory)
	Imports       atomic.Uint64 // buffers imported into the display
	ImportsLive   atomic.Int64  // imports that exist now
	Reconnects    atomic.Uint64
	Latency       Histogram // RESOURCE_FLUSH decoded to commit sent
}
