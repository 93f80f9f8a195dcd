package virgl

import (
	"encoding/binary"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/ebitengine/purego"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/virgl/dl"
)

// writeFenceAddr is the address of a C function, written in assembly, that
// stores a fence's number at the cookie. A Go callback would cost three heap
// allocations a fence; this costs none. The library calls it from inside
// virgl_renderer_poll on the render thread, so the store needs no atomics, and
// since fences of one context retire in order the last number says it all.
var writeFenceAddr uintptr

// The library keeps a pointer to struct virgl_renderer_callbacks and passes the
// cookie to each of them, so both live in C memory, made once and never freed.
const (
	callbacksSize    = 72 // version 4 of the struct; the same in every release
	callbacksVersion = 2  // write_fence (1), get_drm_fd (2)

	offWriteFence = 8
	offGetDRMFD   = 40
)

type callbacks struct {
	table  uintptr // struct virgl_renderer_callbacks
	cookie uintptr // uint32_t: the last fence that signalled
	getFD  uintptr
}

var makeCallbacks = sync.OnceValue(func() *callbacks {
	return &callbacks{
		table:  dl.Malloc(callbacksSize),
		cookie: dl.Malloc(8),
		getFD:  purego.NewCallback(getDRMFD),
	}
})

// fill writes the struct. The render node's callback is left out when there is no
// node; the library then opens none, or one of its own choice for GBM.
func (c *callbacks) fill(withNode bool) {
	t := dl.Bytes(c.table, callbacksSize)
	clear(t)
	binary.NativeEndian.PutUint32(t, callbacksVersion)
	binary.NativeEndian.PutUint64(t[offWriteFence:], uint64(writeFenceAddr))
	if withNode {
		binary.NativeEndian.PutUint64(t[offGetDRMFD:], uint64(c.getFD))
	}
	clear(dl.Bytes(c.cookie, 8))
}

// lastFence is the number of the last fence that the library reported.
func (c *callbacks) lastFence() uint32 {
	return binary.NativeEndian.Uint32(dl.Bytes(c.cookie, 4))
}

// callbackNode is the render node that getDRMFD duplicates. Set before init, nil
// after Close.
var callbackNode atomic.Pointer[dmabuf.FD]

// getDRMFD is the get_drm_fd callback. The library owns what it returns, and
// newer releases ask once per context, so every call gives a new descriptor. When
// initialisation fails after GBM worked, 0.10.4 closes the descriptor twice; a
// high number makes it unlikely that another thread opens it in between.
func getDRMFD(_ uintptr) (fd int32) {
	defer func() {
		if r := recover(); r != nil {
			fd = -1
			logPanic(r)
		}
	}()
	node := callbackNode.Load()
	if node == nil {
		return -1
	}
	for _, least := range []int{900, 0} {
		if dup, err := unix.FcntlInt(uintptr(node.Int()), unix.F_DUPFD_CLOEXEC, least); err == nil {
			return int32(dup)
		}
	}
	return -1
}

// logPanic reports a panic that a callback recovered from. It never panics itself,
// not even when the logger does.
func logPanic(r any) {
	defer func() { _ = recover() }()
	if l := logger.Load(); l != nil {
		l.zap.Error("panic in a callback of libvirglrenderer", zap.String("panic", fmt.Sprint(r)), zap.ByteString("stack", debug.Stack()))
	}
}
