package edid

import "encoding/binary"

// DisplayID 1.3 data block tags.
const (
	didProduct   = 0x00
	didParams    = 0x01
	didTimingI   = 0x03
	didInterface = 0x0f
)

// displayID builds an extension block that holds a DisplayID 1.3 section with
// the preferred timing.
func displayID(p Params, t timing) []byte {
	b := make([]byte, BlockSize)
	s := b[:1]
	b[0] = 0x70
	// Header: version, bytes of payload (known at the end), product type 3 (a
	// display on its own), no further sections.
	s = append(s, 0x13, 0, 3, 0)
	s = append(s, productBlock(p)...)
	s = append(s, paramsBlock(p, t)...)
	s = append(s, timingBlock(t)...)
	s = append(s, interfaceBlock()...)
	b[2] = byte(len(s) - 5)
	s = append(s, 0)
	seal(s[1:])
	seal(b)
	return b
}

func block(tag byte, payload ...byte) []byte {
	return append([]byte{tag, 0, byte(len(payload))}, payload...)
}

func productBlock(p Params) []byte {
	d := make([]byte, 12, 12+13)
	copy(d, p.Manufacturer) // DisplayID writes the three letters out
	binary.LittleEndian.PutUint16(d[3:], p.Product)
	binary.LittleEndian.PutUint32(d[5:], p.Serial)
	d[9], d[10] = 0xff, modelYear-2000
	d[11] = byte(len(p.Name))
	return block(didProduct, append(d, p.Name...)...)
}

func paramsBlock(p Params, t timing) []byte {
	d := make([]byte, 12)
	binary.LittleEndian.PutUint16(d, uint16(min(p.WidthMM*10, 0xffff))) // 0.1 mm
	binary.LittleEndian.PutUint16(d[2:], uint16(min(p.HeightMM*10, 0xffff)))
	binary.LittleEndian.PutUint16(d[4:], uint16(t.hActive))
	binary.LittleEndian.PutUint16(d[6:], uint16(t.vActive))
	d[9] = 120 // gamma 2.2
	d[10] = aspectByte(t.hActive, t.vActive)
	d[11] = 0x77 // 8 bits per colour, dynamic and native
	return block(didParams, d...)
}

// aspectByte is the long side over the short side, as (byte + 100) / 100.
func aspectByte(w, h uint32) byte {
	r := (max(w, h)*100 + min(w, h)/2) / min(w, h)
	return byte(min(r-100, 255))
}

func timingBlock(t timing) []byte {
	d := make([]byte, 20)
	clock := t.clock10k - 1
	d[0], d[1], d[2] = byte(clock), byte(clock>>8), byte(clock>>16)
	d[3] = 1<<7 | aspectCode(t.hActive, t.vActive) // preferred
	put := func(at int, v uint32, positive bool) {
		v--
		if positive {
			v |= 1 << 15
		}
		binary.LittleEndian.PutUint16(d[at:], uint16(v))
	}
	put(4, t.hActive, false)
	put(6, t.hBlank, false)
	put(8, t.hFront, t.hSyncPositive)
	put(10, t.hSync, false)
	put(12, t.vActive, false)
	put(14, t.vBlank, false)
	put(16, t.vFront, t.vSyncPositive)
	put(18, t.vSync, false)
	return block(didTimingI, d...)
}

// aspectCode is the picture's shape in bits 3:0 of a Type I timing.
func aspectCode(w, h uint32) byte {
	for code, r := range [][2]uint32{{1, 1}, {5, 4}, {4, 3}, {15, 9}, {16, 9}, {16, 10}, {64, 27}, {256, 135}} {
		if w*r[1] == h*r[0] {
			return byte(code)
		}
	}
	return 8 // another
}

// interfaceBlock says: one link of DisplayPort 1.4, 8 bits per colour of RGB,
// no content protection.
func interfaceBlock() []byte {
	return block(didInterface, 0xa1, 0x14, 0x02, 0, 0, 0, 0, 0, 0, 0)
}
