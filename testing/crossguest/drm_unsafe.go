//lint:file-ignore U1000 the structs are the kernel's, with the fields that nobody here needs

package main

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Structs of the kernel's virtgpu_drm.h.
type getParam struct{ param, value uint64 }

type getCaps struct {
	id, version uint32
	addr        uint64
	size, pad   uint32
}

type contextParam struct{ param, value uint64 }

type contextInit struct {
	n, pad uint32
	params uint64
}

type createBlob struct {
	mem, flags, handle, res uint32
	size                    uint64
	pad, cmdSize            uint32
	cmd, blobID             uint64
}

type mapBO struct {
	offset      uint64
	handle, pad uint32
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

type wait3D struct{ handle, flags uint32 }

const (
	reqMap         = 0x41
	reqExec        = 0x42
	reqGetParam    = 0x43
	reqWait        = 0x48
	reqGetCaps     = 0x49
	reqCreateBlob  = 0x4a
	reqContextInit = 0x4b
	execRing       = 4 // VIRTGPU_EXECBUF_RING_IDX
	readWrite      = 3
	writeOnly      = 1
)

// drm is an open render node.
type drm struct{ f *os.File }

func ioctl[T any](d drm, dir, nr uintptr, arg *T) error {
	req := dir<<30 | unsafe.Sizeof(*arg)<<16 | 'd'<<8 | nr
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, d.f.Fd(), req, uintptr(unsafe.Pointer(arg)))
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR && errno != unix.EAGAIN {
			return fmt.Errorf("drm ioctl %#x: %w", nr, errno)
		}
	}
}

// param asks VIRTGPU_GETPARAM.
func (d drm) param(n uint64) (int32, error) {
	var v int32
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&v)
	err := ioctl(d, readWrite, reqGetParam, &getParam{n, uint64(uintptr(unsafe.Pointer(&v)))})
	return v, err
}

func (d drm) caps(id uint32, dst []byte) error {
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&dst[0])
	return ioctl(d, writeOnly, reqGetCaps, &getCaps{id: id, addr: uint64(uintptr(unsafe.Pointer(&dst[0]))), size: uint32(len(dst))})
}

func (d drm) contextInit(params ...contextParam) error {
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&params[0])
	return ioctl(d, readWrite, reqContextInit, &contextInit{n: uint32(len(params)), params: uint64(uintptr(unsafe.Pointer(&params[0])))})
}

// exec submits commands; ring < 0: without one.
func (d drm) exec(cmd []byte, ring int, bos ...uint32) error {
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&cmd[0])
	e := execBuffer{size: uint32(len(cmd)), command: uint64(uintptr(unsafe.Pointer(&cmd[0]))), nBOs: uint32(len(bos)), fence: -1}
	if ring >= 0 {
		e.flags, e.ring = execRing, uint32(ring)
	}
	if len(bos) > 0 {
		pin.Pin(&bos[0])
		e.bos = uint64(uintptr(unsafe.Pointer(&bos[0])))
	}
	return ioctl(d, readWrite, reqExec, &e)
}

// blob makes a blob and maps it.
func (d drm) blob(mem uint32, size int, id uint64) (b createBlob, p []byte, err error) {
	b = createBlob{mem: mem, flags: 1, size: uint64(size), blobID: id}
	if err = ioctl(d, readWrite, reqCreateBlob, &b); err != nil {
		return b, nil, err
	}
	m := mapBO{handle: b.handle}
	if err = ioctl(d, readWrite, reqMap, &m); err != nil {
		return b, nil, err
	}
	p, err = unix.Mmap(int(d.f.Fd()), int64(m.offset), size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return b, p, err
}

func (d drm) wait(handle uint32) error { return ioctl(d, readWrite, reqWait, &wait3D{handle: handle}) }
