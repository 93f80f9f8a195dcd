// Package virgl runs a guest's 3D commands through libvirglrenderer, behind the
// small [Renderer] interface. The library is loaded at run time (purego), so
// the program starts, and serves 2D, without it.
package virgl

import (
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Capset ids (virtio spec 5.7.6.8, VIRTIO_GPU_CMD_GET_CAPSET_INFO).
const (
	CapsetVirgl  = 1
	CapsetVirgl2 = 2
)

// CapsetInfo describes one capability set that the renderer offers.
type CapsetInfo struct {
	ID         uint32
	MaxVersion uint32
	MaxSize    uint32 // bytes
}

// ResourceArgs are the arguments of VIRTIO_GPU_CMD_RESOURCE_CREATE_3D, in its
// own terms (virtio spec 5.7.6.9).
type ResourceArgs struct {
	ID, Target, Format, Bind        uint32
	Width, Height, Depth, ArraySize uint32
	LastLevel, Samples, Flags       uint32
}

// FlagY0Top is VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP: row 0 is the top row.
const FlagY0Top = 1

// Box is a box of texels (struct virtio_gpu_box).
type Box struct{ X, Y, Z, W, H, D uint32 }

// Transfer is one TRANSFER_TO_HOST_3D or TRANSFER_FROM_HOST_3D, or the 2D form
// with Ctx 0.
type Transfer struct {
	Resource, Ctx       uint32
	Level               uint32
	Stride, LayerStride uint32 // bytes, 0 = packed
	Box                 Box
	Offset              uint64 // bytes into the backing
}

// Stats are what a renderer says about itself.
type Stats struct {
	Contexts, Resources, FencesPending int
}

// Info is what a renderer can do. It does not change after New.
type Info struct {
	Library      string // "libvirglrenderer.so.1" or "none"
	Node         string // render node in use, "surfaceless" or ""
	GL           bool   // contexts and 3D resources work
	DMABufExport bool   // Export gives dma-bufs
	Capsets      []CapsetInfo
}

// Renderer executes 3D commands. One exists per process: libvirglrenderer is a
// singleton bound to the thread that made it. Every method, New included, is
// called on the render thread (a locked OS thread), and none keeps a Go
// pointer, except that backing segments must stay mapped until DetachBacking or
// UnrefResource.
//
// Ids are checked by the caller: the broker's resource table and context table
// say what exists, so a renderer never sees an unknown id.
type Renderer interface {
	Info() Info

	// FillCapset writes the capability set into dst, which has MaxSize bytes.
	FillCapset(id, version uint32, dst []byte) error

	// CreateContext makes a context. init is the context_init word (0: virgl);
	// name is the guest's debug name.
	CreateContext(ctx, init uint32, name string) error
	DestroyContext(ctx uint32)
	AttachResource(ctx, res uint32)
	DetachResource(ctx, res uint32)

	CreateResource(a *ResourceArgs) error
	// UnrefResource drops the resource and any backing it still has.
	UnrefResource(res uint32)
	AttachBacking(res uint32, segs [][]byte) error
	DetachBacking(res uint32)
	TransferToHost(t *Transfer) error
	TransferFromHost(t *Transfer) error

	// Submit runs a command stream. cmds must be 4-byte aligned, a multiple of
	// 4 bytes long, and must not change during the call: never guest memory.
	Submit(ctx uint32, cmds []byte) error

	// ReadPixels copies a rectangle of level 0 into dst with the given stride
	// (bytes); dst[0] receives the rectangle's first texel in the resource's
	// own format. Rows count as in transfers: with FlagY0Top row 0 is the top
	// row here, though it is the last one in an exported buffer. It waits for
	// the work submitted before it.
	ReadPixels(res uint32, x, y, w, h, stride uint32, dst []byte) error
	// Export makes the buffer that shares the resource's memory; one reference,
	// the caller's. ErrNotSupported where the driver cannot. The broker calls
	// it once per resource and keeps the result.
	Export(res uint32) (*dmabuf.Buffer, error)

	// CreateFence asks for OnFence(id) when all work submitted so far is done,
	// by ctx (0: by any). ids increase by one from call to call; a later fence
	// that signals retires the earlier ones of the same ctx. Done means that
	// the pixels are in memory, also for who looks at an exported buffer.
	CreateFence(ctx, id uint32) error
	// PollFD becomes readable when Poll has something to do; -1 if Poll must be
	// called on a timer. The renderer keeps ownership.
	PollFD() int
	// Poll reports signalled fences through OnFence, on this thread.
	Poll()

	Stats() Stats
	// Reset destroys every context and resource, as after a guest reset, and
	// forgets the pending fences.
	Reset()
	Close() error
}

// Fences receives signalled fences: called on the render thread, from inside
// Poll, CreateFence or Submit.
type Fences func(ctx, id uint32)
