package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"image"
)

var errXWD = errors.New("not a picture this reader knows")

// decodeXWD reads an X window dump of version 7 (X11/XWDFile.h) with 32 bits a
// pixel, as Xvfb writes to its framebuffer file.
func decodeXWD(body []byte) (image.Image, error) {
	const (
		version, format, fields = 7, 2, 25 // ZPixmap; header words
		colorEntry              = 12       // bytes of one colour map entry
	)
	if len(body) < 4*fields {
		return nil, fmt.Errorf("xwd header: %d bytes, want %d: %w", len(body), 4*fields, errXWD)
	}
	word := func(i int) int { return int(binary.BigEndian.Uint32(body[4*i:])) }
	headerSize, w, h := word(0), word(4), word(5)
	byteOrder, bits, stride, colors := word(7), word(11), word(12), word(19)
	if word(1) != version || word(2) != format || bits != 32 {
		return nil, fmt.Errorf("xwd version %d, format %d, %d bits a pixel: %w", word(1), word(2), bits, errXWD)
	}
	start := headerSize + colors*colorEntry
	if w <= 0 || h <= 0 || w > 1<<15 || h > 1<<15 || stride < 4*w || start < 0 || start+stride*h > len(body) {
		return nil, fmt.Errorf("xwd of %dx%d, stride %d, pixels at %d in %d bytes: %w", w, h, stride, start, len(body), errXWD)
	}
	r, g, b := 2, 1, 0 // bytes of a little-endian 0x00RRGGBB
	if byteOrder == 1 {
		r, g, b = 1, 2, 3
	}
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		src := body[start+y*stride:]
		dst := img.Pix[y*img.Stride:]
		for x := range w {
			dst[4*x], dst[4*x+1], dst[4*x+2], dst[4*x+3] = src[4*x+r], src[4*x+g], src[4*x+b], 0xff
		}
	}
	return img, nil
}
