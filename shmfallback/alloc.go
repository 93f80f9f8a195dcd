package shmfallback

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// StrideAlign is what row strides of [Alloc] are a multiple of, in bytes. wl_shm
// takes any stride, but the same pages may become a udmabuf that a GPU imports
// as a linear texture, and AMD's want 256 bytes there (Intel's 64).
const StrideAlign = 256

// Stride returns the row stride that Alloc gives a picture, in bytes.
func Stride(width, bytesPerPixel uint32) uint32 {
	return (width*bytesPerPixel + StrideAlign - 1) &^ (StrideAlign - 1)
}

// Alloc makes a buffer of shared memory, all zeros, with one reference, held by
// the caller. Mem maps the whole file for reading and writing until the last
// Release. The name shows in /proc and in leak reports.
//
// The file is a memfd whose size is sealed: no holder of the descriptor can
// make our mapping, or a compositor's, fault by shrinking it, and udmabuf
// insists on the seal. Its size is a multiple of the page size because udmabuf
// takes whole pages only. Pages are allocated when first written, so that a
// large buffer that is never drawn costs nothing.
//
// Errors: [ErrInvalid] for a size or format that is not possible (packed
// formats of known pixel size only), otherwise the system's.
func Alloc(width, height uint32, fourcc dmabuf.Fourcc, name string) (*dmabuf.Buffer, error) {
	bpp := fourcc.BytesPerPixel()
	if bpp == 0 || fourcc == dmabuf.NV12 {
		return nil, &OpError{"allocate", name, fmt.Errorf("%w: format %v has no single plane of known pixels", ErrInvalid, fourcc)}
	}
	if width == 0 || height == 0 || width > dmabuf.MaxDimension || height > dmabuf.MaxDimension {
		return nil, &OpError{"allocate", name, fmt.Errorf("%w: size %dx%d, limit %dx%d", ErrInvalid, width, height,
			dmabuf.MaxDimension, dmabuf.MaxDimension)}
	}
	stride := Stride(width, bpp)
	page := int64(os.Getpagesize())
	size := (int64(stride)*int64(height) + page - 1) / page * page
	fd, err := sealedMemfd(name, size)
	if err != nil {
		return nil, &OpError{"allocate", name, err}
	}
	mem, err := unix.Mmap(fd.Int(), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		_ = fd.Close()
		return nil, &OpError{"allocate", name, fmt.Errorf("map %d bytes: %w", size, err)}
	}
	return dmabuf.New(dmabuf.Desc{
		Kind: dmabuf.KindShm, Width: width, Height: height,
		Fourcc: fourcc, Modifier: dmabuf.ModLinear,
		Planes: []dmabuf.Plane{{FD: fd, Stride: stride}},
		Origin: "memfd",
		Mem:    mem,
		Free:   func() { _ = unix.Munmap(mem) },
	})
}

// mfdNoexecSeal is MFD_NOEXEC_SEAL (linux/memfd.h, Linux 6.3).
const mfdNoexecSeal = 0x8

// sealedMemfd makes a memfd of fixed size.
func sealedMemfd(name string, size int64) (*dmabuf.FD, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	raw, err := unix.MemfdCreate(name, flags|mfdNoexecSeal)
	if errors.Is(err, unix.EINVAL) { // a kernel before 6.3
		raw, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	fd := dmabuf.NewFD(raw, "memfd "+name)
	if err := unix.Ftruncate(raw, size); err != nil {
		_ = fd.Close()
		return nil, fmt.Errorf("size %d bytes: %w", size, err)
	}
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(raw), unix.F_ADD_SEALS, seals); err != nil {
		_ = fd.Close()
		return nil, fmt.Errorf("seal size: %w", err)
	}
	return fd, nil
}
