package vtest

import "encoding/binary"

// Clients of protocol versions 0 and 2 number their resources themselves, each from 1 on,
// and name them so in their command streams too, which the renderer reads with one
// numbering for all. So the names in those streams are replaced.

// naming says which words of a command of a stream (virgl_protocol.h) name resources. Word
// 0 is the command's header. A name of 0 means none.
type naming struct {
	at          [2]uint16 // these; 0: none
	first, step uint16    // and first, first+step, … to the command's end
}

// Commands of a stream that name resources, and the number of the last one known.
const (
	ccmdCreateObject      = 1
	ccmdSetVertexBuffers  = 6
	ccmdDrawVBO           = 8
	ccmdInlineWrite       = 9
	ccmdSetIndexBuffer    = 11
	ccmdBlit              = 16
	ccmdCopyRegion        = 17
	ccmdSetUniformBuffer  = 27
	ccmdSetShaderBuffers  = 34
	ccmdSetShaderImages   = 35
	ccmdLaunchGrid        = 37
	ccmdSetAtomicBuffers  = 40
	ccmdGetQueryResultQBO = 42
	ccmdTransfer3D        = 43
	ccmdCopyTransfer3D    = 45
	ccmdClearTexture      = 47
	ccmdSetType           = 49
	ccmdGetMemoryInfo     = 50
	ccmdCreateVideoBuffer = 55
	ccmdDecodeBitstream   = 59
	ccmdEncodeBitstream   = 60
	ccmdGetLayout         = 63
)

// namings is indexed by the command; the rest of those up to its end name none.
var namings = [ccmdGetLayout + 1]naming{
	ccmdSetVertexBuffers:  {first: 3, step: 3},
	ccmdDrawVBO:           {at: [2]uint16{15, 20}},
	ccmdInlineWrite:       {at: [2]uint16{1}},
	ccmdSetIndexBuffer:    {at: [2]uint16{1}},
	ccmdBlit:              {at: [2]uint16{4, 13}},
	ccmdCopyRegion:        {at: [2]uint16{1, 6}},
	ccmdSetUniformBuffer:  {at: [2]uint16{5}},
	ccmdSetShaderBuffers:  {first: 5, step: 3},
	ccmdSetShaderImages:   {first: 7, step: 5},
	ccmdLaunchGrid:        {at: [2]uint16{7}},
	ccmdSetAtomicBuffers:  {first: 4, step: 3},
	ccmdGetQueryResultQBO: {at: [2]uint16{2}},
	ccmdTransfer3D:        {at: [2]uint16{1}},
	ccmdCopyTransfer3D:    {at: [2]uint16{1, 12}},
	ccmdClearTexture:      {at: [2]uint16{1}},
	ccmdSetType:           {at: [2]uint16{1}},
	ccmdGetMemoryInfo:     {at: [2]uint16{1}},
	ccmdCreateVideoBuffer: {first: 5, step: 1},
	ccmdDecodeBitstream:   {at: [2]uint16{3, 4}},
	ccmdEncodeBitstream:   {first: 3, step: 1},
	ccmdGetLayout:         {at: [2]uint16{1, 2}},
}

// objectNames is which word of CREATE_OBJECT names a resource, by the object's type.
var objectNames = [...]uint16{
	6:  2, // sampler view
	8:  2, // surface
	9:  4, // query
	10: 2, // streamout target
	11: 2, // surface with implicit multisampling
}

// rename replaces every name in a stream by what names says. What it does not know is an
// error: a name might be left in it.
func rename(stream []byte, names map[uint32]*owned) error {
	words := len(stream) / 4
	for at := 0; at < words; {
		header := word(stream, at)
		cmd, kind, length := header&0xff, header>>8&0xff, int(header>>16)
		if cmd >= uint32(len(namings)) {
			return protocol("stream: command %d at word %d, known are 0 to %d", cmd, at, len(namings)-1)
		}
		if length > words-at-1 {
			return protocol("stream: command %d at word %d has %d words, %d are left", cmd, at, length, words-at-1)
		}
		body := stream[4*at : 4*(at+1+length)]
		n := namings[cmd]
		if cmd == ccmdCreateObject && kind < uint32(len(objectNames)) {
			n.at[0] = objectNames[kind]
		}
		for _, i := range n.at {
			if err := renameWord(body, int(i), names); err != nil {
				return err
			}
		}
		if n.step > 0 {
			for i := int(n.first); i <= length; i += int(n.step) {
				if err := renameWord(body, i, names); err != nil {
					return err
				}
			}
		}
		at += 1 + length
	}
	return nil
}

func renameWord(body []byte, i int, names map[uint32]*owned) error {
	if i == 0 || 4*i+4 > len(body) {
		return nil
	}
	name := word(body, i)
	if name == 0 {
		return nil
	}
	r := names[name]
	if r == nil {
		return protocol("stream: word %d of command %d: resource %d: %w", i, body[0], name, ErrNotOwned)
	}
	binary.LittleEndian.PutUint32(body[4*i:], r.id)
	return nil
}
