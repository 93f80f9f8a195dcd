package hostile

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"

	"github.com/gpubroker/gpubroker/broker/virtiogpu"
)

// mutator makes wrong traffic out of good. The same seed makes the same.
type mutator struct {
	rnd   *rand.Rand
	other []Record // where strange commands come from
}

// interesting values of a field.
var interesting = []uint32{0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 16, 31, 32, 64, 255, 256, 4095, 4096, 4097, 0x7fff, 0xffff, 0x10000,
	0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff}

// session returns the traffic with a few commands changed, most at their places.
func (m *mutator) session(good []Record) []Record {
	out := make([]Record, 0, len(good)+8)
	// The head of long traffic makes the objects; a part of the rest will do.
	good = good[:min(len(good), 30+m.rnd.IntN(400))]
	rate := 1 + m.rnd.IntN(30)
	for _, r := range good {
		if m.rnd.IntN(rate) != 0 {
			out = append(out, r)
			continue
		}
		switch m.rnd.IntN(12) {
		case 0: // lost
		case 1:
			out = append(out, r, r)
		case 2:
			out = append(out, m.other[m.rnd.IntN(len(m.other))], r)
		case 3:
			if n := len(out); n > 0 {
				i := m.rnd.IntN(n)
				out[i], r = r, out[i]
			}
			out = append(out, r)
		case 4:
			r.Cursor = !r.Cursor
			out = append(out, r)
		default:
			out = append(out, Record{r.Cursor, m.command(r.Cmd)})
		}
	}
	return out
}

// command returns the command with some of its bytes changed.
func (m *mutator) command(cmd []byte) []byte {
	cmd = bytes.Clone(cmd)
	for range 1 + m.rnd.IntN(4) {
		switch m.rnd.IntN(10) {
		case 0:
			cmd = cmd[:m.rnd.IntN(len(cmd)+1)]
		case 1:
			cmd = append(cmd, make([]byte, 4*m.rnd.IntN(64))...)
		case 2:
			if len(cmd) > 0 {
				cmd[m.rnd.IntN(len(cmd))] ^= 1 << m.rnd.IntN(8)
			}
		case 3:
			m.stream(cmd)
		default:
			m.dword(cmd)
		}
	}
	m.tame(cmd)
	return cmd
}

// dword changes an aligned number.
func (m *mutator) dword(cmd []byte) {
	n := len(cmd) / 4
	if n == 0 {
		return
	}
	p := cmd[4*m.rnd.IntN(n):]
	v := binary.LittleEndian.Uint32(p)
	switch m.rnd.IntN(4) {
	case 0:
		v = m.rnd.Uint32()
	case 1:
		v += uint32(m.rnd.IntN(9)) - 4
	case 2: // a number from elsewhere in the command
		v = binary.LittleEndian.Uint32(cmd[4*m.rnd.IntN(n):])
	default:
		v = interesting[m.rnd.IntN(len(interesting))]
	}
	binary.LittleEndian.PutUint32(p, v)
}

// stream changes a virgl command inside a SUBMIT_3D, by its header.
func (m *mutator) stream(cmd []byte) {
	heads := streamHeads(cmd)
	if len(heads) == 0 {
		return
	}
	at := heads[m.rnd.IntN(len(heads))]
	h := binary.LittleEndian.Uint32(cmd[at:])
	switch m.rnd.IntN(5) {
	case 0:
		h = h&^0xff | m.rnd.Uint32N(lastCommand)
	case 1:
		h = h&^0xff00 | m.rnd.Uint32N(14)<<8
	case 2:
		h = h&0xffff | (h>>16+m.rnd.Uint32N(5)-2)<<16
	case 3: // copy another over it
		from := heads[m.rnd.IntN(len(heads))]
		copy(cmd[at:], bytes.Clone(cmd[from:min(len(cmd), from+4+4*m.rnd.IntN(16))]))
		return
	default: // a field of this one
		n := int(h >> 16)
		if at+4+4*n <= len(cmd) && n > 0 {
			m.dword(cmd[at+4 : at+4+4*n])
		}
		return
	}
	binary.LittleEndian.PutUint32(cmd[at:], h)
}

// streamHeads finds where the virgl commands of a SUBMIT_3D begin.
func streamHeads(cmd []byte) []int {
	if len(cmd) < virtiogpu.SizeSubmit3D || headerOf(cmd) != virtiogpu.CmdSubmit3D {
		return nil
	}
	var heads []int
	for at := virtiogpu.SizeSubmit3D; at+4 <= len(cmd); {
		heads = append(heads, at)
		at += 4 + 4*int(binary.LittleEndian.Uint32(cmd[at:])>>16)
	}
	return heads
}

// The most that a tamed draw asks for. More is honest work that takes for ever on
// a software renderer; a renderer that is busy is a case for a watchdog and not
// for this generator.
const (
	mostVertices  = 1 << 14
	mostInstances = 16
	mostGroups    = 8
)

// tame limits how long the draws of a stream can take.
func (m *mutator) tame(cmd []byte) {
	for _, at := range streamHeads(cmd) {
		h := binary.LittleEndian.Uint32(cmd[at:])
		n := int(h >> 16)
		if at+4+4*n > len(cmd) {
			continue
		}
		limit := func(i int, most uint32) {
			if i < n {
				p := cmd[at+4+4*i:]
				binary.LittleEndian.PutUint32(p, min(binary.LittleEndian.Uint32(p), most))
			}
		}
		switch h & 0xff {
		case cmdDraw:
			limit(1, mostVertices)
			limit(4, mostInstances)
		case cmdLaunchGrid:
			for i := range 6 {
				limit(i, mostGroups)
			}
		}
	}
}
