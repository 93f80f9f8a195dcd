package virtiogpu

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// wire is every struct with both directions.
type wire interface {
	Decode(p []byte) error
	Append(dst []byte) []byte
}

// structs lists every wire struct with its C name and the size that the UAPI
// header gives it.
var structs = []struct {
	name string
	size int
	want int
	mk   func() wire
}{
	{"virtio_gpu_ctrl_hdr", SizeCtrlHdr, 24, func() wire { return new(CtrlHdr) }},
	{"virtio_gpu_update_cursor", SizeUpdateCursor, 56, func() wire { return new(UpdateCursor) }},
	{"virtio_gpu_resource_unref", SizeResourceUnref, 32, func() wire { return new(ResourceUnref) }},
	{"virtio_gpu_resource_create_2d", SizeResourceCreate2D, 40, func() wire { return new(ResourceCreate2D) }},
	{"virtio_gpu_set_scanout", SizeSetScanout, 48, func() wire { return new(SetScanout) }},
	{"virtio_gpu_resource_flush", SizeResourceFlush, 48, func() wire { return new(ResourceFlush) }},
	{"virtio_gpu_transfer_to_host_2d", SizeTransferToHost2D, 56, func() wire { return new(TransferToHost2D) }},
	{"virtio_gpu_resource_attach_backing", SizeResourceAttachBacking, 32, func() wire { return new(ResourceAttachBacking) }},
	{"virtio_gpu_resource_detach_backing", SizeResourceDetachBacking, 32, func() wire { return new(ResourceDetachBacking) }},
	{"virtio_gpu_cmd_get_edid", SizeGetEDID, 32, func() wire { return new(GetEDID) }},
	{"virtio_gpu_resource_assign_uuid", SizeResourceAssignUUID, 32, func() wire { return new(ResourceAssignUUID) }},
	{"virtio_gpu_resource_create_blob", SizeResourceCreateBlob, 56, func() wire { return new(ResourceCreateBlob) }},
	{"virtio_gpu_set_scanout_blob", SizeSetScanoutBlob, 96, func() wire { return new(SetScanoutBlob) }},
	{"virtio_gpu_resource_map_blob", SizeResourceMapBlob, 40, func() wire { return new(ResourceMapBlob) }},
	{"virtio_gpu_resource_unmap_blob", SizeResourceUnmapBlob, 32, func() wire { return new(ResourceUnmapBlob) }},
	{"virtio_gpu_get_capset_info", SizeGetCapsetInfo, 32, func() wire { return new(GetCapsetInfo) }},
	{"virtio_gpu_get_capset", SizeGetCapset, 32, func() wire { return new(GetCapset) }},
	{"virtio_gpu_ctx_create", SizeCtxCreate, 96, func() wire { return new(CtxCreate) }},
	{"virtio_gpu_ctx_resource", SizeCtxResource, 32, func() wire { return new(CtxResource) }},
	{"virtio_gpu_resource_create_3d", SizeResourceCreate3D, 72, func() wire { return new(ResourceCreate3D) }},
	{"virtio_gpu_transfer_host_3d", SizeTransferHost3D, 72, func() wire { return new(TransferHost3D) }},
	{"virtio_gpu_cmd_submit", SizeSubmit3D, 32, func() wire { return new(Submit3D) }},
	{"virtio_gpu_config", SizeConfig, 16, func() wire { return new(Config) }},
	{"virtio_gpu_resp_display_info", SizeDisplayInfo, 408, func() wire { return new(DisplayInfo) }},
	{"virtio_gpu_resp_capset_info", SizeCapsetInfo, 40, func() wire { return new(CapsetInfo) }},
	{"virtio_gpu_resp_edid", SizeEDID, 1056, func() wire { return new(EDID) }},
	{"virtio_gpu_resp_resource_uuid", SizeResourceUUID, 40, func() wire { return new(ResourceUUID) }},
	{"virtio_gpu_resp_map_info", SizeMapInfo, 32, func() wire { return new(MapInfo) }},
}

func TestSizes(t *testing.T) {
	for _, s := range structs {
		if s.size != s.want {
			t.Errorf("%s: constant %d, want %d", s.name, s.size, s.want)
		}
		if got := len(s.mk().Append(nil)); got != s.want {
			t.Errorf("%s: encodes to %d bytes, want %d", s.name, got, s.want)
		}
		if err := s.mk().Decode(make([]byte, s.want)); err != nil {
			t.Errorf("%s: decode of %d bytes: %v", s.name, s.want, err)
		}
		if err := s.mk().Decode(make([]byte, s.want-1)); !errors.Is(err, ErrInvalidParameter) {
			t.Errorf("%s: decode of %d bytes: %v, want ErrInvalidParameter", s.name, s.want-1, err)
		}
	}
}

// TestHeader asks the C compiler whether our numbers are the kernel header's.
func TestHeader(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler: the sizes stand as TestSizes pins them")
	}
	var src strings.Builder
	src.WriteString("#include <linux/virtio_gpu.h>\n")
	for _, s := range structs {
		fmt.Fprintf(&src, "_Static_assert(sizeof(struct %s) == %d, \"%s\");\n", s.name, s.size, s.name)
	}
	fmt.Fprintf(&src, "_Static_assert(sizeof(struct virtio_gpu_mem_entry) == %d, \"entry\");\n", SizeMemEntry)
	for i := range Commands {
		name := "VIRTIO_GPU_CMD_" + Commands[i].Name
		fmt.Fprintf(&src, "_Static_assert(%s == %d, %q);\n", name, Commands[i].Type, name)
	}
	for v, name := range respNames {
		fmt.Fprintf(&src, "_Static_assert(VIRTIO_GPU_%s == %d, %q);\n", name, v, name)
	}
	for _, f := range Formats {
		fmt.Fprintf(&src, "_Static_assert(VIRTIO_GPU_FORMAT_%v_UNORM == %d, \"%v\");\n", f, uint32(f), f)
	}
	file := filepath.Join(t.TempDir(), "sizes.c")
	if err := os.WriteFile(file, []byte(src.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	probe := filepath.Join(filepath.Dir(file), "probe.c")
	if err := os.WriteFile(probe, []byte("#include <linux/virtio_gpu.h>\nint x = VIRTIO_GPU_CMD_SET_SCANOUT_BLOB;\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command(cc, "-fsyntax-only", probe).Run(); err != nil {
		t.Skip("no linux/virtio_gpu.h with blob resources: the sizes stand as TestSizes pins them")
	}
	if out, err := exec.Command(cc, "-fsyntax-only", file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for i := range Commands {
		c := &Commands[i]
		if c.Type.Index() != i || Lookup(c.Type) != c {
			t.Errorf("%v: index %d, want %d", c.Type, c.Type.Index(), i)
		}
		if seen[c.Name] || c.Name == "" || c.Type.String() != c.Name {
			t.Errorf("name %q is doubled, empty or not %q", c.Name, c.Type)
		}
		seen[c.Name] = true
		if c.MinSize < SizeCtrlHdr || c.RespSize < SizeCtrlHdr || !c.Resp.IsOK() {
			t.Errorf("%s: sizes %d and %d, response %v", c.Name, c.MinSize, c.RespSize, c.Resp)
		}
		if (c.Type >= CmdUpdateCursor) != (c.Queue == CursorQueue) {
			t.Errorf("%s: queue %d", c.Name, c.Queue)
		}
	}
	for _, bad := range []Type{0, 0xff, 0x10e, 0x1ff, 0x20a, 0x2ff, 0x302, RespOKNoData, 0xffffffff} {
		if bad.Index() != -1 || Lookup(bad) != nil {
			t.Errorf("type %#x is a command", uint32(bad))
		}
	}
	if got := Type(0x1207).String(); got != "type(0x1207)" {
		t.Errorf("unknown type prints as %q", got)
	}
}

func TestRespFor(t *testing.T) {
	for e := RespErrUnspec; e <= RespErrInvalidParameter; e++ {
		err := fmt.Errorf("resource 7: %w", ErrorOf(e))
		if got := RespFor(err); got != e {
			t.Errorf("RespFor(%v) = %v, want %v", err, got, e)
		}
	}
	if RespFor(nil) != RespOKNoData || ErrorOf(RespOKMapInfo) != nil {
		t.Error("success is not success")
	}
	if got := RespFor(os.ErrClosed); got != RespErrUnspec {
		t.Errorf("RespFor(unknown) = %v", got)
	}
	if err := ErrorOf(0x7777); !errors.Is(err, ErrUnspec) {
		t.Errorf("ErrorOf(unknown) = %v", err)
	}
}
