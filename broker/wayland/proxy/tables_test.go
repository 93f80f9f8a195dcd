package proxy

import (
	"testing"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
)

// reachable returns the interfaces of objects that a guest can have.
func reachable() map[proto.InterfaceID]bool {
	seen := map[proto.InterfaceID]bool{proto.IWlDisplay: true}
	list := []proto.InterfaceID{proto.IWlDisplay}
	for id := range allowed {
		seen[id] = true
		list = append(list, id)
	}
	for ; len(list) > 0; list = list[1:] {
		in := &proto.Interfaces[list[0]]
		for _, msgs := range [][]proto.Message{in.Requests, in.Events} {
			for _, m := range msgs {
				for _, a := range m.Args {
					if a.Type == proto.NewID && a.Interface != 0 && !seen[a.Interface] {
						seen[a.Interface] = true
						list = append(list, a.Interface)
					}
				}
			}
		}
	}
	return seen
}

// TestEveryDescriptorIsHandled: whatever a guest can reach that carries a descriptor
// has a handler, and what the walk over messages takes for granted holds.
func TestEveryDescriptorIsHandled(t *testing.T) {
	n := 0
	for id := range reachable() {
		in := &proto.Interfaces[id]
		for event, msgs := range map[bool][]proto.Message{false: in.Requests, true: in.Events} {
			for op, m := range msgs {
				if len(m.Args) > maxArgs {
					t.Errorf("%s.%s has %d arguments, limit %d", in.Name, m.Name, len(m.Args), maxArgs)
				}
				made := 0
				for _, a := range m.Args {
					if a.Type == proto.NewID {
						made++
						if a.Interface == 0 && id != proto.IWlRegistry {
							t.Errorf("%s.%s makes an object of any interface", in.Name, m.Name)
						}
					}
				}
				if made > 1 || m.FDs > 1 {
					t.Errorf("%s.%s makes %d objects and carries %d descriptors", in.Name, m.Name, made, m.FDs)
				}
				handler := requestHandlers
				if event {
					handler = eventHandlers
				}
				// Feedback is the proxy's own, its events are never the compositor's.
				if m.FDs > 0 && handler[id][op] == nil && id != proto.IZwpLinuxDmabufFeedbackV1 {
					t.Errorf("%s.%s carries a descriptor and has no handler", in.Name, m.Name)
				}
				n += m.FDs
			}
		}
	}
	if n != 10 {
		t.Errorf("%d messages with descriptors can be reached, 10 are known", n)
	}
	for _, id := range []proto.InterfaceID{proto.IWpSecurityContextManagerV1, proto.IWpLinuxDrmSyncobjManagerV1, proto.IWlShell} {
		if DefaultPolicy().version(id) != 0 {
			t.Errorf("%v is shown", id)
		}
	}
}
