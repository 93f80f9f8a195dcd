package shmfallback

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// Convert says how a pixel of four bytes changes on its way: its bytes are put
// in the order B, G, R, A of XRGB8888 and ARGB8888, and alpha may be set. The
// zero value copies bytes as they are, whatever their format.
type Convert uint8

// The orders that the eight classic formats have in memory, and the alpha bit.
const (
	ConvertNone  Convert = 0      // B, G, R, A: as it is
	ConvertRGBA  Convert = 1      // memory has R, G, B, A
	ConvertARGB  Convert = 2      // memory has A, R, G, B
	ConvertABGR  Convert = 3      // memory has A, B, G, R
	ConvertAlpha Convert = 1 << 2 // set alpha to 255 afterwards

	convertOrder = 3
)

// ConvertFor returns the conversion from one of the eight classic formats to
// XRGB8888 or ARGB8888, or ConvertNone where from and to are the same. An opaque
// format becomes ARGB8888 with alpha 255; towards XRGB8888 the fourth byte is
// whatever it was, because nobody reads it. Anything else is [ErrInvalid].
func ConvertFor(from, to dmabuf.Fourcc) (Convert, error) {
	if from == to {
		return ConvertNone, nil
	}
	var c Convert
	switch from.Opaque() {
	case dmabuf.XRGB8888:
		c = ConvertNone
	case dmabuf.XBGR8888:
		c = ConvertRGBA
	case dmabuf.BGRX8888:
		c = ConvertARGB
	case dmabuf.RGBX8888:
		c = ConvertABGR
	default:
		return 0, fmt.Errorf("shmfallback: convert: %w: from %v", ErrInvalid, from)
	}
	switch to {
	case dmabuf.XRGB8888:
		return c, nil
	case dmabuf.ARGB8888:
		if !from.HasAlpha() {
			c |= ConvertAlpha
		}
		return c, nil
	}
	return 0, fmt.Errorf("shmfallback: convert: %w: to %v, want XRGB8888 or ARGB8888", ErrInvalid, to)
}

// pixels converts min(len(dst), len(src))/4 pixels, two at a time.
func (c Convert) pixels(dst, src []byte) {
	n := min(len(dst), len(src)) &^ 3
	dst, src = dst[:n], src[:n]
	var alpha uint64
	if c&ConvertAlpha != 0 {
		alpha = 0xff000000_ff000000
	}
	for len(src) >= 8 && len(dst) >= 8 {
		v := c.pair(binary.LittleEndian.Uint64(src))
		binary.LittleEndian.PutUint64(dst, v|alpha)
		dst, src = dst[8:], src[8:]
	}
	if len(src) >= 4 && len(dst) >= 4 {
		v := c.pair(uint64(binary.LittleEndian.Uint32(src)))
		binary.LittleEndian.PutUint32(dst, uint32(v|alpha))
	}
}

// pair puts the bytes of two pixels in order.
func (c Convert) pair(v uint64) uint64 {
	const low = 0x000000ff_000000ff
	switch c & convertOrder {
	case ConvertRGBA:
		return v&^(low|low<<16) | v&low<<16 | v>>16&low
	case ConvertARGB:
		return bits.RotateLeft64(bits.ReverseBytes64(v), 32)
	case ConvertABGR:
		return v>>8&^(low<<24) | v&low<<24
	}
	return v
}
