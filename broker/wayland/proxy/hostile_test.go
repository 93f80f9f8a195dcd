package proxy_test

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy/proxytest"
	"github.com/gpubroker/gpubroker/broker/wayland/waylandtest"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
)

// hostile is a client with a window, and what it does then.
type hostile struct {
	*proxytest.Client
	w   *proxytest.Window
	dm  proto.ZwpLinuxDmabufV1
	res *proxytest.Resources
	t   *testing.T
}

// raw sends a message with the words as its body.
func (h *hostile) raw(object wire.ID, opcode uint16, words ...uint32) {
	h.Out.Begin(object, opcode)
	for _, w := range words {
		h.Out.Uint(w)
	}
	h.Out.End()
}

// rawBytes sends bytes as they are.
func (h *hostile) rawBytes(b []byte) {
	h.Flush()
	h.Chunk(proxy.Chunk{Data: b})
}

// header is the first 8 bytes of a message.
func header(object uint32, size, opcode uint16) []byte {
	b := binary.LittleEndian.AppendUint32(nil, object)
	return binary.LittleEndian.AppendUint32(b, uint32(size)<<16|uint32(opcode))
}

func (h *hostile) memory() proto.WlBuffer {
	return h.w.Buffer(proxy.Item{Kind: proxy.ItemMemory}, 8, 8, proto.WlShmFormatXrgb8888)
}

// shmBuffer makes a buffer with arbitrary numbers in a pool of 1024 bytes.
func (h *hostile) shmBuffer(it proxy.Item, offset, w, hh, stride int32, format uint32) {
	pool := h.w.Pool(1024)
	pool.CreateBuffer(&h.Out, proto.WlBuffer(h.NewID(proto.IWlBuffer, 1)), offset, w, hh, stride, proto.WlShmFormat(format))
	h.Item(it)
}

// params makes a params object with one plane of resource id.
func (h *hostile) params(it proxy.Item, plane, offset, stride uint32, mod uint64) proto.ZwpLinuxBufferParamsV1 {
	p := proto.ZwpLinuxBufferParamsV1(h.NewID(proto.IZwpLinuxBufferParamsV1, 4))
	h.dm.CreateParams(&h.Out, p)
	h.ParamsAdd(p, it, plane, offset, stride, mod)
	return p
}

func (h *hostile) immed(p proto.ZwpLinuxBufferParamsV1, w, hh int32, f dmabuf.Fourcc, flags proto.ZwpLinuxBufferParamsV1Flags) proto.WlBuffer {
	b := proto.WlBuffer(h.NewID(proto.IWlBuffer, 1))
	p.CreateImmed(&h.Out, b, w, hh, uint32(f), flags)
	return b
}

func (h *hostile) update(b proto.WlBuffer, r display.Rect, n int) {
	h.Flush()
	h.Chunk(proxy.Chunk{Update: &proxy.Update{Buffer: uint32(b), Rect: r, Pixels: make([]byte, n)}})
}

const (
	linear = uint64(dmabuf.ModLinear)
	tex    = 1 // a texture of 32x16
	alien  = 2 // somebody else's
	blob   = 3 // of the import device, 4096 bytes
	gone   = 4 // a texture whose device was reset
)

func blobItem(offset uint64) proxy.Item {
	return proxy.Item{Kind: proxy.ItemResource, Device: proxy.DeviceImport, Resource: blob, Offset: offset}
}

func pipeItem(t *testing.T) proxy.Item {
	r, w := pipe(t)
	_ = r.Close()
	return proxy.Item{Kind: proxy.ItemPipe, FD: w}
}

// attacks are what clients must not do, each with a part of the error that they get.
var attacks = []struct {
	name, want string
	do         func(h *hostile)
}{
	// Framing.
	{"size 0", "size 0", func(h *hostile) { h.rawBytes(header(1, 0, 0)) }},
	{"size 7", "size 7", func(h *hostile) { h.rawBytes(header(1, 7, 0)) }},
	{"size 4100", "size 4100", func(h *hostile) { h.rawBytes(header(1, 4100, 0)) }},
	{"size 65532", "size 65532", func(h *hostile) { h.rawBytes(append(header(1, 65532, 0), make([]byte, 65524)...)) }},
	{"object 0", "object 0", func(h *hostile) { h.rawBytes(header(0, 8, 0)) }},
	{"unaligned size", "size 13", func(h *hostile) { h.rawBytes(append(header(1, 13, 0), 1, 2, 3, 4, 5)) }},

	// Objects and methods.
	{"unknown object", "object 4242", func(h *hostile) { h.raw(4242, 0) }},
	{"an object of the compositor's range", "does not exist", func(h *hostile) { h.raw(wire.ServerIDs+7, 0) }},
	{"a host id that is not ours", "does not exist", func(h *hostile) { h.raw(200, 0, 1) }},
	{"unknown opcode", "request 99", func(h *hostile) { h.raw(wire.ID(h.w.Surface), 99) }},
	{"opcode of a later version", "not in version 1", func(h *hostile) { h.raw(wire.ID(h.w.Shm), proto.OpWlShmRelease) }},
	{"events as requests", "not in version", func(h *hostile) { h.raw(wire.ID(h.memory()), 1) }},
	{"a destroyed object", "does not exist", func(h *hostile) {
		b := h.memory()
		b.Destroy(&h.Out)
		b.Destroy(&h.Out)
	}},
	{"a destroyed object as an argument", "no object", func(h *hostile) {
		b := h.memory()
		b.Destroy(&h.Out)
		h.w.Surface.Attach(&h.Out, b, 0, 0)
	}},
	{"a surface destroyed twice", "does not exist", func(h *hostile) {
		s := proto.WlSurface(h.NewID(proto.IWlSurface, 6))
		h.w.Compositor.CreateSurface(&h.Out, s)
		s.Destroy(&h.Out)
		s.Commit(&h.Out)
	}},
	{"wrong interface", "is no wl_buffer", func(h *hostile) { h.raw(wire.ID(h.w.Surface), proto.OpWlSurfaceAttach, uint32(h.w.Shm), 0, 0) }},
	{"null object", "null object", func(h *hostile) {
		h.raw(h.Bind("wl_subcompositor", 1), proto.OpWlSubcompositorGetSubsurface, 900, 0, 0)
	}},
	{"arguments missing", "is missing", func(h *hostile) { h.raw(wire.ID(h.w.Surface), proto.OpWlSurfaceDamage, 0, 0, 1) }},
	{"arguments too many", "after the last argument", func(h *hostile) { h.raw(wire.ID(h.w.Surface), proto.OpWlSurfaceCommit, 0) }},

	// Ids.
	{"id in use", "in use", func(h *hostile) { h.w.Compositor.CreateRegion(&h.Out, proto.WlRegion(h.w.Surface)) }},
	{"id 1", "in use", func(h *hostile) { h.raw(1, proto.OpWlDisplaySync, 1) }},
	{"id 0", "null object", func(h *hostile) { h.raw(1, proto.OpWlDisplaySync, 0) }},
	{"id of the compositor's range", "0xff000000", func(h *hostile) { h.raw(1, proto.OpWlDisplaySync, 0xff000000) }},
	{"id before its delete_id", "in use", func(h *hostile) {
		s := proto.WlSurface(h.NewID(proto.IWlSurface, 6))
		h.w.Compositor.CreateSurface(&h.Out, s)
		s.Destroy(&h.Out)
		h.w.Compositor.CreateSurface(&h.Out, s)
	}},

	// Strings.
	{"string longer than the message", "longer than its message", func(h *hostile) { h.raw(wire.ID(h.w.Top), proto.OpXdgToplevelSetTitle, 400, 0x41414141) }},
	{"string of length 2^32-1", "longer than its message", func(h *hostile) { h.raw(wire.ID(h.w.Top), proto.OpXdgToplevelSetTitle, 0xffffffff, 0) }},
	{"string without NUL", "no NUL", func(h *hostile) { h.raw(wire.ID(h.w.Top), proto.OpXdgToplevelSetTitle, 4, 0x41414141) }},
	{"string with NUL inside", "no NUL", func(h *hostile) { h.raw(wire.ID(h.w.Top), proto.OpXdgToplevelSetTitle, 4, 0x00410041) }},
	{"null string", "null string", func(h *hostile) { h.raw(wire.ID(h.w.Top), proto.OpXdgToplevelSetTitle, 0) }},

	// Globals.
	{"global that does not exist", "no global 77", func(h *hostile) { h.Registry().Bind(&h.Out, 77, "wl_shm", 1, 900) }},
	{"global by another name", "not \"wl_seat\"", func(h *hostile) { h.Registry().Bind(&h.Out, 1, "wl_seat", 1, 900) }},
	{"global version 0", "version 0", func(h *hostile) { h.Registry().Bind(&h.Out, 1, "wl_compositor", 0, 900) }},
	{"global version too high", "version 7", func(h *hostile) { h.Registry().Bind(&h.Out, 1, "wl_compositor", 7, 900) }},

	// Items.
	{"item missing", "brings 1 items, 0 came", func(h *hostile) {
		p := proto.ZwpLinuxBufferParamsV1(h.NewID(proto.IZwpLinuxBufferParamsV1, 4))
		h.dm.CreateParams(&h.Out, p)
		h.raw(wire.ID(p), proto.OpZwpLinuxBufferParamsV1Add, 0, 0, 0, 0, 0)
	}},
	{"items flood", "items in flight", func(h *hostile) {
		for range 20 {
			items := make([]proxy.Item, 20)
			for i := range items {
				items[i] = gpu(tex)
			}
			if !h.Chunk(proxy.Chunk{Items: items}) {
				return
			}
		}
	}},
	{"pipe flood", "items in flight", func(h *hostile) {
		for range 400 {
			if !h.Chunk(proxy.Chunk{Items: []proxy.Item{pipeItem(h.t)}}) {
				return
			}
		}
	}},
	{"pipe for a plane", "want a resource", func(h *hostile) { h.params(pipeItem(h.t), 0, 0, 128, linear) }},
	{"pipe for a buffer", "want a resource", func(h *hostile) { h.shmBuffer(pipeItem(h.t), 0, 8, 8, 32, 1) }},
	{"bytes for a buffer", "want a resource", func(h *hostile) {
		h.shmBuffer(proxy.Item{Kind: proxy.ItemBytes, Bytes: make([]byte, 9)}, 0, 8, 8, 32, 1)
	}},
	{"memory for a plane", "want a resource", func(h *hostile) { h.params(proxy.Item{Kind: proxy.ItemMemory}, 0, 0, 128, linear) }},
	{"kind of item that does not exist", "item kind 77", func(h *hostile) { h.shmBuffer(proxy.Item{Kind: 77}, 0, 8, 8, 32, 1) }},
	{"device that does not exist", "device 9", func(h *hostile) {
		h.shmBuffer(proxy.Item{Kind: proxy.ItemResource, Device: 9, Resource: 1}, 0, 8, 8, 32, 1)
	}},
	{"resource for a pipe", "want a pipe", func(h *hostile) {
		h.offer()
		h.Item(gpu(tex))
	}},
	{"resource for a colour profile", "want bytes", func(h *hostile) { h.icc(gpu(tex), 0, 1) }},
	{"colour profile past its end", "9 bytes at 3 of 10", func(h *hostile) { h.icc(proxy.Item{Kind: proxy.ItemBytes, Bytes: make([]byte, 10)}, 3, 9) }},
	{"colour profile that overflows", "of 10", func(h *hostile) { h.icc(proxy.Item{Kind: proxy.ItemBytes, Bytes: make([]byte, 10)}, 0xffffffff, 2) }},

	// Resources.
	{"foreign resource", "not this client's", func(h *hostile) { h.immed(h.params(gpu(alien), 0, 0, 128, linear), 32, 16, dmabuf.XRGB8888, 0) }},
	{"foreign resource, asked politely", "not this client's", func(h *hostile) {
		h.params(gpu(alien), 0, 0, 128, linear).Create(&h.Out, 32, 16, uint32(dmabuf.XRGB8888), 0)
	}},
	{"foreign resource as shared memory", "not this client's", func(h *hostile) { h.shmBuffer(gpu(alien), 0, 8, 8, 32, 1) }},
	{"unknown resource", "no such resource", func(h *hostile) { h.immed(h.params(gpu(999), 0, 0, 128, linear), 32, 16, dmabuf.XRGB8888, 0) }},
	{"resource 0", "resource 0", func(h *hostile) { h.immed(h.params(gpu(0), 0, 0, 128, linear), 32, 16, dmabuf.XRGB8888, 0) }},
	{"texture as shared memory", "has 0", func(h *hostile) { h.shmBuffer(gpu(tex), 0, 8, 8, 32, 1) }},
	{"past a blob's end", "the resource has 4096", func(h *hostile) { h.shmBuffer(blobItem(3900), 0, 8, 8, 32, 1) }},
	{"blob offset that overflows", "the resource has 4096", func(h *hostile) { h.shmBuffer(blobItem(1<<64-8), 0, 8, 8, 32, 1) }},
	{"blob offset past the end", "the resource has 4096", func(h *hostile) { h.shmBuffer(blobItem(5000), 0, 8, 8, 32, 1) }},
	{"commit after a reset", "device was reset", func(h *hostile) {
		h.w.Show(h.immed(h.params(gpu(gone), 0, 0, 128, linear), 32, 16, dmabuf.XRGB8888, 0))
	}},

	// Shared memory.
	{"pool of 0 bytes", "size 0", func(h *hostile) { h.w.Pool(0) }},
	{"pool of -1 bytes", "size -1", func(h *hostile) { h.w.Pool(-1) }},
	{"pool that shrinks", "it has 1024 already", func(h *hostile) { h.w.Pool(1024).Resize(&h.Out, 1000) }},
	{"buffer of no width", "0x8", func(h *hostile) { h.shmBuffer(proxy.Item{Kind: proxy.ItemMemory}, 0, 0, 8, 32, 1) }},
	{"buffer of negative height", "8x-8", func(h *hostile) { h.shmBuffer(proxy.Item{Kind: proxy.ItemMemory}, 0, 8, -8, 32, 1) }},
	{"buffer of huge width", "65536x1", func(h *hostile) { h.shmBuffer(proxy.Item{Kind: proxy.ItemMemory}, 0, 65536, 1, 1<<18, 1) }},
	{"stride too small", "stride 31", func(h *hostile) { h.shmBuffer(proxy.Item{Kind: proxy.ItemMemory}, 0, 8, 8, 31, 1) }},
	{"negative stride", "stride -32", func(h *hostile) { h.shmBuffer(proxy.Item{Kind: proxy.ItemMemory}, 0, 8, 8, -32, 1) }},
	{"huge stride", "the pool has 1024", func(h *hostile) { h.shmBuffer(proxy.Item{Kind: proxy.ItemMemory}, 0, 8, 16384, 0x7fffffff, 1) }},
	{"buffer past the pool's end", "the pool has 1024", func(h *hostile) { h.shmBuffer(proxy.Item{Kind: proxy.ItemMemory}, 800, 8, 8, 32, 1) }},
	{"negative offset", "at -4", func(h *hostile) { h.shmBuffer(proxy.Item{Kind: proxy.ItemMemory}, -4, 8, 8, 32, 1) }},
	{"unknown format", "was not offered", func(h *hostile) { h.shmBuffer(proxy.Item{Kind: proxy.ItemMemory}, 0, 8, 8, 32, 0x20202020) }},
	{"planar format", "was not offered", func(h *hostile) {
		h.shmBuffer(proxy.Item{Kind: proxy.ItemMemory}, 0, 8, 8, 32, uint32(dmabuf.NV12))
	}},

	// Updates.
	{"update of nothing", "does not exist", func(h *hostile) { h.update(5555, display.Rect{W: 1, H: 1}, 4) }},
	{"update of a surface", "no content from updates", func(h *hostile) { h.update(proto.WlBuffer(h.w.Surface), display.Rect{W: 1, H: 1}, 4) }},
	{"update of a shared buffer", "no content from updates", func(h *hostile) {
		h.update(h.w.Buffer(blobItem(0), 8, 8, proto.WlShmFormatXrgb8888), display.Rect{W: 1, H: 1}, 4)
	}},
	{"update of a destroyed buffer", "does not exist", func(h *hostile) {
		b := h.memory()
		b.Destroy(&h.Out)
		h.update(b, display.Rect{W: 1, H: 1}, 4)
	}},
	{"empty update", "update of", func(h *hostile) { h.update(h.memory(), display.Rect{X: 1}, 0) }},
	{"update past the right edge", "the buffer has 8x8", func(h *hostile) { h.update(h.memory(), display.Rect{X: 5, W: 4, H: 1}, 16) }},
	{"update that overflows", "the buffer has 8x8", func(h *hostile) { h.update(h.memory(), display.Rect{X: 1<<32 - 4, W: 8, H: 1}, 32) }},
	{"update below the bottom", "the buffer has 8x8", func(h *hostile) { h.update(h.memory(), display.Rect{Y: 8, W: 1, H: 1}, 4) }},
	{"update with too few bytes", "has 15 bytes, want 16", func(h *hostile) { h.update(h.memory(), display.Rect{W: 2, H: 2}, 15) }},
	{"update with too many bytes", "has 17 bytes, want 16", func(h *hostile) { h.update(h.memory(), display.Rect{W: 2, H: 2}, 17) }},

	// dma-bufs.
	{"plane 4", "plane 4", func(h *hostile) { h.params(gpu(tex), 4, 0, 128, linear) }},
	{"plane set twice", "is set already", func(h *hostile) { h.ParamsAdd(h.params(gpu(tex), 0, 0, 128, linear), gpu(tex), 0, 0, 128, linear) }},
	{"no planes", "planes are missing", func(h *hostile) {
		p := proto.ZwpLinuxBufferParamsV1(h.NewID(proto.IZwpLinuxBufferParamsV1, 4))
		h.dm.CreateParams(&h.Out, p)
		h.immed(p, 32, 16, dmabuf.XRGB8888, 0)
	}},
	{"plane 0 missing", "planes are missing", func(h *hostile) { h.immed(h.params(gpu(tex), 1, 0, 128, linear), 32, 16, dmabuf.XRGB8888, 0) }},
	{"params used twice", "already", func(h *hostile) {
		p := h.params(gpu(tex), 0, 0, 128, linear)
		h.immed(p, 32, 16, dmabuf.XRGB8888, 0)
		h.immed(p, 32, 16, dmabuf.XRGB8888, 0)
	}},
	{"plane after use", "already", func(h *hostile) {
		p := h.params(gpu(tex), 0, 0, 128, linear)
		h.immed(p, 32, 16, dmabuf.XRGB8888, 0)
		h.ParamsAdd(p, gpu(tex), 1, 0, 128, linear)
	}},
	{"planes of different modifiers", "plane 0", func(h *hostile) {
		p := h.params(gpu(tex), 0, 0, 128, linear)
		h.ParamsAdd(p, gpu(tex), 1, 0, 128, uint64(dmabuf.ModInvalid))
		h.immed(p, 32, 16, dmabuf.XRGB8888, 0)
	}},
	{"planes of different resources", "plane 0 in 1", func(h *hostile) {
		p := h.params(gpu(tex), 0, 0, 128, linear)
		h.ParamsAdd(p, gpu(gone), 1, 0, 128, linear)
		h.immed(p, 32, 16, dmabuf.XRGB8888, 0)
	}},
	{"width 0", "0x16", func(h *hostile) { h.immed(h.params(gpu(tex), 0, 0, 128, linear), 0, 16, dmabuf.XRGB8888, 0) }},
	{"larger than the texture", "the resource has 32x16", func(h *hostile) { h.immed(h.params(gpu(tex), 0, 0, 128, linear), 33, 16, dmabuf.XRGB8888, 0) }},
	{"format not offered", "was not offered", func(h *hostile) { h.immed(h.params(gpu(tex), 0, 0, 128, linear), 32, 16, dmabuf.NV12, 0) }},
	{"modifier not offered", "was not offered", func(h *hostile) {
		h.immed(h.params(gpu(tex), 0, 0, 128, 0x0200000000000001), 32, 16, dmabuf.XRGB8888, 0)
	}},
	{"a texture as another format", "XBGR8888", func(h *hostile) { h.immed(h.params(gpu(tex), 0, 0, 128, linear), 32, 16, dmabuf.XBGR8888, 0) }},
	{"blob too small", "the resource has 4096", func(h *hostile) { h.immed(h.params(blobItem(0), 0, 0, 256, linear), 64, 17, dmabuf.XRGB8888, 0) }},
	{"blob stride too small", "stride 100", func(h *hostile) { h.immed(h.params(blobItem(0), 0, 0, 100, linear), 32, 16, dmabuf.XRGB8888, 0) }},
	{"blob with two planes", "2 planes", func(h *hostile) {
		p := h.params(blobItem(0), 0, 0, 128, linear)
		h.ParamsAdd(p, blobItem(0), 1, 0, 128, linear)
		h.immed(p, 8, 8, dmabuf.XRGB8888, 0)
	}},
	{"sampling device of somebody else", "device", func(h *hostile) {
		dm := proto.ZwpLinuxDmabufV1(h.Bind("zwp_linux_dmabuf_v1", 6))
		p := proto.ZwpLinuxBufferParamsV1(h.NewID(proto.IZwpLinuxBufferParamsV1, 6))
		dm.CreateParams(&h.Out, p)
		p.SetSamplingDevice(&h.Out, make([]byte, 8))
	}},

	// Floods; the limits are low, see below.
	{"objects flood", "objects 301, limit 300", func(h *hostile) {
		for range 400 {
			h.w.Compositor.CreateRegion(&h.Out, proto.WlRegion(h.NewID(proto.IWlRegion, 6)))
		}
	}},
	{"surfaces flood", "surfaces 21, limit 20", func(h *hostile) {
		for range 30 {
			h.w.Compositor.CreateSurface(&h.Out, proto.WlSurface(h.NewID(proto.IWlSurface, 6)))
		}
	}},
	{"pools flood", "pools 11, limit 10", func(h *hostile) {
		for range 20 {
			h.w.Pool(0x7fffffff)
		}
	}},
	{"buffers flood", "buffers 41, limit 40", func(h *hostile) {
		pool := h.w.Pool(1 << 20)
		for range 60 {
			pool.CreateBuffer(&h.Out, proto.WlBuffer(h.NewID(proto.IWlBuffer, 1)), 0, 1, 1, 4, 0)
			h.Item(proxy.Item{Kind: proxy.ItemMemory})
			h.Flush()
		}
	}},
	{"memory flood", "bytes of host memory", func(h *hostile) {
		pool := h.w.Pool(0x7fffffff)
		for range 20 {
			pool.CreateBuffer(&h.Out, proto.WlBuffer(h.NewID(proto.IWlBuffer, 1)), 0, 1024, 1024, 4096, 0)
			h.Item(proxy.Item{Kind: proxy.ItemMemory})
			h.Flush()
		}
	}},
	{"copies flood", "bytes of host memory", func(h *hostile) {
		dm := h.dm
		for i := range uint32(20) {
			h.res.AddTexture(h.t, 100+i, 1024, 1024, dmabuf.ARGB8888, dmabuf.RGB565)
			h.dm = dm
			s := proto.WlSurface(h.NewID(proto.IWlSurface, 6))
			h.w.Compositor.CreateSurface(&h.Out, s)
			b := h.immed(h.params(gpu(100+i), 0, 0, 4096, linear), 1024, 1024, dmabuf.ARGB8888, 0)
			s.Attach(&h.Out, b, 0, 0)
			s.Commit(&h.Out)
		}
	}},
	{"attach with an offset of a copied buffer", "offset 3,0", func(h *hostile) {
		h.res.AddTexture(h.t, 50, 32, 16, dmabuf.ARGB8888, dmabuf.RGB565)
		b := h.immed(h.params(gpu(50), 0, 0, 128, linear), 32, 16, dmabuf.ARGB8888, 0)
		h.w.Surface.Attach(&h.Out, b, 3, 0)
	}},
	{"timestamp of too many nanoseconds", "1000000000 nanoseconds", func(h *hostile) {
		m := proto.WpCommitTimingManagerV1(h.Bind("wp_commit_timing_manager_v1", 1))
		tm := proto.WpCommitTimerV1(h.NewID(proto.IWpCommitTimerV1, 1))
		m.GetTimer(&h.Out, tm, h.w.Surface)
		tm.SetTimestamp(&h.Out, 0, 0, 1_000_000_000)
	}},
}

// offer writes a receive of a data offer that another client makes for it.
func (h *hostile) offer() {
	m := proto.WlDataDeviceManager(h.Bind("wl_data_device_manager", 3))
	seat := proto.WlSeat(h.Bind("wl_seat", 5))
	m.GetDataDevice(&h.Out, proto.WlDataDevice(h.NewID(proto.IWlDataDevice, 3)), seat)
	h.Roundtrip()
	h.Eventually("an offer", func() bool { return h.Last(proto.IWlDataDevice, proto.EvWlDataDeviceDataOffer) != nil })
	d := h.Last(proto.IWlDataDevice, proto.EvWlDataDeviceDataOffer).Decoder()
	h.Out.Begin(d.Object(), proto.OpWlDataOfferReceive)
	h.Out.String("text/plain")
	h.Out.End()
}

func (h *hostile) icc(it proxy.Item, offset, length uint32) {
	icc := proto.WpImageDescriptionCreatorIccV1(h.NewID(proto.IWpImageDescriptionCreatorIccV1, 1))
	proto.WpColorManagerV1(h.Bind("wp_color_manager_v1", 1)).CreateIccCreator(&h.Out, icc)
	h.raw(wire.ID(icc), proto.OpWpImageDescriptionCreatorIccV1SetIccFile, offset, length)
	h.Item(it)
}

// TestHostileClients: each attack ends its client with wl_display.error, nothing
// reaches the compositor that breaks the protocol, another client goes on, and what
// the attacker had is given back.
func TestHostileClients(t *testing.T) {
	if len(attacks) < 50 {
		t.Fatalf("%d attacks", len(attacks))
	}
	comp := waylandtest.New(t, waylandtest.Config{DMABuf: 3, Layouts: layouts(dmabuf.XRGB8888, dmabuf.ARGB8888), Seat: true, Selection: true,
		Presentation: true, Clock: 1, ICC: "profile", ShmFormats: []dmabuf.Fourcc{dmabuf.NV12, 0x20202020}})
	res := proxytest.NewResources(dmabuf.XRGB8888, dmabuf.ARGB8888, dmabuf.XBGR8888)
	res.AddTexture(t, tex, 32, 16, dmabuf.XRGB8888, dmabuf.XRGB8888)
	res.AddTexture(t, alien, 32, 16, dmabuf.XRGB8888, dmabuf.XRGB8888).Owner = proxy.Owner{Ctx: 66}
	res.AddBlob(t, blob, 4096)
	lost := res.AddTexture(t, gone, 32, 16, dmabuf.XRGB8888, dmabuf.XRGB8888)
	lost.Wait = func(context.Context) error { return proxy.ErrGone }
	p := newProxy(t, comp, proxy.Config{Policy: allVersions(), Resources: res, Limits: proxy.Limits{
		Objects: 300, Surfaces: 20, Pools: 10, Buffers: 40, Items: 200, HostBytes: 32 << 20, ParkTime: proxy.Duration(20 * time.Millisecond)}})
	good := connect(t, p)
	gw := good.NewWindow()
	buf := gw.Buffer(proxy.Item{Kind: proxy.ItemMemory}, 8, 8, proto.WlShmFormatXrgb8888)
	gw.Show(buf)
	selectText(good)
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) { attack(t, comp, p, res, a.do, a.want) })
		n := len(comp.Frames())
		gw.Show(buf)
		good.Roundtrip()
		if len(comp.Frames()) != n+1 {
			t.Errorf("after %s: the good client's frame is missing", a.name)
		}
	}
}

func attack(t *testing.T, comp *waylandtest.Compositor, p *proxy.Proxy, res *proxytest.Resources, do func(*hostile), want string) {
	fds, table := fdtest.Count(t), res.Len()
	c := connect(t, p)
	h := &hostile{Client: c, w: c.NewWindow(), res: res, t: t}
	h.dm = proto.ZwpLinuxDmabufV1(c.Bind("zwp_linux_dmabuf_v1", 4))
	c.Roundtrip()
	do(h)
	if c.Flush() && c.Sync() {
		t.Fatal("the client goes on")
	}
	if err := c.Wait(); !errors.Is(err, proxy.ErrProtocol) && !errors.Is(err, proxy.ErrQuota) {
		t.Errorf("error %v", err)
	}
	if s := c.DisplayError(); !strings.Contains(s, want) {
		t.Errorf("the client was told %q, want %q in it", s, want)
	}
	if c.Failure() == nil {
		t.Error("the guest's end was not told why")
	}
	c.Leave()
	if p.Clients() != 1 {
		t.Errorf("%d clients are served, want the good one", p.Clients())
	}
	if n := res.OpenCount(); n != 0 {
		t.Errorf("%d resources are still open", n)
	}
	// What the attack put into the table is closed at the test's end.
	waylandtest.Eventually(t, "the descriptors are closed", func() bool {
		comp.Sandboxes() // a round through the compositor's loop
		return fdtest.Count(t) <= fds+res.Len()-table
	})
}

// selectText owns the selection.
func selectText(c *proxytest.Client) {
	m := proto.WlDataDeviceManager(c.Bind("wl_data_device_manager", 3))
	seat := proto.WlSeat(c.Bind("wl_seat", 5))
	dev := proto.WlDataDevice(c.NewID(proto.IWlDataDevice, 3))
	m.GetDataDevice(&c.Out, dev, seat)
	src := proto.WlDataSource(c.NewID(proto.IWlDataSource, 3))
	m.CreateDataSource(&c.Out, src)
	src.Offer(&c.Out, "text/plain")
	dev.SetSelection(&c.Out, src, 1)
	c.Roundtrip()
}
