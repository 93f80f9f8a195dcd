// Package edid makes the EDID that a guest reads for a head: an EDID 1.4 base
// block and, where its preferred mode does not fit there (4096 pixels and more,
// or a pixel clock of 655.36 MHz and more), a DisplayID 1.3 extension.
//
// Sources: VESA E-EDID Release A2 (EDID 1.4), VESA DisplayID 1.3, VESA CVT 1.2.
package edid

import (
	"errors"
	"fmt"
)

// BlockSize is the size of a block, in bytes.
const BlockSize = 128

// ErrInvalid says that bytes are no EDID; the text names what is wrong.
var ErrInvalid = errors.New("invalid EDID")

// Limits that [Build] pulls its parameters into.
const (
	MinSize    = 64     // pixels, each way: Linux ignores smaller modes (drm_edid.c)
	MaxSize    = 16384  // pixels, each way
	MinMilliHz = 24000  // thousandths of a hertz
	MaxMilliHz = 480000 // thousandths of a hertz: MaxSize at it just fits a DisplayID clock
)

// Params describe the monitor that an EDID tells of. Build pulls numbers outside
// their limits to the nearest limit; nothing makes it fail.
type Params struct {
	Width, Height     uint32 // preferred mode, pixels, MinSize to MaxSize
	MilliHz           uint32 // its refresh rate in thousandths of a hertz; 0 means 60000
	WidthMM, HeightMM uint32 // picture size; 0 in either means a size that gives 96 dpi
	Manufacturer      string // three letters A to Z; empty means "GPB"
	Product           uint16
	Serial            uint32 // tells heads apart; 0 means none
	Name              string // at most 13 printable ASCII characters; empty means "gpubroker"
	SerialText        string // at most 13 printable ASCII characters; empty means none
}

// normal returns p with defaults filled in and limits applied.
func (p Params) normal() Params {
	p.Width = min(max(p.Width, MinSize), MaxSize)
	p.Height = min(max(p.Height, MinSize), MaxSize)
	if p.MilliHz == 0 {
		p.MilliHz = 60000
	}
	p.MilliHz = min(max(p.MilliHz, MinMilliHz), MaxMilliHz)
	if p.WidthMM == 0 || p.HeightMM == 0 {
		p.WidthMM, p.HeightMM = mm(p.Width), mm(p.Height)
	}
	p.Name, p.SerialText = printable(p.Name), printable(p.SerialText)
	if p.Name == "" {
		p.Name = "gpubroker"
	}
	if !letters(p.Manufacturer) {
		p.Manufacturer = "GPB"
	}
	return p
}

// mm is the length of n pixels at 96 dpi.
func mm(n uint32) uint32 { return max((n*254+480)/960, 1) }

// printable returns the first 13 printable ASCII characters of s.
func printable(s string) string {
	var out [13]byte
	n := 0
	for i := 0; i < len(s) && n < len(out); i++ {
		if s[i] >= ' ' && s[i] <= '~' {
			out[n] = s[i]
			n++
		}
	}
	return string(out[:n])
}

func letters(s string) bool {
	for i := range len(s) {
		if s[i] < 'A' || s[i] > 'Z' {
			return false
		}
	}
	return len(s) == 3
}

// Build returns the EDID: 128 bytes, or 256 where an extension carries the
// preferred mode.
func Build(p Params) []byte {
	p = p.normal()
	want := reducedBlanking(p.Width, p.Height, p.MilliHz)
	if want.fitsBase() {
		return base(p, want, want, 0)
	}
	b := base(p, fallback(p), want, 1)
	return append(b, displayID(p, want)...)
}

// fallback returns the timing of the base block where the preferred one does
// not fit: the same size at 60 Hz or, failing that, halved until it fits.
func fallback(p Params) timing {
	w, h, hz := p.Width, p.Height, min(p.MilliHz, 60000)
	t := reducedBlanking(w, h, hz)
	for !t.fitsBase() {
		w, h = max(w/2, 1), max(h/2, 1)
		t = reducedBlanking(w, h, hz)
	}
	return t
}

// Check reports whether b is an EDID in form: whole blocks, the header, as many
// extensions as it says, every block's checksum. The error wraps [ErrInvalid].
func Check(b []byte) error {
	if len(b) < BlockSize || len(b)%BlockSize != 0 {
		return fmt.Errorf("%w: length %d bytes, want a multiple of %d", ErrInvalid, len(b), BlockSize)
	}
	if [8]byte(b) != header {
		return fmt.Errorf("%w: header % x", ErrInvalid, b[:8])
	}
	if n := int(b[126]) + 1; n != len(b)/BlockSize {
		return fmt.Errorf("%w: %d extensions announced, length %d bytes", ErrInvalid, n-1, len(b))
	}
	for i := 0; i < len(b); i += BlockSize {
		if s := sum(b[i : i+BlockSize]); s != 0 {
			return fmt.Errorf("%w: checksum of block %d is off by %d", ErrInvalid, i/BlockSize, s)
		}
	}
	return nil
}

// Cut returns the EDID at the start of b without what follows it: as many blocks
// as its first one says. What is too short comes back as it is, for [Check].
func Cut(b []byte) []byte {
	if len(b) < BlockSize {
		return b
	}
	return b[:min(len(b), (int(b[126])+1)*BlockSize)]
}

func sum(b []byte) byte {
	var s byte
	for _, v := range b {
		s += v
	}
	return s
}

// seal makes the last byte of b its checksum.
func seal(b []byte) { b[len(b)-1] = -sum(b[:len(b)-1]) }
