package main

import (
	"encoding/binary"
	"fmt"
	"image"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/testing/blobguest/scene"
	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

// The kinds of buffers that can be shown.
const (
	kindDumb    = "dumb"         // DRM_IOCTL_MODE_CREATE_DUMB: a classic 2D resource, or a guest blob where there is no 3D
	kindGuest   = "guest"        // VIRTGPU_BLOB_MEM_GUEST, packed rows
	kindOffset  = "guest-offset" // the same with padded rows, not at the start
	kindHost    = "host3d"       // VIRTGPU_BLOB_MEM_HOST3D with blob_id 0: memory of the broker's
	kindTexture = "host3d-virgl" // the same, a texture that virgl made
	kindShared  = "host3d-guest" // VIRTGPU_BLOB_MEM_HOST3D_GUEST, a texture of virgl's with guest pages
)

// VIRTGPU_BLOB_MEM_* and VIRTGPU_BLOB_FLAG_*.
const (
	memGuest       = 1
	memHost3D      = 2
	memHost3DGuest = 3
	flagMappable   = 1
	flagShareable  = 2
)

// buffer is a picture that the card can show.
type buffer struct {
	kind           string
	handle, res    uint32
	size           uint64
	stride, offset int // bytes
	mem            []byte
	blobID         uint32
}

const page = 4096

// pages rounds up to whole pages.
func pages(n int) uint64 { return uint64(n+page-1) &^ (page - 1) }

func (c *card) newBuffer(kind string, id uint32) (*buffer, error) {
	b := &buffer{kind: kind, stride: c.w * 4, blobID: id}
	b.size = pages(b.stride * c.h)
	switch kind {
	case kindDumb:
		return b, c.dumb(b)
	case kindGuest:
		return b, c.blob(b, memGuest, flagMappable|flagShareable, 0, nil)
	case kindOffset:
		b.stride, b.offset = b.stride+320, page+64
		b.size = pages(b.offset + b.stride*c.h)
		return b, c.blob(b, memGuest, flagMappable|flagShareable, 0, nil)
	case kindHost:
		return b, c.blob(b, memHost3D, flagMappable|flagShareable, 0, nil)
	case kindTexture:
		return b, c.blob(b, memHost3D, flagShareable, uint64(id), c.texture(id))
	case kindShared:
		return b, c.blob(b, memHost3DGuest, flagMappable|flagShareable, uint64(id), c.texture(id))
	}
	return nil, fmt.Errorf("unknown kind of buffer %q", kind)
}

func (c *card) dumb(b *buffer) error {
	d := createDumb{width: uint32(c.w), height: uint32(c.h), bpp: 32}
	if err := ioctl(c.f, reqCreateDumb, &d); err != nil {
		return err
	}
	b.handle, b.stride, b.size = d.handle, int(d.pitch), d.size
	m := mapOffset{handle: d.handle}
	if err := ioctl(c.f, reqMapDumb, &m); err != nil {
		return err
	}
	return c.mmap(b, m.offset)
}

func (c *card) mmap(b *buffer, offset uint64) (err error) {
	b.mem, err = unix.Mmap(int(c.f.Fd()), int64(offset), int(b.size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mmap %d bytes of a %s buffer: %w", b.size, b.kind, err)
	}
	return nil
}

// blob makes a blob resource, mapped if it can be.
func (c *card) blob(b *buffer, mem, flags uint32, id uint64, cmd []byte) error {
	arg := createBlob{mem: mem, flags: flags, size: b.size, blobID: id, cmdSize: uint32(len(cmd))}
	if len(cmd) > 0 {
		arg.cmd = address(&cmd[0])
	}
	if err := ioctl(c.f, reqVirtNewBlob, &arg); err != nil {
		return fmt.Errorf("create a %s blob of %d bytes: %w", b.kind, b.size, err)
	}
	b.handle, b.res = arg.handle, arg.res
	if flags&flagMappable == 0 {
		return nil
	}
	m := virtgpuMap{handle: arg.handle}
	if err := ioctl(c.f, reqVirtMap, &m); err != nil {
		return err
	}
	return c.mmap(b, m.offset)
}

// texture is the command stream that makes what a blob of virgl's is made of.
func (c *card) texture(id uint32) []byte {
	var s virglcmd.Builder
	s.PipeResourceCreate(virglcmd.BlobResource{
		Target: virglcmd.TargetTexture2D, Format: virglcmd.FormatB8G8R8X8,
		Bind:  virglcmd.BindRenderTarget | virglcmd.BindSamplerView | virglcmd.BindScanout,
		Width: uint32(c.w), Height: uint32(c.h), BlobID: id,
	})
	return s.Bytes()
}

// draw draws a rectangle of frame n.
func (c *card) draw(b *buffer, r image.Rectangle, n int) error {
	if b.mem == nil {
		return c.upload(b, r, n)
	}
	for y := r.Min.Y; y < r.Max.Y; y++ {
		row(b.mem[b.offset+y*b.stride:], r, y, n)
	}
	if b.kind != kindShared {
		return nil
	}
	t := transfer{handle: b.handle, x: uint32(r.Min.X), y: uint32(r.Min.Y), w: uint32(r.Dx()), h: uint32(r.Dy()), d: 1,
		offset: uint32(r.Min.Y*b.stride + r.Min.X*4), stride: uint32(b.stride)}
	if err := ioctl(c.f, reqVirtToHost, &t); err != nil {
		return err
	}
	return ioctl(c.f, reqVirtWait, &wait3D{handle: b.handle})
}

// row draws the pixels of r in row y, where dst is the row's start.
func row(dst []byte, r image.Rectangle, y, n int) {
	for x := r.Min.X; x < r.Max.X; x++ {
		p := scene.At(x, y, n)
		binary.LittleEndian.PutUint32(dst[x*4:], uint32(p.B)|uint32(p.G)<<8|uint32(p.R)<<16|0xff000000)
	}
}

// upload draws with the GPU: pixels inside the command stream, some rows at a time.
func (c *card) upload(b *buffer, r image.Rectangle, n int) error {
	const rows = 16
	line := make([]byte, c.w*4)
	for y := r.Min.Y; y < r.Max.Y; y += rows {
		part := image.Rect(r.Min.X, y, r.Max.X, min(y+rows, r.Max.Y))
		var data []byte
		for py := part.Min.Y; py < part.Max.Y; py++ {
			row(line, r, py, n)
			data = append(data, line[r.Min.X*4:r.Max.X*4]...)
		}
		var s virglcmd.Builder
		s.InlineWrite(b.res, 0, virglcmd.Box{X: uint32(part.Min.X), Y: uint32(part.Min.Y), W: uint32(part.Dx()), H: uint32(part.Dy()), D: 1},
			uint32(part.Dx()*4), data)
		cmd, bos := s.Bytes(), []uint32{b.handle}
		arg := execBuffer{size: uint32(len(cmd)), command: address(&cmd[0]), bos: address(&bos[0]), nBOs: 1}
		if err := ioctl(c.f, reqVirtExec, &arg); err != nil {
			return err
		}
	}
	return ioctl(c.f, reqVirtWait, &wait3D{handle: b.handle})
}

func (c *card) free(b *buffer) error {
	if b.mem != nil {
		if err := unix.Munmap(b.mem); err != nil {
			return err
		}
	}
	const write = 1 // DRM_IOW
	return request(c.f, write, reqGemClose, &gemClose{handle: b.handle})
}
