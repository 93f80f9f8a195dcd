package virgl

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"sync/atomic"

	"github.com/ebitengine/purego"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/virgl/dl"
)

// Config says how to make a renderer.
type Config struct {
	// RenderNode is the DRM node to render on, such as /dev/dri/renderD128. Empty:
	// EGL without a surface or a node, on whatever GL driver Mesa picks, which is
	// llvmpipe on a machine without a GPU.
	RenderNode string
	// Log receives the library's messages; nil drops them. A guest causes most of
	// them, so they are limited to 50 a second.
	Log *zap.Logger
	// OnFence hears of every fence of CreateFence, on the render thread.
	OnFence Fences
	// CheckThread makes every method compare the calling thread with New's and
	// panic with ErrThread when it differs. It costs one system call a method.
	CheckThread bool
}

// Flags of virgl_renderer_init (virglrenderer.h).
const (
	flagUseEGL         = 1 << 0
	flagThreadSync     = 1 << 1
	flagUseSurfaceless = 1 << 3
	// Blobs that the guest maps must have a descriptor, because they are mapped by
	// another process. Without it the library offers the guest ARB_buffer_storage
	// with memory that only this process can map.
	flagUseExternalBlob = 1 << 5
)

// scratchSize is the size of the memory for structs handed to the library. The
// largest is a capability set (1376 bytes in 0.10.4).
const scratchSize = 16384

// active is set while a renderer exists.
var active atomic.Bool

// renderer is the Renderer over libvirglrenderer.
type renderer struct {
	lib   *lib
	blob  blobLib
	cb    *callbacks
	log   *zap.Logger
	fence Fences
	info  Info

	node    *dmabuf.FD // the render node; nil when surfaceless
	thread  int        // the thread that New ran on; 0 when not checked
	scratch []byte     // mmap; structs for one call
	args    [16]uintptr
	pin     runtime.Pinner

	resources map[uint32]*resource
	contexts  map[uint32]struct{}
	fences    fenceQueue
	finish    uintptr // glFinish, which replaces the library's fences; see findFinish
	egl       *egl    // only for libraries without resource_get_info_ext
	closed    bool
}

// resource is what is remembered of a resource of the library.
type resource struct {
	args ResourceArgs
	iov  uintptr  // the struct iovec array that the library keeps; C memory
	segs [][]byte // what iov points to
	size uint64   // bytes in segs
	blob uint64   // size of a blob in bytes, 0: it is none
}

var _ Renderer = (*renderer)(nil)

// New starts libvirglrenderer. It must be called on the render thread: a
// goroutine that has called runtime.LockOSThread and never unlocks, because the
// library's GL context is current on that thread from here to Close. All methods
// of the result are called on it too.
//
// The error wraps [ErrLibrary] when the library is missing or too old (and names
// the package to install), [ErrBusy] when the process has a renderer already.
func New(cfg Config) (Renderer, error) {
	l, err := loadLib()
	if err != nil {
		return nil, err
	}
	if !active.CompareAndSwap(false, true) {
		return nil, opErr("start", "", ErrBusy)
	}
	r, err := start(l, cfg)
	if err != nil {
		logger.Store(nil)
		active.Store(false)
		return nil, err
	}
	return r, nil
}

func start(l *lib, cfg Config) (_ *renderer, err error) {
	r := &renderer{
		lib:       l,
		blob:      loadBlobLib(l.file),
		cb:        makeCallbacks(),
		log:       cfg.Log,
		fence:     cfg.OnFence,
		resources: map[uint32]*resource{},
		contexts:  map[uint32]struct{}{},
	}
	if r.log == nil {
		r.log = zap.NewNop()
	}
	if r.fence == nil {
		r.fence = func(uint32, uint32) {}
	}
	if cfg.CheckThread {
		r.thread = unix.Gettid()
	}
	if r.scratch, err = unix.Mmap(-1, 0, scratchSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
		return nil, opErr("allocate", "call buffers", err)
	}
	defer func() {
		if err != nil {
			r.drop()
		}
	}()
	if err = r.openNode(cfg.RenderNode); err != nil {
		return nil, err
	}
	r.setLog()

	flags := uintptr(flagUseEGL | flagThreadSync | flagUseExternalBlob)
	if r.node == nil {
		flags |= flagUseSurfaceless
	}
	r.cb.fill(r.node != nil)
	if err = result(r.call(l.init, r.cb.cookie, flags, r.cb.table)); err != nil {
		return nil, opErr("start", r.info.Node, fmt.Errorf("no usable EGL or GL driver (Debian packages libegl1, libgl1-mesa-dri): %w", err))
	}
	r.info.Library = l.file.Name()
	r.info.GL = true
	r.call(l.forceCtx0)
	r.finish = findFinish()
	r.info.Capsets = r.capsets()
	r.info.DMABufExport = r.probeExport()
	return r, nil
}

func (r *renderer) openNode(path string) error {
	r.info.Node = "surfaceless"
	if path == "" {
		return nil
	}
	node, err := dmabuf.OpenDRM(path)
	if err != nil {
		return opErr("open render node", path, fmt.Errorf("%w: %w", ErrNotSupported, err))
	}
	r.node = node
	r.info.Node = path
	callbackNode.Store(r.node)
	return nil
}

func (r *renderer) setLog() {
	logger.Store(&libLogger{zap: r.log})
	if r.lib.setLogCallback != 0 {
		r.call(r.lib.setLogCallback, logCallback(), 0, 0)
		return
	}
	r.call(r.lib.setDebugCallback, debugCallback())
}

// drop gives back what start took, except the library's own state.
func (r *renderer) drop() {
	callbackNode.Store(nil)
	_ = r.node.Close()
	_ = unix.Munmap(r.scratch)
	r.scratch = nil
}

// Close implements Renderer. Fences that have not signalled are forgotten.
func (r *renderer) Close() error {
	r.check()
	if r.closed {
		return nil
	}
	r.closed = true
	r.Reset()
	r.call(r.lib.cleanup, r.cb.cookie)
	r.drop()
	logger.Store(nil)
	active.Store(false)
	return nil
}

// check panics when the caller is on a wrong thread and Config.CheckThread is on.
func (r *renderer) check() {
	if r.thread != 0 && unix.Gettid() != r.thread {
		panic(fmt.Errorf("virgl: %w: thread %d, created on %d", ErrThread, unix.Gettid(), r.thread))
	}
}

// call calls a function of the library. The arguments go through an array of the
// renderer's, so that the variadic slice is not allocated anew for each call.
// Addresses among them must be of C memory, an mmap or pinned objects.
func (r *renderer) call(fn uintptr, args ...uintptr) int32 {
	n := copy(r.args[:], args)
	rc, _, _ := purego.SyscallN(fn, r.args[:n]...)
	return int32(rc)
}

// Info implements Renderer.
func (r *renderer) Info() Info { return r.info }

// Stats implements Renderer.
func (r *renderer) Stats() Stats {
	return Stats{Contexts: len(r.contexts), Resources: len(r.resources), FencesPending: r.fences.len()}
}

// capsets lists the sets that a virgl driver in the guest asks for. The library
// also returns sizes for venus and drm when they do not work, so only these two
// are asked.
func (r *renderer) capsets() []CapsetInfo {
	var out []CapsetInfo
	for _, id := range []uint32{CapsetVirgl, CapsetVirgl2} {
		clear(r.scratch[:8])
		r.call(r.lib.getCapSet, uintptr(id), dl.Addr(r.scratch), dl.Addr(r.scratch)+4)
		c := CapsetInfo{
			ID:         id,
			MaxVersion: binary.NativeEndian.Uint32(r.scratch),
			MaxSize:    binary.NativeEndian.Uint32(r.scratch[4:]),
		}
		if c.MaxSize > 0 && c.MaxSize <= scratchSize {
			out = append(out, c)
		}
	}
	return out
}

// FillCapset implements Renderer.
func (r *renderer) FillCapset(id, version uint32, dst []byte) error {
	r.check()
	object := fmt.Sprintf("%d version %d", id, version)
	for _, c := range r.info.Capsets {
		if c.ID != id {
			continue
		}
		if version > c.MaxVersion {
			return opErr("fill capset", object, fmt.Errorf("%w: version, limit %d", ErrInvalid, c.MaxVersion))
		}
		if uint64(len(dst)) != uint64(c.MaxSize) {
			return opErr("fill capset", object, fmt.Errorf("%w: %d bytes, want %d", ErrInvalid, len(dst), c.MaxSize))
		}
		r.leave(0)
		r.call(r.lib.forceCtx0)
		clear(r.scratch)
		r.call(r.lib.fillCaps, uintptr(id), uintptr(version), dl.Addr(r.scratch))
		copy(dst, r.scratch)
		return nil
	}
	return opErr("fill capset", object, ErrNotSupported)
}

// maxName is the longest context name handed on, in bytes; the library keeps 63.
const maxName = 63

// CreateContext implements Renderer. The low byte of init is a capset id; 0 means
// the newest virgl. Other capsets (venus, drm) are not supported.
func (r *renderer) CreateContext(ctx, init uint32, name string) error {
	r.check()
	if _, ok := r.contexts[ctx]; ok || ctx == 0 {
		return ctxErr("create", ctx, fmt.Errorf("%w: id in use", ErrInvalid))
	}
	capset := init & 0xff // VIRTIO_GPU_CONTEXT_INIT_CAPSET_ID_MASK
	if init != capset {
		return ctxErr("create", ctx, fmt.Errorf("%w: context_init %#x, known bits 0xff", ErrInvalid, init))
	}
	if capset == 0 {
		capset = CapsetVirgl2
	}
	if capset != CapsetVirgl && capset != CapsetVirgl2 {
		return ctxErr("create", ctx, fmt.Errorf("%w: capset %d", ErrNotSupported, capset))
	}
	r.leaveAlways()
	n := copy(r.scratch[:maxName], name)
	r.scratch[n] = 0
	rc := r.call(r.lib.contextCreateWithFlags, uintptr(ctx), uintptr(capset), uintptr(n), dl.Addr(r.scratch))
	// The library leaves the new GL context current and does not note it (vrend_create_context,
	// 0.10.4 to 1.3): the context that was used last would go on in the wrong one.
	r.call(r.lib.forceCtx0)
	r.fences.ctx = 0
	if err := result(rc); err != nil {
		return ctxErr("create", ctx, err)
	}
	r.contexts[ctx] = struct{}{}
	return nil
}

// DestroyContext implements Renderer.
func (r *renderer) DestroyContext(ctx uint32) {
	r.check()
	if _, ok := r.contexts[ctx]; !ok {
		return
	}
	r.leaveAlways()
	r.call(r.lib.contextDestroy, uintptr(ctx))
	delete(r.contexts, ctx)
	r.replaceFence()
}

// AttachResource implements Renderer.
func (r *renderer) AttachResource(ctx, res uint32) {
	r.check()
	r.call(r.lib.ctxAttachResource, uintptr(ctx), uintptr(res))
}

// DetachResource implements Renderer.
func (r *renderer) DetachResource(ctx, res uint32) {
	r.check()
	r.call(r.lib.ctxDetachResource, uintptr(ctx), uintptr(res))
}

// Submit implements Renderer.
func (r *renderer) Submit(ctx uint32, cmds []byte) error {
	r.check()
	if len(cmds) == 0 {
		return nil
	}
	if len(cmds)%4 != 0 || dl.Addr(cmds)%4 != 0 {
		return ctxErr("submit", ctx, fmt.Errorf("%w: %d bytes at address %#x, want multiples of 4", ErrInvalid, len(cmds), dl.Addr(cmds)))
	}
	// A stream may switch between sub-contexts, each of which is a GL context of
	// its own, so even work of the same context gets its fence first.
	r.leaveAlways()
	r.pin.Pin(&cmds[0])
	rc := r.call(r.lib.submitCmd, dl.Addr(cmds), uintptr(ctx), uintptr(len(cmds)/4))
	r.pin.Unpin()
	r.worked(ctx)
	if rc != 0 {
		return ctxErr("submit", ctx, result(rc))
	}
	return nil
}

// Reset implements Renderer. Pending fences are forgotten: OnFence will not hear
// of them. It does not use virgl_renderer_reset, which stops the library's fence
// thread for good (0.10.4 to 1.3): fences would never signal again.
func (r *renderer) Reset() {
	r.check()
	for ctx := range r.contexts {
		r.DestroyContext(ctx)
	}
	for id := range r.resources {
		r.UnrefResource(id)
	}
	r.fences.forget()
}
