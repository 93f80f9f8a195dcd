package smoke

import (
	"path/filepath"
	"testing"
)

// TestRun runs everything on this machine, whatever it has.
func TestRun(t *testing.T) {
	o := options(t)
	o.Wayland = filepath.Join(t.TempDir(), "no-compositor")
	rep := Run(t.Context(), o)
	for _, name := range []string{
		"memfd", "udmabuf", "dma-heap", "vsock", "limit.memlock", "limit.nofile", "sandbox", "drm.node", "compositor", "gbm.allocate",
		"gbm.roundtrip", "gl.draw", "virgl.init", "virgl.capsets", "virgl.draw", "virgl.export", "kvm", "qemu", "frames",
	} {
		if rep.Find(name, "") == nil {
			t.Errorf("no row %s", name)
		}
	}
	for _, r := range rep.Rows {
		switch {
		case r.State != OK && r.Cause == "":
			t.Errorf("%+v has no cause", r)
		case (r.State == Degraded || r.State == Failed) && r.Fix == "":
			t.Errorf("%+v has no fix", r)
		case r.Seen == "":
			t.Errorf("%+v says nothing", r)
		}
	}
	if r := rep.Find("memfd", ""); r != nil && r.State != OK {
		t.Errorf("memfd: %+v", r)
	}
	// The tests need the library, so here it is, and draws.
	if r := rep.Find("virgl.draw", surfaceless); r == nil || r.State != OK {
		t.Errorf("virgl.draw: %+v", r)
	}
	if r := rep.Find("compositor", ""); r == nil || r.State != Degraded && r.State != Failed {
		t.Errorf("compositor: %+v", r)
	}
}

// TestRunWrongNode: an unusable --render-node makes the machine unusable, as
// --virgl=on would fail.
func TestRunWrongNode(t *testing.T) {
	o := options(t)
	o.RenderNode = filepath.Join(t.TempDir(), "renderD128")
	rep := Run(t.Context(), o)
	if rep.Code != CodeUnusable || rep.Verdict != Unusable {
		t.Errorf("code %d, %s", rep.Code, rep.Verdict)
	}
	if r := rep.Find("drm.node", o.RenderNode); r == nil || r.Seen != "it does not exist" {
		t.Errorf("row %+v", r)
	}
	if r := rep.Find("virgl.init", o.RenderNode); r != nil {
		t.Errorf("it was tried all the same: %+v", r)
	}
}
