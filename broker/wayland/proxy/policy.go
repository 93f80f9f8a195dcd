package proxy

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
)

// Policy says which of the compositor's globals a VM's clients see, and what is done
// to what they say. What the proxy's tables do not know is hidden whatever it says.
type Policy struct {
	// Only hides every interface that Allow does not name.
	Only bool `toml:"only" json:"only"`
	// Allow gives globals a highest version, by interface; it may show some that are
	// hidden by default.
	Allow map[string]uint32 `toml:"allow" json:"allow"`
	// Deny hides globals by interface; it wins over Allow.
	Deny []string `toml:"deny" json:"deny"`
	// Clipboard shows data devices: selection, primary selection, drag and drop.
	Clipboard bool `toml:"clipboard" json:"clipboard"`
	// TitlePrefix and AppIDPrefix are put before what windows call themselves, also
	// if they say nothing.
	TitlePrefix string `toml:"title_prefix" json:"title_prefix"`
	AppIDPrefix string `toml:"app_id_prefix" json:"app_id_prefix"`
	// SecurityContext uses the compositor's wp_security_context_v1 where it has it.
	SecurityContext bool `toml:"security_context" json:"security_context"`
	// Limits of each client; zero fields have the default values.
	Limits Limits `toml:"limits" json:"limits"`
}

// DefaultPolicy shows what a client of a desktop needs and hides what would let it
// look at, or act for, others.
func DefaultPolicy() *Policy { return &Policy{Clipboard: true, SecurityContext: true} }

// maxPrefix bounds the prefixes, in bytes.
const maxPrefix = 256

// allowed are the globals that guests see by default, in the versions that the
// tables have or that the number says.
var allowed = map[proto.InterfaceID]uint32{
	proto.IWlCompositor: 0, proto.IWlSubcompositor: 0, proto.IWlShm: 0, proto.IWlSeat: 0, proto.IWlOutput: 0,
	proto.IWlDataDeviceManager: 0,
	proto.IWlFixes:             1, // 2 has ack_global_remove, which names a registry that is ours
	proto.IXdgWmBase:           0, proto.IZxdgDecorationManagerV1: 0, proto.IZxdgOutputManagerV1: 0,
	proto.IXdgActivationV1: 0, proto.IXdgToplevelIconManagerV1: 0, proto.IXdgWmDialogV1: 0, proto.IXdgSystemBellV1: 0,
	proto.IZwpLinuxDmabufV1: 0,
	proto.IWpViewporter:     0, proto.IWpFractionalScaleManagerV1: 0, proto.IWpPresentation: 0,
	proto.IWpSinglePixelBufferManagerV1: 0, proto.IWpContentTypeManagerV1: 0, proto.IWpTearingControlManagerV1: 0,
	proto.IWpFifoManagerV1: 0, proto.IWpCommitTimingManagerV1: 0, proto.IWpCursorShapeManagerV1: 0,
	proto.IWpAlphaModifierV1: 0, proto.IWpColorManagerV1: 0, proto.IWpColorRepresentationManagerV1: 0,
	proto.IZwpIdleInhibitManagerV1: 0, proto.IZwpPrimarySelectionDeviceManagerV1: 0,
	proto.IZwpRelativePointerManagerV1: 0, proto.IZwpPointerConstraintsV1: 0, proto.IZwpPointerGesturesV1: 0,
	proto.IZwpTextInputManagerV3: 0, proto.IZwpTabletManagerV2: 0,
}

// clipboard are the globals that carry data between clients.
var clipboard = map[proto.InterfaceID]bool{
	proto.IWlDataDeviceManager: true, proto.IZwpPrimarySelectionDeviceManagerV1: true,
}

// LoadPolicy reads a policy, as TOML or, if the name ends in .json, as JSON. What the
// file does not say is as in [DefaultPolicy]; what is not understood is an error.
func LoadPolicy(path string) (*Policy, error) {
	p := DefaultPolicy()
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, &OpError{Op: "load policy", Err: err}
	}
	if filepath.Ext(path) == ".json" {
		d := json.NewDecoder(strings.NewReader(string(text)))
		d.DisallowUnknownFields()
		if err := d.Decode(p); err != nil {
			return nil, &OpError{Op: "load policy", Object: path, Err: fmt.Errorf("%w: %w", ErrPolicy, err)}
		}
	} else {
		meta, err := toml.Decode(string(text), p)
		if err != nil {
			return nil, &OpError{Op: "load policy", Object: path, Err: fmt.Errorf("%w: %w", ErrPolicy, err)}
		}
		if extra := meta.Undecoded(); len(extra) > 0 {
			return nil, &OpError{Op: "load policy", Object: path, Err: fmt.Errorf("%w: unknown key %q", ErrPolicy, extra[0].String())}
		}
	}
	if err := p.check(); err != nil {
		return nil, &OpError{Op: "load policy", Object: path, Err: err}
	}
	return p, nil
}

// check refuses rules that cannot be kept.
func (p *Policy) check() error {
	for name := range p.Allow {
		id := proto.Lookup(name)
		if _, ok := allowed[id]; !ok {
			return fmt.Errorf("%w: allow: %.64q is not among the interfaces that guests can be given", ErrPolicy, name)
		}
	}
	for _, s := range []struct{ name, text string }{{"title_prefix", p.TitlePrefix}, {"app_id_prefix", p.AppIDPrefix}} {
		if len(s.text) > maxPrefix || strings.ContainsRune(s.text, 0) {
			return fmt.Errorf("%w: %s has %d bytes, limit %d, none of them NUL", ErrPolicy, s.name, len(s.text), maxPrefix)
		}
	}
	l := &p.Limits
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"clients", int64(l.Clients)}, {"objects", int64(l.Objects)}, {"surfaces", int64(l.Surfaces)}, {"buffers", int64(l.Buffers)},
		{"pools", int64(l.Pools)}, {"items", int64(l.Items)}, {"host_bytes", l.HostBytes}, {"backlog", int64(l.Backlog)}, {"park_time", int64(l.ParkTime)},
	} {
		if n.value < 0 {
			return fmt.Errorf("%w: limits.%s is %d, which is below 0", ErrPolicy, n.name, n.value)
		}
	}
	return nil
}

// version returns the highest version of a global that guests may bind, 0 for none.
func (p *Policy) version(id proto.InterfaceID) uint32 {
	limit, ok := allowed[id]
	if !ok {
		return 0
	}
	if limit == 0 {
		limit = proto.Interfaces[id].Version
	}
	name := id.String()
	for _, deny := range p.Deny {
		if deny == name {
			return 0
		}
	}
	named, ok := p.Allow[name]
	if (!ok && p.Only) || (!p.Clipboard && clipboard[id]) {
		return 0
	}
	if ok {
		limit = min(limit, named)
	}
	return limit
}
