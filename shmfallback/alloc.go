package shmfallback

import (
	"fmt"

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
	size := dmabuf.PageAlign(int64(stride) * int64(height))
	fd, err := dmabuf.NewMemfd(name, size, unix.F_SEAL_SEAL)
	if err != nil {
		return nil, &OpError{"allocate", name, err}
	}
	return wrap(fd, size, stride, width, height, fourcc, name)
}

// Adopt makes the buffer of a file that Alloc made, in another process, for the same
// size and format: its pixels are there. It takes fd over.
func Adopt(fd *dmabuf.FD, width, height uint32, fourcc dmabuf.Fourcc, name string) (*dmabuf.Buffer, error) {
	stride := Stride(width, fourcc.BytesPerPixel())
	size := dmabuf.PageAlign(int64(stride) * int64(height))
	var st unix.Stat_t
	err := unix.Fstat(fd.Int(), &st)
	if seals, serr := dmabuf.Seals(fd); err == nil && (serr != nil || seals&unix.F_SEAL_SHRINK == 0 || st.Size != size || size == 0) {
		err = fmt.Errorf("%w: a file of %d bytes with seals %#x, want %d that cannot shrink", ErrInvalid, st.Size, seals, size)
	}
	if err != nil {
		_ = fd.Close()
		return nil, &OpError{"adopt", name, err}
	}
	return wrap(fd, size, stride, width, height, fourcc, name)
}

// wrap maps the file; it takes fd over.
func wrap(fd *dmabuf.FD, size int64, stride, width, height uint32, fourcc dmabuf.Fourcc, name string) (*dmabuf.Buffer, error) {
	mem, err := dmabuf.Map(fd, size, true)
	if err != nil {
		_ = fd.Close()
		return nil, &OpError{"allocate", name, err}
	}
	return dmabuf.New(dmabuf.Desc{
		Kind: dmabuf.KindShm, Width: width, Height: height,
		Fourcc: fourcc, Modifier: dmabuf.ModLinear,
		Planes: []dmabuf.Plane{{FD: fd, Stride: stride}},
		Origin: "memfd",
		Mem:    mem,
		Free:   func() { _ = dmabuf.Unmap(mem) },
	})
}
