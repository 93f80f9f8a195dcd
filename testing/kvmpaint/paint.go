//go:build amd64

package main

import (
	"fmt"
	"image"
	"image/color"

	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
	"github.com/gpubroker/gpubroker/shmfallback/kvmslot"
	"github.com/gpubroker/gpubroker/shmfallback/kvmslot/realmode"
)

// The picture. A real-mode segment has 64 KiB: rows of 512 bytes fit 128 times.
const (
	width  = 128
	height = 96
)

// Where the guest has its code and its picture.
const (
	codeAt    = 0x1000
	pictureAt = 0x10000
)

// at is what the guest paints.
func at(x, y int) color.NRGBA {
	return color.NRGBA{R: uint8(x + y), G: uint8(2 * y), B: uint8(2 * x), A: 255}
}

// program is the guest: 16-bit code that paints the picture and halts.
func program() []byte {
	p := []byte{
		0xb8, pictureAt >> 4 & 0xff, pictureAt >> 12, // mov ax, segment of the picture
		0x8e, 0xc0, // mov es, ax
		0x31, 0xff, // xor di, di
		0x31, 0xd2, // xor dx, dx     y
	}
	row := len(p)
	p = append(p, 0x31, 0xc9) // xor cx, cx     x
	pixel := len(p)
	p = append(p,
		0x88, 0xc8, // mov al, cl
		0x00, 0xc8, // add al, cl     blue 2x
		0x88, 0xd4, // mov ah, dl
		0x00, 0xd4, // add ah, dl     green 2y
		0xab,       // stosw
		0x88, 0xc8, // mov al, cl
		0x00, 0xd0, // add al, dl     red x+y
		0x30, 0xe4, // xor ah, ah
		0xab,                             // stosw
		0x41,                             // inc cx
		0x81, 0xf9, width&0xff, width>>8, // cmp cx, width
	)
	p = append(p, 0x75, byte(pixel-len(p)-2)) // jne pixel
	p = append(p, 0x42, 0x83, 0xfa, height)   // inc dx; cmp dx, height
	p = append(p, 0x75, byte(row-len(p)-2))   // jne row
	return append(p, 0xf4)                    // hlt
}

// paint boots a guest that paints into a shared-memory buffer, the caller's. Nobody
// copies: the guest's memory is the buffer.
func paint() (*dmabuf.Buffer, error) {
	m, err := realmode.New(codeAt)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	slots, err := kvmslot.New(m.FD(), kvmslot.Config{})
	if err != nil {
		return nil, err
	}
	code, err := shmfallback.Alloc(32, 32, dmabuf.XRGB8888, "guest code")
	if err != nil {
		return nil, err
	}
	defer code.Release()
	copy(code.Mem, program())
	picture, err := shmfallback.Alloc(width, height, dmabuf.XRGB8888, "guest picture")
	if err != nil {
		return nil, err
	}
	if err := boot(m, slots, code, picture); err != nil {
		picture.Release()
		return nil, err
	}
	return picture, nil
}

func boot(m *realmode.VM, slots *kvmslot.Slots, code, picture *dmabuf.Buffer) error {
	if stride := picture.Planes[0].Stride; stride != width*4 {
		return fmt.Errorf("stride %d, the guest's program has %d", stride, width*4)
	}
	if _, err := slots.Map(code, codeAt, true); err != nil {
		return err
	}
	if _, err := slots.Map(picture, pictureAt, true); err != nil {
		return err
	}
	if err := m.Run(); err != nil {
		_ = slots.Close()
		return err
	}
	return slots.Close()
}

// imageOf copies a buffer's picture, for files and comparisons.
func imageOf(b *dmabuf.Buffer) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, int(b.Width), int(b.Height)))
	for y := range int(b.Height) {
		for x := range int(b.Width) {
			p := b.Mem[y*int(b.Planes[0].Stride)+4*x:]
			img.SetNRGBA(x, y, color.NRGBA{R: p[2], G: p[1], B: p[0], A: 255})
		}
	}
	return img
}
