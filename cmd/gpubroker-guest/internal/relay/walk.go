package relay

import (
	"fmt"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

// newID is a new_id argument.
type newID struct {
	id      wire.ID
	iface   proto.InterfaceID
	name    string // of the interface, where the message says it (wl_registry.bind)
	version uint32 // likewise; 0 for the parent's
}

// walk checks that a body is what the tables say, and returns its new_ids in dst's
// memory. Descriptors are not touched.
func walk(name string, desc *proto.Message, m wire.Message, dst []newID) ([]newID, error) {
	d := m.Decoder()
	dst = dst[:0]
	for i := range desc.Args {
		switch a := &desc.Args[i]; a.Type {
		case proto.Int, proto.Uint, proto.Fixed:
			d.Uint()
		case proto.String:
			if s := d.StringBytes(); s == nil && !a.Nullable && d.Err() == nil {
				return nil, fmt.Errorf("%w: argument %s is null", wire.ErrMalformed, a.Name)
			}
		case proto.Object:
			if d.OptObject() == 0 && !a.Nullable && d.Err() == nil {
				return nil, fmt.Errorf("%w: argument %s is null", wire.ErrMalformed, a.Name)
			}
		case proto.Array:
			d.Array()
		case proto.NewID:
			n := newID{iface: a.Interface}
			if a.Interface == 0 {
				n.name, n.version = d.String(), d.Uint()
			}
			n.id = d.Object()
			dst = append(dst, n)
		case proto.FD:
		}
	}
	return dst, d.Done(name)
}
