package shmfallback

import (
	"fmt"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// Copy describes one copy of a rectangle of pixels, from memory in pieces to
// memory in one piece.
//
// The source side is that of TRANSFER_TO_HOST_2D (virtio spec 5.7.6.8): SrcOffset
// is where the rectangle's first pixel is, counted over the segments as if they
// were one, and the next row begins SrcStride bytes behind, which for that
// command is the resource's width in bytes.
type Copy struct {
	Dst        []byte
	DstStride  uint32 // bytes from row to row
	DstX, DstY uint32 // pixels: where the rectangle goes

	Src       [][]byte // not kept
	SrcOffset uint64   // bytes
	SrcStride uint32   // bytes from row to row; at least a row's bytes unless H is 1

	W, H          uint32  // pixels
	BytesPerPixel uint32  // of both sides, 1 to 16; 4 if Convert is not ConvertNone
	Convert       Convert // change of every pixel
	Flip          bool    // the first source row becomes the last of the rectangle
}

// maxBytesPerPixel bounds sums so that none can overflow 64 bits.
const maxBytesPerPixel = 16

func (c *Copy) rowBytes() uint64 { return uint64(c.W) * uint64(c.BytesPerPixel) }

// check validates both sides and finds the first source byte.
func (c *Copy) check() (cursor, error) {
	const limit = dmabuf.MaxDimension
	if c.W > limit || c.H > limit || c.DstX > limit || c.DstY > limit {
		return cursor{}, fmt.Errorf("%w: rectangle %v, limit %d", ErrInvalid, Rect{c.DstX, c.DstY, c.W, c.H}, limit)
	}
	if c.BytesPerPixel == 0 || c.BytesPerPixel > maxBytesPerPixel {
		return cursor{}, fmt.Errorf("%w: %d bytes per pixel, limit %d", ErrInvalid, c.BytesPerPixel, maxBytesPerPixel)
	}
	if c.Convert != ConvertNone && c.BytesPerPixel != 4 {
		return cursor{}, fmt.Errorf("%w: conversion of pixels of %d bytes, want 4", ErrInvalid, c.BytesPerPixel)
	}
	row := c.rowBytes()
	if c.H > 1 && uint64(c.SrcStride) < row {
		return cursor{}, fmt.Errorf("%w: source stride %d bytes, a row has %d", ErrInvalid, c.SrcStride, row)
	}
	left := uint64(c.DstX) * uint64(c.BytesPerPixel)
	if left+row > uint64(c.DstStride) {
		return cursor{}, fmt.Errorf("%w: row ends at byte %d of the destination, stride %d", ErrBounds, left+row, c.DstStride)
	}
	end := uint64(c.DstY+c.H-1)*uint64(c.DstStride) + left + row
	if end > uint64(len(c.Dst)) {
		return cursor{}, fmt.Errorf("%w: rectangle %v with stride %d ends at byte %d of the destination, size %d",
			ErrBounds, Rect{c.DstX, c.DstY, c.W, c.H}, c.DstStride, end, len(c.Dst))
	}
	need := uint64(c.H-1)*uint64(c.SrcStride) + row
	cur, ok := locate(c.Src, c.SrcOffset, need)
	if !ok {
		return cursor{}, fmt.Errorf("%w: %d bytes from offset %d of the source, size %d", ErrBounds, need, c.SrcOffset, total(c.Src))
	}
	return cur, nil
}

// run copies, adding to *done after each row.
func (c *Copy) run(cur *cursor, done *uint64) {
	row := c.rowBytes()
	step := int64(c.DstStride)
	at := int64(c.DstY)*step + int64(c.DstX)*int64(c.BytesPerPixel)
	if !c.Flip && c.Convert == ConvertNone && row == uint64(c.DstStride) && (c.H == 1 || row == uint64(c.SrcStride)) {
		n := row * uint64(c.H) // no gap on either side: all rows are one
		cur.copy(c.Dst[at : at+int64(n)])
		*done += n
		return
	}
	if c.Flip {
		at += int64(c.H-1) * step
		step = -step
	}
	gap := uint64(c.SrcStride) - row
	for y := range c.H {
		if y > 0 {
			cur.skip(gap)
			at += step
		}
		dst := c.Dst[at : at+int64(row)]
		if c.Convert == ConvertNone {
			cur.copy(dst)
		} else {
			cur.convert(dst, c.Convert)
		}
		*done += row
	}
}

// cursor is a place in a list of segments. Its methods stay inside the list
// because check measured it.
type cursor struct {
	segs [][]byte // the current one first
	off  int      // into segs[0]
}

// locate returns the place off bytes into segs if need bytes follow it.
func locate(segs [][]byte, off, need uint64) (cursor, bool) {
	for i, s := range segs {
		n := uint64(len(s))
		if off >= n {
			off -= n
			continue
		}
		cur := cursor{segs[i:], int(off)}
		have := n - off
		for _, s := range segs[i+1:] {
			if have >= need {
				break
			}
			have += uint64(len(s))
		}
		return cur, have >= need
	}
	return cursor{}, false
}

func total(segs [][]byte) uint64 {
	var n uint64
	for _, s := range segs {
		n += uint64(len(s))
	}
	return n
}

func (c *cursor) skip(n uint64) {
	for n > 0 {
		left := uint64(len(c.segs[0]) - c.off)
		if n < left {
			c.off += int(n)
			return
		}
		n -= left
		c.next()
	}
}

func (c *cursor) next() {
	c.segs = c.segs[1:]
	c.off = 0
}

// copy fills dst.
func (c *cursor) copy(dst []byte) {
	for len(dst) > 0 {
		n := copy(dst, c.segs[0][c.off:])
		dst = dst[n:]
		c.off += n
		if c.off == len(c.segs[0]) && len(dst) > 0 {
			c.next()
		}
	}
}

// convert fills dst with converted pixels; a pixel may lie in two segments or more.
func (c *cursor) convert(dst []byte, conv Convert) {
	for len(dst) > 0 {
		src := c.segs[0][c.off:]
		if n := min(len(src), len(dst)) &^ 3; n > 0 {
			conv.pixels(dst[:n], src[:n])
			dst = dst[n:]
			c.off += n
			continue
		}
		var pixel [4]byte
		c.copy(pixel[:])
		conv.pixels(dst[:4], pixel[:])
		dst = dst[4:]
	}
}
