package proto

import (
	"sort"
	"strings"
	"testing"
)

func TestLookup(t *testing.T) {
	for id := range Interfaces {
		if id == 0 {
			continue
		}
		name := Interfaces[id].Name
		if got := Lookup(name); got != InterfaceID(id) || got.String() != name {
			t.Errorf("Lookup(%q) = %d (%v), want %d", name, got, got, id)
		}
	}
	for _, name := range []string{"", "a", "wl_nothing", "zzz"} {
		if got := Lookup(name); got != 0 {
			t.Errorf("Lookup(%q) = %v", name, got)
		}
	}
	if InterfaceID(0).Event(0) != nil || InterfaceID(9999).Request(0) != nil || IWlSurface.Event(99) != nil {
		t.Error("a message that does not exist has a description")
	}
}

// TestTables checks entries that a forwarder relies on against the protocol.
func TestTables(t *testing.T) {
	attach := IWlSurface.Request(OpWlSurfaceAttach)
	if attach.Name != "attach" || len(attach.Args) != 3 || !attach.Args[0].Nullable || attach.Args[0].Interface != IWlBuffer {
		t.Errorf("wl_surface.attach: %+v", attach)
	}
	if !IWlSurface.Request(OpWlSurfaceDestroy).Destructor {
		t.Error("wl_surface.destroy is no destructor")
	}
	if d := IWlSurface.Request(OpWlSurfaceDamageBuffer); d.Since != 4 {
		t.Errorf("wl_surface.damage_buffer since %d, want 4", d.Since)
	}
	if b := IWlRegistry.Request(OpWlRegistryBind); b.Args[1].Type != NewID || b.Args[1].Interface != 0 {
		t.Errorf("wl_registry.bind: %+v", b)
	}
	if c := IZwpLinuxBufferParamsV1.Event(EvZwpLinuxBufferParamsV1Created); c.Args[0].Type != NewID || c.Args[0].Interface != IWlBuffer {
		t.Errorf("zwp_linux_buffer_params_v1.created: %+v", c)
	}
}

// TestDescriptorMessages lists every message that carries descriptors: a new one
// needs a decision in whatever forwards messages.
func TestDescriptorMessages(t *testing.T) {
	var got []string
	for _, in := range Interfaces {
		for _, m := range in.Requests {
			if m.FDs > 0 {
				got = append(got, strings.Repeat("+", m.FDs-1)+in.Name+"."+m.Name)
			}
		}
		for _, m := range in.Events {
			if m.FDs > 0 {
				got = append(got, strings.Repeat("+", m.FDs-1)+in.Name+"->"+m.Name)
			}
		}
	}
	sort.Strings(got)
	want := []string{
		"+wp_security_context_manager_v1.create_listener",
		"wl_data_offer.receive",
		"wl_data_source->send",
		"wl_keyboard->keymap",
		"wl_shm.create_pool",
		"wp_image_description_creator_icc_v1.set_icc_file",
		"wp_image_description_info_v1->icc_file",
		"wp_linux_drm_syncobj_manager_v1.import_timeline",
		"zwp_linux_buffer_params_v1.add",
		"zwp_linux_dmabuf_feedback_v1->format_table",
		"zwp_primary_selection_offer_v1.receive",
		"zwp_primary_selection_source_v1->send",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
