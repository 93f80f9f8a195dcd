package smoke

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/dmabuf"
)

func TestJudge(t *testing.T) {
	for name, c := range map[string]struct {
		rows    []Row
		verdict string
		code    int
	}{
		"ok and skipped":  {[]Row{{State: OK}, {State: Skipped}}, "usable", 0},
		"degraded":        {[]Row{{State: OK}, {State: Degraded}}, "degraded", 1},
		"failed":          {[]Row{{State: Failed}, {State: OK}}, "degraded", 1},
		"needed":          {[]Row{{State: Degraded}, {State: Failed, Needed: true}, {State: OK}}, "unusable", 2},
		"needed and fine": {[]Row{{State: OK, Needed: true}}, "usable", 0},
	} {
		r := Report{Rows: c.rows}
		if r.judge(); r.Verdict != c.verdict || r.Code != c.code {
			t.Errorf("%s: %s, code %d, want %s and %d", name, r.Verdict, r.Code, c.verdict, c.code)
		}
	}
}

func testReport() *Report {
	r := &Report{
		Schema: Schema, Version: "1.2.3", Kernel: "6.1", Arch: "amd64", Time: time.Unix(1e9, 0).UTC(), Seconds: 1.5,
		Tiers: map[string]bool{"dmabuf": true},
		Rows: []Row{
			{Name: "memfd", State: OK, Seen: "sealed"},
			{Name: "drm.node", Subject: "/dev/dri/card0", State: Degraded, Seen: "vgem", Cause: "a driver\nfor tests\nfor tests", Fix: "a GPU",
				Items: []Item{{Name: "XRGB8888", State: OK, Seen: "LINEAR"}}, Seconds: 0.25},
			{Name: "compositor", Subject: "/run/user/1000/a-long-name/wayland-0", State: OK, Seen: "fine", Needed: true},
		},
	}
	r.judge()
	return r
}

func TestPrint(t *testing.T) {
	want := `state     check                    what was seen
ok        memfd                    sealed
degraded  drm.node /dev/dri/card0  vgem
                                   cause: a driver; for tests
                                   fix: a GPU
                                   · ok XRGB8888 LINEAR
ok        compositor               /run/user/1000/a-long-name/wayland-0: fine

gpubroker 1.2.3 on Linux 6.1 (amd64), 1.5 s: this machine is degraded: it works, and the rows above say what is missing.
`
	want = strings.ReplaceAll(want, "· ok XRGB8888 LINEAR", "· ok       XRGB8888  LINEAR")
	want = strings.ReplaceAll(want, "fix: a GPU", "fix:   a GPU")
	var b bytes.Buffer
	if err := testReport().Print(&b, true); err != nil {
		t.Fatal(err)
	}
	if b.String() != want {
		t.Errorf("printed\n%s\nwant\n%s", b.String(), want)
	}
	b.Reset()
	if err := testReport().Print(&b, false); err != nil || strings.Contains(b.String(), "·") {
		t.Errorf("items without being asked for: %v\n%s", err, b.String())
	}
}

// TestSchema: what docs/smoke.md says of the JSON is what it has.
func TestSchema(t *testing.T) {
	doc, err := os.ReadFile("../../docs/smoke.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_.\\[\\]]+)` \\|").FindAllStringSubmatch(string(doc), -1) {
		documented = append(documented, m[1])
	}
	body, err := json.Marshal(testReport())
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatal(err)
	}
	var have []string
	var walk func(prefix string, v any)
	walk = func(prefix string, v any) {
		switch v := v.(type) {
		case map[string]any:
			if prefix == "tiers." {
				return
			}
			for k, sub := range v {
				if !slices.Contains(have, prefix+k) {
					have = append(have, prefix+k)
				}
				walk(prefix+k+".", sub)
			}
		case []any:
			for _, sub := range v {
				walk(strings.TrimSuffix(prefix, ".")+"[].", sub)
			}
		}
	}
	walk("", v)
	for _, k := range have {
		if !slices.Contains(documented, k) {
			t.Errorf("docs/smoke.md does not document %s", k)
		}
	}
	for _, k := range documented {
		if !slices.Contains(have, k) {
			t.Errorf("docs/smoke.md documents %s, which the JSON lacks", k)
		}
	}
	back := &Report{}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(back); err != nil || back.Rows[1].Items[0].Name != "XRGB8888" {
		t.Errorf("read back: %v", err)
	}
}

func TestChooseNodes(t *testing.T) {
	gpu := node{Path: "/dev/dri/renderD129", Driver: "i915", Render: true, GPU: true}
	card := node{Path: "/dev/dri/card1", Driver: "i915", GPU: true}
	vgem := node{Path: "/dev/dri/renderD128", Driver: "vgem", Render: true}
	for name, c := range map[string]struct {
		nodes  []node
		asked  string
		render string
		alloc  int
	}{
		"nothing":            {nil, "", "", 0},
		"a GPU beside vgem":  {[]node{vgem, gpu, card}, "", gpu.Path, 1},
		"only vgem":          {[]node{vgem}, "", "", 1},
		"asked":              {[]node{vgem, gpu}, vgem.Path, vgem.Path, 1},
		"asked, but bad":     {nil, "/dev/dri/renderD200", "", 0},
		"only primary nodes": {[]node{card}, "", "", 1},
	} {
		render, alloc := chooseNodes(c.nodes, c.asked)
		if render != c.render || len(alloc) != c.alloc {
			t.Errorf("%s: %q and %v, want %q and %d nodes", name, render, alloc, c.render, c.alloc)
		}
	}
}

func TestQEMUModes(t *testing.T) {
	list := func(devices ...string) string {
		var b strings.Builder
		for _, d := range devices {
			b.WriteString("name \"" + d + "\", bus PCI\n")
		}
		return b.String()
	}
	classic, all := list(deviceClassic, deviceVGA), list(deviceClassic, deviceVGA, deviceFull)
	for _, c := range []struct {
		version string
		devices string
		kvm     bool
		state   State
		needed  bool
		want    string
	}{
		{"QEMU emulator version 11.1.3 (Debian 1:11.1.3)", all, true, OK, false, "blobs and all"},
		{"QEMU emulator version 11.1.3", all, false, OK, false, "guests are emulated"},
		{"QEMU emulator version 11.0.0", all, true, Degraded, false, "vhost-user-gpu-pci"},
		{"QEMU emulator version 10.0.2", classic, false, Degraded, false, "guests are emulated"},
		{"QEMU emulator version 7.2.11", classic, true, Degraded, false, "vhost-user-vga"},
		{"QEMU emulator version 7.2.11", classic, false, Failed, true, "no guest can use gpubroker"},
		{"QEMU emulator version 9.2", list("virtio-gpu-pci", "x-vhost-user-gpu-pci-y"), true, Failed, true, "no vhost-user GPU"},
	} {
		major, minor, version := qemuVersion(c.version)
		r := judgeQEMU(major, minor, version, c.devices, c.kvm)
		if r.State != c.state || r.Needed != c.needed || !strings.Contains(r.Seen, c.want) || (r.State == OK) != (r.Cause == "") || (r.State == OK) != (r.Fix == "") {
			t.Errorf("%s, KVM %v: %+v, want %s with %q", c.version, c.kvm, r, c.state, c.want)
		}
	}
	if _, _, v := qemuVersion("no such thing"); v != "" {
		t.Errorf("version %q", v)
	}
}

// TestFrames: the last row says how frames go and why not better.
func TestFrames(t *testing.T) {
	const tiled = dmabuf.Modifier(0x0100000000000002)
	abgr, xbgr := Layout{dmabuf.ABGR8888, dmabuf.ModLinear}, Layout{dmabuf.XBGR8888, dmabuf.ModLinear}
	xrgb := Layout{dmabuf.XRGB8888, dmabuf.ModLinear}
	rep := &Report{Rows: []Row{
		{Name: "udmabuf", State: Degraded, Cause: "no udmabuf here"},
		{Name: "virgl.init", State: OK},
		{Name: "virgl.export", State: Degraded, Cause: "no export here"},
	}}
	for name, c := range map[string]struct {
		f     findings
		state State
		tiers map[string]bool
		want  string
	}{
		"no compositor":   {findings{UDMABuf: true, Exports: []Layout{abgr}}, Skipped, map[string]bool{"shm": false, "dmabuf": false}, ""},
		"shm only":        {findings{Shm: true}, Degraded, map[string]bool{"shm": true, "dmabuf": false, "udmabuf": false}, "3D: no export here; guest pages: no udmabuf here"},
		"all":             {findings{Shm: true, UDMABuf: true, Exports: []Layout{abgr}, Layouts: []Layout{xbgr, xrgb}}, OK, map[string]bool{"dmabuf": true, "udmabuf": true}, ""},
		"alpha only":      {findings{Shm: true, UDMABuf: true, Exports: []Layout{abgr}, Layouts: []Layout{abgr, xrgb}}, OK, map[string]bool{"dmabuf": true}, ""},
		"other modifier":  {findings{Shm: true, UDMABuf: true, Exports: []Layout{{dmabuf.XRGB8888, tiled}}, Layouts: []Layout{xrgb}}, Degraded, map[string]bool{"dmabuf": false, "udmabuf": true}, "takes none of XRGB8888 INTEL(Y_TILED)"},
		"no linear pages": {findings{Shm: true, UDMABuf: true, Exports: []Layout{abgr}, Layouts: []Layout{xbgr}}, Degraded, map[string]bool{"dmabuf": true, "udmabuf": false}, "does not take linear XRGB8888"},
	} {
		r := c.f.frames(rep)
		if r.State != c.state || !strings.Contains(r.Cause, c.want) {
			t.Errorf("%s: %+v, want %s with %q", name, r, c.state, c.want)
		}
		for tier, want := range c.tiers {
			if got := c.f.tiers()[tier]; got != want {
				t.Errorf("%s: tier %s is %v", name, tier, got)
			}
		}
	}
}
