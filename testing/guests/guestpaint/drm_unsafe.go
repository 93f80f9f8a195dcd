//lint:file-ignore U1000 the structs are the kernel's, with the fields that nobody here needs

package main

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests and structs of the kernel's drm.h and drm_mode.h.
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

type crtc struct {
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

type mapDumb struct {
	handle, pad uint32
	offset      uint64
}

type addFB struct {
	id, width, height, pitch, bpp, depth, handle uint32
}

type cursor2 struct {
	flags, crtc           uint32
	x, y                  int32
	width, height, handle uint32
	hotX, hotY            int32
}

const (
	reqGetResources = 0xa0
	reqSetCrtc      = 0xa2
	reqGetConnector = 0xa7
	reqAddFB        = 0xae
	reqCreateDumb   = 0xb2
	reqMapDumb      = 0xb3
	reqCursor2      = 0xbb

	cursorBO   = 1
	cursorMove = 2
)

// ioctl makes a request of DRM's read-write kind.
func ioctl[T any](f *os.File, nr uintptr, arg *T) error {
	req := 3<<30 | unsafe.Sizeof(*arg)<<16 | 'd'<<8 | nr
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), req, uintptr(unsafe.Pointer(arg))); errno != 0 {
		return fmt.Errorf("drm ioctl %#x: %w", nr, errno)
	}
	return nil
}

// resources returns the ids of the card's pipes and connectors.
func resources(f *os.File) (crtcs, connectors []uint32, err error) {
	var r cardRes
	if err := ioctl(f, reqGetResources, &r); err != nil {
		return nil, nil, err
	}
	if r.nCrtcs == 0 || r.nConnectors == 0 {
		return nil, nil, fmt.Errorf("card with %d pipes and %d connectors", r.nCrtcs, r.nConnectors)
	}
	crtcs, connectors = make([]uint32, r.nCrtcs), make([]uint32, r.nConnectors)
	r = cardRes{
		crtcs: address(&crtcs[0]), nCrtcs: r.nCrtcs,
		connectors: address(&connectors[0]), nConnectors: r.nConnectors,
	}
	err = ioctl(f, reqGetResources, &r)
	return crtcs, connectors, err
}

// firstMode returns the mode that the connector prefers.
func firstMode(f *os.File, connector uint32) (modeInfo, error) {
	c := getConnector{connector: connector}
	if err := ioctl(f, reqGetConnector, &c); err != nil {
		return modeInfo{}, err
	}
	if c.nModes == 0 {
		return modeInfo{}, fmt.Errorf("connector %d has no mode", connector)
	}
	modes := make([]modeInfo, c.nModes)
	c = getConnector{connector: connector, modes: address(&modes[0]), nModes: c.nModes}
	err := ioctl(f, reqGetConnector, &c)
	return modes[0], err
}

func setCrtc(f *os.File, id, connector, fb uint32, mode modeInfo) error {
	list := []uint32{connector}
	return ioctl(f, reqSetCrtc, &crtc{connectors: address(&list[0]), nConnectors: 1, id: id, fb: fb, modeValid: 1, mode: mode})
}

// address is a pointer as the kernel's structs hold it. What it points to must
// not move: slices made with make do not, being on the heap.
func address[T any](p *T) uint64 {
	keep = p
	return uint64(uintptr(unsafe.Pointer(p)))
}

// keep makes what address was given escape to the heap.
var keep any
