package link

import (
	"bytes"
	"fmt"

	"github.com/klauspost/compress/s2"
)

const (
	updateSize = 5*4 + 4 + 4

	// MaxRaw is the most bytes of pixels in one Update frame, before encoding.
	MaxRaw = MaxPayload - updateSize
	// MaxPixelBytes is the largest size of a pixel.
	MaxPixelBytes = 16
	// MaxDim is the largest coordinate in pixels.
	MaxDim = 1 << 16

	// smallest is the size in bytes from which compressing is tried.
	smallest = 256
)

// Encodings of pixels.
const (
	EncodingRaw uint8 = iota
	EncodingS2        // an S2 block (github.com/klauspost/compress/s2; Snappy blocks are S2, too)
	// EncodingSolid is one pixel, which all are like. S2's decoder is slow there: it
	// repeats a pixel byte by byte.
	EncodingSolid

	encodingEnd
)

// Update is an Update frame: new pixels in a rectangle of a buffer.
type Update struct {
	Buffer        uint32 // the client's id of the wl_buffer
	X, Y, W, H    uint32 // pixels
	Encoding      uint8
	BytesPerPixel uint8
	Raw           uint32 // bytes of the pixels before encoding: W*H*BytesPerPixel
	Pixels        []byte // as they are encoded; packed rows
}

// Decode reads the payload of an Update frame and checks all of it but the encoding
// of the pixels. Pixels lies in p.
func (u *Update) Decode(p []byte) error {
	*u = Update{}
	if len(p) <= updateSize {
		return protocol("Update of %d bytes, need %d", len(p), updateSize+1)
	}
	v := Update{
		Buffer: le.Uint32(p), X: le.Uint32(p[4:]), Y: le.Uint32(p[8:]), W: le.Uint32(p[12:]), H: le.Uint32(p[16:]),
		Encoding: p[20], BytesPerPixel: p[21], Raw: le.Uint32(p[24:]), Pixels: p[updateSize:],
	}
	if err := v.check(); err != nil {
		return protocol("%v", err)
	}
	if z := le.Uint16(p[22:]); z != 0 {
		return protocol("Update: zero field is %#x", z)
	}
	if v.Encoding == EncodingRaw && len(v.Pixels) != int(v.Raw) {
		return protocol("Update: %d bytes of raw pixels, must be %d", len(v.Pixels), v.Raw)
	}
	if v.Encoding != EncodingRaw && len(v.Pixels) >= int(v.Raw) {
		return protocol("Update: %d bytes of pixels compressed to %d", v.Raw, len(v.Pixels))
	}
	if v.Encoding == EncodingSolid && len(v.Pixels) != int(v.BytesPerPixel) {
		return protocol("Update: solid, with %d bytes, must be one pixel of %d", len(v.Pixels), v.BytesPerPixel)
	}
	*u = v
	return nil
}

func (u *Update) check() error {
	if u.W == 0 || u.H == 0 || u.X > MaxDim || u.Y > MaxDim || u.W > MaxDim || u.H > MaxDim {
		return fmt.Errorf("Update: rectangle %d,%d %dx%d, limit %d", u.X, u.Y, u.W, u.H, MaxDim)
	}
	if u.Encoding >= encodingEnd {
		return fmt.Errorf("Update: encoding %d, known are 0 to %d", u.Encoding, encodingEnd-1)
	}
	if u.BytesPerPixel == 0 || u.BytesPerPixel > MaxPixelBytes {
		return fmt.Errorf("Update: %d bytes per pixel, must be 1 to %d", u.BytesPerPixel, MaxPixelBytes)
	}
	want := uint64(u.W) * uint64(u.H) * uint64(u.BytesPerPixel)
	if want > MaxRaw || uint64(u.Raw) != want {
		return fmt.Errorf("Update: raw is %d bytes, %dx%d with %d bytes per pixel are %d, limit %d",
			u.Raw, u.W, u.H, u.BytesPerPixel, want, MaxRaw)
	}
	return nil
}

// Append encodes the frame's payload with the pixels as they are.
func (u *Update) Append(dst []byte) []byte { return append(u.appendHead(dst), u.Pixels...) }

func (u *Update) appendHead(dst []byte) []byte {
	for _, v := range [...]uint32{u.Buffer, u.X, u.Y, u.W, u.H} {
		dst = le.AppendUint32(dst, v)
	}
	dst = append(dst, u.Encoding, u.BytesPerPixel, 0, 0)
	return le.AppendUint32(dst, u.Raw)
}

// Unpack returns the pixels of a decoded update: Raw bytes of packed rows, in u.Pixels
// or in dst, which is made anew if it is too small.
func (u *Update) Unpack(dst []byte) ([]byte, error) {
	if u.Encoding == EncodingRaw {
		return u.Pixels, nil
	}
	if u.Encoding == EncodingSolid {
		return u.fill(dst), nil
	}
	n, err := s2.DecodedLen(u.Pixels)
	if err != nil || n != int(u.Raw) {
		return nil, protocol("Update: compressed pixels are %d bytes, must be %d (%v)", n, u.Raw, err)
	}
	if cap(dst) < n {
		dst = make([]byte, MaxRaw)
	}
	out, err := s2.Decode(dst[:n], u.Pixels)
	if err != nil {
		return nil, protocol("Update: compressed pixels: %v", err)
	}
	return out, nil
}

// fill repeats the one pixel.
func (u *Update) fill(dst []byte) []byte {
	if cap(dst) < int(u.Raw) {
		dst = make([]byte, MaxRaw)
	}
	dst = dst[:u.Raw]
	for n := copy(dst, u.Pixels); n < len(dst); {
		n += copy(dst[n:], dst[:n])
	}
	return dst
}

// packer makes the pixels of updates: packed, and compressed where that pays.
type packer struct {
	packed   []byte // rows without the gaps of the stride
	squeezed []byte
	bad      int // rectangles in a row that did not get smaller
	skip     int // rectangles that are not tried
	rest     int // how many were not tried the last time
}

// pack returns the pixels at the start of pix, of bpp bytes each, whose h rows of row
// bytes are stride bytes apart, and their encoding. The result is valid until the next
// call.
func (k *packer) pack(pix []byte, bpp, row, h, stride int, compress bool) ([]byte, uint8) {
	raw := row * h
	if row == stride || h == 1 {
		pix = pix[:raw]
	} else {
		if cap(k.packed) < raw {
			k.packed = make([]byte, MaxRaw)
		}
		to := k.packed[:raw]
		for y := range h {
			copy(to[y*row:(y+1)*row], pix[y*stride:])
		}
		pix = to
	}
	if !compress || raw < smallest {
		return pix, EncodingRaw
	}
	if bytes.Equal(pix[bpp:], pix[:raw-bpp]) {
		return pix[:bpp], EncodingSolid
	}
	if k.skip > 0 {
		k.skip--
		return pix, EncodingRaw
	}
	if k.squeezed == nil {
		k.squeezed = make([]byte, s2.MaxEncodedLen(MaxRaw))
	}
	// It pays when an eighth is saved. What did not get smaller four times, a film
	// for example, is tried less and less often.
	if out := s2.Encode(k.squeezed, pix); len(out) < raw-raw/8 {
		k.bad, k.rest = 0, 0
		return out, EncodingS2
	}
	if k.bad++; k.bad >= 4 {
		k.rest = min(2*k.rest+15, 63)
		k.skip = k.rest
	}
	return pix, EncodingRaw
}
