package proxy

import (
	"bytes"
	"encoding/binary"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// maxArgs is more than any message of the tables has.
const maxArgs = 12

// message is one request or event, checked against the tables.
type message struct {
	obj  *object
	desc *proto.Message
	raw  wire.Message
	at   [maxArgs]int     // where each argument begins in the body
	refs [maxArgs]*object // what object arguments name; nil for null
	made wire.ID          // the new_id as its sender wrote it; 0 if there is none
	slot int              // the argument that is the new_id
	kind proto.InterfaceID
	item Item       // of a request, if it carries one; closed unless taken
	fd   *dmabuf.FD // of an event, likewise
	sent bool       // a handler has dealt with the destruction of obj
}

func (m *message) opcode() uint16 { return m.raw.Opcode }

// uint returns an argument of one word.
func (m *message) uint(arg int) uint32 { return binary.LittleEndian.Uint32(m.raw.Body[m.at[arg]:]) }
func (m *message) int(arg int) int32   { return int32(m.uint(arg)) }

// bytes returns an array, or a string without its NUL.
func (m *message) bytes(arg int) []byte {
	n := m.uint(arg)
	b := m.raw.Body[m.at[arg]+4:][:n]
	if m.desc.Args[arg].Type == proto.String && n > 0 {
		b = b[:n-1]
	}
	return b
}

// name says which message it is.
func (m *message) name() string { return m.obj.iface.String() + "." + m.desc.Name }

// badArg is what parse found; the caller knows whose fault it is.
type badArg struct {
	arg  string
	text string
	num  uint64
}

// parse finds the arguments of a message by the tables alone and resolves the
// objects that it names with find. The result is nil if all is well.
func (m *message) parse(find func(id wire.ID) *object) *badArg {
	body, at := m.raw.Body, 0
	m.made, m.slot, m.kind, m.sent = 0, 0, 0, false
	for i := range m.desc.Args {
		a := &m.desc.Args[i]
		m.at[i], m.refs[i] = at, nil
		if a.Type == proto.FD {
			continue
		}
		if len(body)-at < 4 {
			return &badArg{a.Name, "is missing; bytes of the message", uint64(len(body))}
		}
		v := binary.LittleEndian.Uint32(body[at:])
		switch a.Type {
		case proto.String, proto.Array:
			end, bad := sized(a, body, at, v)
			if bad != nil {
				return bad
			}
			at = end
			continue
		case proto.Object:
			if bad := m.resolve(a, i, wire.ID(v), find); bad != nil {
				return bad
			}
		case proto.NewID:
			if a.Interface == 0 { // wl_registry.bind: interface and version come first
				end, bad := sized(&proto.Arg{Name: "interface", Type: proto.String}, body, at, v)
				if bad != nil {
					return bad
				}
				if len(body)-end < 8 {
					return &badArg{a.Name, "is missing; bytes of the message", uint64(len(body))}
				}
				v = binary.LittleEndian.Uint32(body[end+4:])
				at = end + 4
			}
			m.made, m.slot, m.kind = wire.ID(v), i, a.Interface
			if v == 0 {
				return &badArg{a.Name, "is the null object", 0}
			}
		}
		at += 4
	}
	if at != len(body) {
		return &badArg{"size", "has bytes after the last argument, as many as", uint64(len(body) - at)}
	}
	return nil
}

// sized checks a string or an array whose length is n and returns where it ends.
func sized(a *proto.Arg, body []byte, at int, n uint32) (int, *badArg) {
	at += 4
	if (uint64(n)+3)&^3 > uint64(len(body)-at) {
		return 0, &badArg{a.Name, "is longer than its message, bytes", uint64(n)}
	}
	if a.Type == proto.String {
		if n == 0 && !a.Nullable {
			return 0, &badArg{a.Name, "is a null string", 0}
		}
		if n > 0 && bytes.IndexByte(body[at:at+int(n)], 0) != int(n)-1 {
			return 0, &badArg{a.Name, "has no NUL at its end alone, bytes", uint64(n)}
		}
	}
	return at + int((n+3)&^3), nil
}

func (m *message) resolve(a *proto.Arg, i int, id wire.ID, find func(id wire.ID) *object) *badArg {
	if id == 0 {
		if !a.Nullable {
			return &badArg{a.Name, "is the null object", 0}
		}
		return nil
	}
	o := find(id)
	if o == nil {
		return &badArg{a.Name, "is no object:", uint64(id)}
	}
	if a.Interface != 0 && o.iface != a.Interface {
		return &badArg{a.Name, "is no " + a.Interface.String() + " but a " + o.iface.String() + ", object", uint64(id)}
	}
	m.refs[i] = o
	return nil
}
