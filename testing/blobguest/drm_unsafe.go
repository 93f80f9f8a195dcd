//lint:file-ignore U1000 the structs are the kernel's, with the fields that nobody here needs

package main

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Structs of the kernel's drm.h, drm_mode.h and virtgpu_drm.h, on 64-bit machines.
type modeInfo struct {
	clock                                         uint32
	hdisplay, hsyncStart, hsyncEnd, htotal, hskew uint16
	vdisplay, vsyncStart, vsyncEnd, vtotal, vscan uint16
	vrefresh, flags, kind                         uint32
	name                                          [32]byte
}

type cardRes struct {
	fbs, crtcs, connectors, encoders     uint64
	nFBs, nCrtcs, nConnectors, nEncoders uint32
	minW, maxW, minH, maxH               uint32
}

type getConnector struct {
	encoders, modes, props, propValues                uint64
	nModes, nProps, nEncoders                         uint32
	encoder, connector, kind, kindID                  uint32
	connection, mmWidth, mmHeight, subpixel, reserved uint32
}

type setCrtc struct {
	connectors       uint64
	nConnectors      uint32
	id, fb, x, y     uint32
	gamma, modeValid uint32
	mode             modeInfo
}

type createDumb struct {
	height, width, bpp, flags, handle, pitch uint32
	size                                     uint64
}

type mapOffset struct { // struct drm_mode_map_dumb
	handle, pad uint32
	offset      uint64
}

type virtgpuMap struct {
	offset      uint64
	handle, pad uint32
}

type addFB2 struct {
	id, width, height, format, flags uint32
	handles, pitches, offsets        [4]uint32
	modifiers                        [4]uint64
}

type dirtyFB struct {
	fb, flags, colour, nClips uint32
	clips                     uint64
}

type clip struct{ x1, y1, x2, y2 uint16 }

type pageFlip struct {
	crtc, fb, flags, reserved uint32
	user                      uint64
}

type gemClose struct{ handle, pad uint32 }

type createBlob struct {
	mem, flags, handle, res uint32
	size                    uint64
	pad, cmdSize            uint32
	cmd, blobID             uint64
}

type execBuffer struct {
	flags, size   uint32
	command, bos  uint64
	nBOs          uint32
	fence         int32
	ring, syncPad uint32
	nIn, nOut     uint32
	in, out       uint64
}

type transfer struct {
	handle           uint32
	x, y, z, w, h, d uint32
	level, offset    uint32
	stride, layer    uint32
}

type wait3D struct{ handle, flags uint32 }

// Requests: the size and direction that each has are in its number (drm.h). All of
// these read and write but two.
const (
	reqGemClose    = 0x09
	reqGetRes      = 0xa0
	reqSetCrtc     = 0xa2
	reqGetConn     = 0xa7
	reqRmFB        = 0xaf
	reqPageFlip    = 0xb0
	reqDirtyFB     = 0xb1
	reqCreateDumb  = 0xb2
	reqMapDumb     = 0xb3
	reqAddFB2      = 0xb8
	reqVirtMap     = 0x41
	reqVirtExec    = 0x42
	reqVirtToHost  = 0x47
	reqVirtWait    = 0x48
	reqVirtNewBlob = 0x4a
)

// ioctl makes a request of DRM's read-write kind.
func ioctl[T any](f *os.File, nr uintptr, arg *T) error { return request(f, 3, nr, arg) }

func request[T any](f *os.File, dir, nr uintptr, arg *T) error {
	req := dir<<30 | unsafe.Sizeof(*arg)<<16 | 'd'<<8 | nr
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), req, uintptr(unsafe.Pointer(arg)))
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR && errno != unix.EAGAIN {
			return fmt.Errorf("drm ioctl %#x: %w", nr, errno)
		}
	}
}

// address is a pointer as the kernel's structs hold it. What it points to must
// not move: what escapes to the heap does not.
func address[T any](p *T) uint64 {
	keep = p
	return uint64(uintptr(unsafe.Pointer(p)))
}

// keep makes what address was given escape to the heap.
var keep any
