package edid

import "encoding/binary"

var header = [8]byte{0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00}

// sRGB's primaries and white point, as bytes 25 to 34 pack them.
var chromaticity = [10]byte{0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54}

// modelYear is a constant so that the same parameters give the same bytes.
const modelYear = 2026

// Descriptor tags.
const (
	tagSerial = 0xff
	tagRange  = 0xfd
	tagName   = 0xfc
	tagDummy  = 0x10
)

// base builds block 0 with the detailed timing dtd. pref is the preferred mode:
// dtd, or what the extension has.
func base(p Params, dtd, pref timing, extensions byte) []byte {
	b := make([]byte, BlockSize, 2*BlockSize)
	copy(b, header[:])
	m := p.Manufacturer
	binary.BigEndian.PutUint16(b[8:], uint16(m[0]-'@')<<10|uint16(m[1]-'@')<<5|uint16(m[2]-'@'))
	binary.LittleEndian.PutUint16(b[10:], p.Product)
	binary.LittleEndian.PutUint32(b[12:], p.Serial)
	b[16], b[17] = 0xff, modelYear-1990 // 0xff: the next byte is the model year
	b[18], b[19] = 1, 4
	b[20] = 0xa5 // digital, 8 bits per colour, DisplayPort
	b[21], b[22] = centimetres(p.WidthMM, p.HeightMM)
	b[23] = 120  // gamma 2.2
	b[24] = 0x05 // sRGB is the default; continuous frequency
	if extensions == 0 {
		b[24] |= 0x02 // the first detailed timing is the native mode
	}
	copy(b[25:], chromaticity[:])

	r := rangeOf(dtd, pref)
	for _, e := range established {
		// 640x480 is the mode that every monitor must have.
		if e.w > 640 && (e.w > pref.hActive || e.h > pref.vActive) {
			continue
		}
		b[e.at] |= e.bit
		r.add(e.lineHz, e.clock10k)
	}
	at := 38
	for _, s := range standards {
		same := s.w == pref.hActive && s.h == pref.vActive
		if same || s.w > pref.hActive || s.h > pref.vActive || at == 54 {
			continue
		}
		b[at], b[at+1] = byte(s.w/8-31), s.aspect<<6 // refresh rate 60 + 0
		r.add(s.lineHz, s.clock10k)
		at += 2
	}
	for ; at < 54; at++ {
		b[at] = 1 // unused
	}
	detailed(b[54:72], dtd, p.WidthMM, p.HeightMM)
	r.put(b[72:90])
	text(b[90:108], tagName, p.Name)
	if p.SerialText != "" {
		text(b[108:126], tagSerial, p.SerialText)
	} else {
		b[111] = tagDummy
	}
	b[126] = extensions
	seal(b)
	return b
}

// centimetres returns bytes 21 and 22; both are 0, unknown, if one is too large.
func centimetres(w, h uint32) (byte, byte) {
	if w >= 2555 || h >= 2555 {
		return 0, 0
	}
	return byte(max((w+5)/10, 1)), byte(max((h+5)/10, 1))
}

// detailed fills an 18-byte detailed timing descriptor.
func detailed(d []byte, t timing, wmm, hmm uint32) {
	if wmm > 0xfff || hmm > 0xfff {
		wmm, hmm = 0, 0
	}
	binary.LittleEndian.PutUint16(d, uint16(t.clock10k))
	d[2], d[3], d[4] = byte(t.hActive), byte(t.hBlank), byte(t.hActive>>8<<4|t.hBlank>>8)
	d[5], d[6], d[7] = byte(t.vActive), byte(t.vBlank), byte(t.vActive>>8<<4|t.vBlank>>8)
	d[8], d[9] = byte(t.hFront), byte(t.hSync)
	d[10] = byte(t.vFront&15<<4 | t.vSync&15)
	d[11] = byte(t.hFront>>8<<6 | t.hSync>>8<<4 | t.vFront>>4<<2 | t.vSync>>4)
	d[12], d[13], d[14] = byte(wmm), byte(hmm), byte(wmm>>8<<4|hmm>>8)
	d[17] = 0x18 // digital separate sync
	if t.vSyncPositive {
		d[17] |= 1 << 2
	}
	if t.hSyncPositive {
		d[17] |= 1 << 1
	}
}

// text fills a text descriptor: s (13 characters at most), a line feed after a
// shorter text, then spaces.
func text(d []byte, tag byte, s string) {
	d[3] = tag
	t := d[5:18]
	n := copy(t, s)
	if n < len(t) {
		t[n] = '\n'
		n++
	}
	for ; n < len(t); n++ {
		t[n] = ' '
	}
}

// limits are what the range limits descriptor tells.
type limits struct {
	minV, maxV uint64 // hertz
	minH, maxH uint64 // hertz
	clock10k   uint32 // highest pixel clock, units of 10 kHz
	pref       timing // the preferred mode
}

// rangeOf starts with 50 to 75 Hz, so that modes of 60 Hz have some room, and
// the detailed timings.
func rangeOf(dtd, pref timing) *limits {
	r := &limits{minV: 50, maxV: 75, minH: 30_000, pref: pref}
	for _, t := range [...]timing{dtd, pref} {
		r.minV = min(r.minV, t.milliHz()/1000)
		r.maxV = max(r.maxV, (t.milliHz()+999)/1000)
		r.add(t.lineHz(), t.clock10k)
	}
	return r
}

func (r *limits) add(lineHz uint64, clock10k uint32) {
	r.minH = min(r.minH, lineHz)
	r.maxH = max(r.maxH, lineHz)
	r.clock10k = max(r.clock10k, clock10k)
}

// put fills the display range limits descriptor, with CVT's part: a guest may
// set any mode in the range with CVT's formula.
func (r *limits) put(d []byte) {
	d[3] = tagRange
	minV, maxV := max(r.minV, 1), min(r.maxV, 510)
	minH, maxH := max(r.minH/1000, 1), min((r.maxH+999)/1000, 510)
	put := func(at int, lo, hi uint64, shift uint) {
		if lo > 255 {
			lo -= 255
			d[4] |= 1 << shift
		}
		if hi > 255 {
			hi -= 255
			d[4] |= 2 << shift
		}
		d[at], d[at+1] = byte(lo), byte(hi)
	}
	put(5, minV, maxV, 0)
	put(7, minH, maxH, 2)
	tens := min((r.clock10k+999)/1000, 255) // 10 MHz, rounded up
	d[9] = byte(tens)
	d[10] = 0x04 // CVT
	d[11] = 0x11 // CVT 1.1
	// How much less than d[9] the clock is, in 0.25 MHz, and the widest line in
	// 8 pixels (10 bits; 0 is no limit).
	var less uint32
	if tens*1000 > r.clock10k {
		less = min((tens*1000-r.clock10k)/25, 63)
	}
	wide := (r.pref.hActive + 7) / 8
	if wide > 0x3ff {
		wide = 0
	}
	d[12] = byte(less<<2 | wide>>8)
	d[13] = byte(wide)
	d[14] = 0xf8                                                // all five aspect ratios
	d[15] = cvtAspect(r.pref.hActive, r.pref.vActive)<<5 | 0x18 // standard and reduced blanking
	d[16] = 0xf0                                                // shrinks and stretches both ways
	d[17] = byte(min((r.pref.milliHz()+500)/1000, 255))
}

// cvtAspect is CVT's number of the preferred ratio; others count as 4:3.
func cvtAspect(w, h uint32) byte {
	for code, r := range [][2]uint32{{4, 3}, {16, 9}, {16, 10}, {5, 4}, {15, 9}} {
		if w*r[1] == h*r[0] {
			return byte(code)
		}
	}
	return 0
}
