package link

import (
	"encoding/binary"
	"fmt"
)

// Version is the version of the protocol that this package speaks.
const Version = 1

// Limits and sizes, in bytes where nothing else is said.
const (
	HeaderSize = 8
	MaxPayload = 256 << 10 // of a frame
	Window     = 256 << 10 // credit of a new pipe
	MaxPipes   = 256       // open at a time in one connection, both ends' together
	MaxItems   = 1024      // of one Wayland frame
	MaxBytes   = 255 << 10 // of the content of one item, padding not counted
	MaxName    = 64        // of a client's name
	MaxError   = 1024      // of the text of an Error frame
	MaxCredit  = 1<<31 - 1 // that may be open for one pipe

	itemSize = 16
)

var le = binary.LittleEndian

// Type is a frame's type.
type Type uint8

const (
	TypeHello Type = iota + 1
	TypeWelcome
	TypeWayland
	TypeUpdate
	TypeData
	TypeClose
	TypeCredit
	TypePing
	TypePong
	TypeError

	typeEnd
)

func (t Type) String() string {
	if t == 0 || t >= typeEnd {
		return fmt.Sprintf("frame type %d", uint8(t))
	}
	return rules[t].name
}

// Role is an end of the connection.
type Role uint8

const (
	Guest Role = 1 << iota // in the guest, speaks first
	Host                   // in the broker
)

func (r Role) peer() Role { return r ^ (Guest | Host) }

// rule is what holds for a type of frames.
type rule struct {
	name     string
	from     Role // who may send it
	min, max int  // bytes of payload
}

var rules = [typeEnd]rule{
	TypeHello:   {"Hello", Guest, helloSize, helloSize + MaxName},
	TypeWelcome: {"Welcome", Host, welcomeSize, welcomeSize},
	TypeWayland: {"Wayland", Guest | Host, 4, MaxPayload},
	TypeUpdate:  {"Update", Guest, updateSize + 1, MaxPayload},
	TypeData:    {"Data", Guest | Host, 5, MaxPayload},
	TypeClose:   {"Close", Guest | Host, 8, 8},
	TypeCredit:  {"Credit", Guest | Host, 8, 8},
	TypePing:    {"Ping", Guest | Host, 16, 16},
	TypePong:    {"Pong", Guest | Host, 16, 16},
	TypeError:   {"Error", Guest | Host, 0, MaxError},
}

// Header is what every frame begins with.
type Header struct {
	Type Type
	Size uint32 // bytes of payload
}

// Append encodes the header.
func (h Header) Append(dst []byte) []byte {
	dst = append(dst, byte(h.Type), 0, 0, 0)
	return le.AppendUint32(dst, h.Size)
}

// DecodeHeader reads the header of a frame that from sent, and checks it. p has at
// least HeaderSize bytes.
func DecodeHeader(p []byte, from Role) (Header, error) {
	h := Header{Type: Type(p[0]), Size: le.Uint32(p[4:])}
	if h.Type == 0 || h.Type >= typeEnd {
		return Header{}, protocol("frame of type %d, known are 1 to %d", p[0], typeEnd-1)
	}
	if p[1] != 0 || p[2] != 0 || p[3] != 0 {
		return Header{}, protocol("%v: flags %#x and %#x, must be 0", h.Type, p[1], le.Uint16(p[2:]))
	}
	r := &rules[h.Type]
	if r.from&from == 0 {
		return Header{}, protocol("%v from the wrong end", h.Type)
	}
	if uint64(h.Size) < uint64(r.min) || uint64(h.Size) > uint64(r.max) {
		return Header{}, protocol("%v of %d bytes, must be %d to %d", h.Type, h.Size, r.min, r.max)
	}
	return h, nil
}

// Frame is a frame as it was read.
type Frame struct {
	Type    Type
	Payload []byte
}
