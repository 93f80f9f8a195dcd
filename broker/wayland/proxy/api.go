// Package proxy is the host end of seamless windows: each Wayland client of a guest
// gets a connection of its own to the host's compositor, and every message between
// the two is decoded by the generated tables, checked, and sent on.
//
// What carries a client (a cross-domain context, a byte stream) is behind [Guest]:
// it brings Wayland bytes and, instead of descriptors, [Item]s that say what the
// descriptor was. What owns the guest's buffers is behind [Resources].
//
// Client ids are translated: the proxy needs objects of its own on the host, and the
// guest's end may keep some for itself. Ids that the compositor makes pass through.
package proxy

import (
	"context"
	"errors"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// ItemKind says what stands for a descriptor between guest and host.
type ItemKind uint8

const (
	// ItemResource is a virtio-gpu resource of the guest: Device, Resource, Offset.
	// Guest to host only.
	ItemResource ItemKind = iota + 1
	// ItemPipe is the write end of a pipe whose read end the transport carries to the
	// other side: FD. Both ways (wl_data_offer.receive, wl_data_source.send).
	ItemPipe
	// ItemBytes is read-only memory by value, for example a keymap: Bytes. A host that
	// sends it has copied it; a guest's end makes a sealed memfd. Both ways.
	ItemBytes
	// ItemMemory is memory of a wl_buffer whose content comes as Updates. Guest to
	// host only, and only with Dialect.BufferItems.
	ItemMemory
)

// DeviceID says which of the VM's devices a resource belongs to.
type DeviceID uint8

const (
	DeviceGPU    DeviceID = 0 // the GPU
	DeviceImport DeviceID = 1 // the device that imports guest memory
)

// Item stands for one descriptor.
type Item struct {
	Kind     ItemKind
	Device   DeviceID
	Resource uint32     // id in Device's table
	Offset   uint64     // bytes into the resource where the memory begins
	FD       *dmabuf.FD // owned by whoever has the item
	Bytes    []byte
}

// Close lets go of what the item owns.
func (it *Item) Close() {
	_ = it.FD.Close()
	it.FD = nil
}

// Update is new content of a wl_buffer that the guest made with ItemMemory: packed
// rows of Rect.W pixels in the buffer's format.
type Update struct {
	Buffer uint32 // the guest's id of the wl_buffer
	Rect   display.Rect
	Pixels []byte
}

// Chunk is a piece of a client's stream: Wayland bytes and the items of the messages
// in them, in order, or one Update. Neither message borders nor items need to fall
// on the borders of chunks, but an item comes no later than the last byte of its
// message.
type Chunk struct {
	Data   []byte
	Items  []Item
	Update *Update
}

// Dialect says how a guest's end speaks.
type Dialect struct {
	// BufferItems: wl_shm.create_pool comes without an item, and each
	// wl_shm_pool.create_buffer with one (ItemResource or ItemMemory), so that memory
	// is shared per buffer. Without it create_pool has an item, as in Wayland.
	BufferItems bool
	// RenderDev is the dev_t of the guest's render node, as its stat(2) says, for
	// zwp_linux_dmabuf_feedback_v1; 0 if it is not known, or the guest's end rewrites
	// the events by itself (then FeedbackRaw).
	RenderDev   uint64
	FeedbackRaw bool
	// ClockOffset is the guest's CLOCK_MONOTONIC minus the host's, in nanoseconds.
	// Without HasClock, protocols that carry times are hidden.
	ClockOffset int64
	HasClock    bool
	Transport   string // "cross-domain", "vsock", "virtio-serial", "unix": for status and logs
	Name        string // what the guest calls the client, for logs; not trusted
}

// Guest carries one client. Recv and Send are each called by one goroutine.
type Guest interface {
	Dialect() Dialect
	// Recv waits for the next chunk; the caller owns its items, and its bytes are valid
	// until the next call. io.EOF is the guest's orderly end.
	Recv(ctx context.Context) (Chunk, error)
	// Send passes a chunk on; it takes the items and does not keep Data. It waits
	// while the guest does not take more.
	Send(ctx context.Context, c Chunk) error
	// Fail tells the guest's end why the connection ends, as far as it can, before
	// Close.
	Fail(err error)
	Close() error
}

// Owner says whose resources a client may name: those attached to the context Ctx,
// or to a context whose debug name is Token (what the guest's end called itself
// before it opened its render node). Resources of DeviceImport have no contexts: the
// first owner that names one keeps it until it is gone.
type Owner struct {
	Ctx   uint32
	Token string
}

// Errors of Resources.
var (
	ErrUnknownResource = errors.New("no such resource")
	ErrNotOwned        = errors.New("the resource is not this client's")
	ErrNotExportable   = errors.New("the resource has no dma-buf")
	ErrGone            = errors.New("the device was reset")
)

// Format is a pixel format and layout.
type Format struct {
	Fourcc   dmabuf.Fourcc
	Modifier dmabuf.Modifier
}

// Resources is the broker's resource tables. Any goroutine but the render thread.
type Resources interface {
	// Open finds a resource. One that does not exist yet is waited for until ctx ends,
	// because a stream may overtake the control queue; the result is then
	// ErrUnknownResource.
	Open(ctx context.Context, owner Owner, dev DeviceID, id uint32) (Resource, error)
	// Formats returns what guests can draw and we can show: fourccs that the renderer
	// draws, each with ModLinear and ModInvalid (the guest's driver knows no others;
	// the real modifier is the export's). Empty without 3D.
	Formats() []Format
}

// Resource is an open resource. It stays usable, and its memory stays, after the
// guest's unref; its drawing functions fail with ErrGone after a device reset. Any
// goroutine but the render thread; Close once.
type Resource interface {
	ID() uint32
	// Texture returns the size in pixels and the format of a classic resource; ok is
	// false for a blob, which has neither.
	Texture() (w, h uint32, f dmabuf.Fourcc, ok bool)
	// Size returns the bytes of a blob; 0 for a texture.
	Size() uint64
	// Buffer returns the dma-buf of a texture or of a blob that the renderer draws,
	// exported once and retained for the caller. ErrNotExportable wraps the reason.
	Buffer(ctx context.Context) (*dmabuf.Buffer, error)
	// Memory returns a descriptor of a blob's memory, the caller's: a memfd, or a
	// dma-buf (isDMABuf) of the guest's pages. ErrNotExportable wraps the reason.
	Memory(ctx context.Context) (fd *dmabuf.FD, isDMABuf bool, err error)
	// Drawn waits for the GPU work of the resource's contexts that the guest had
	// queued when it was called.
	Drawn(ctx context.Context) error
	// Read copies a rectangle of what is drawn into the same place of dst (shared
	// memory of the same size), converting to its format, after waiting like Drawn. A
	// blob is read as if it had dst's width, the stride and the format given in as. It
	// returns the bytes copied.
	Read(ctx context.Context, as Layout, rect display.Rect, dst *dmabuf.Buffer) (uint64, error)
	Close() error
}

// Layout says how a picture lies in a blob. Zero for textures.
type Layout struct {
	Fourcc         dmabuf.Fourcc
	Offset, Stride uint32 // bytes
}

// WindowStats describes one toplevel of a guest's client.
type WindowStats struct {
	App         string            `json:"app"` // app id, as the client set it
	Title       string            `json:"title"`
	Client      string            `json:"client"` // Dialect.Name
	Transport   string            `json:"transport"`
	Frames      map[string]uint64 `json:"frames"` // commits with a new buffer, by tier: dmabuf, udmabuf, shared, shm
	BytesCopied uint64            `json:"bytes_copied"`
	Why         string            `json:"why,omitempty"` // why not a better tier, of the last frame
}
