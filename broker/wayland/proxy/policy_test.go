package proxy_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy/proxytest"
	"github.com/gpubroker/gpubroker/broker/wayland/waylandtest"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// everything announces all that the tables know and what no guest may see.
func everything(t *testing.T) waylandtest.Config {
	t.Helper()
	cfg := waylandtest.Config{DMABuf: 4, Layouts: layouts(dmabuf.XRGB8888), Seat: true, SeatVersion: 9, Scale: 1, Fractional: 120, Decorations: true,
		Presentation: true, Clock: 1, Selection: true, ICC: "profile", Security: true}
	for _, name := range forbidden {
		cfg.More = append(cfg.More, waylandtest.Global{Name: name, Version: 3})
	}
	for _, name := range []string{"wl_fixes", "xdg_activation_v1", "zwp_idle_inhibit_manager_v1", "zwp_pointer_constraints_v1", "zxdg_output_manager_v1",
		"xdg_system_bell_v1", "wp_single_pixel_buffer_manager_v1", "wp_cursor_shape_manager_v1", "zwp_text_input_manager_v3", "zwp_tablet_manager_v2"} {
		cfg.More = append(cfg.More, waylandtest.Global{Name: name, Version: proto.Interfaces[proto.Lookup(name)].Version})
	}
	return cfg
}

// forbidden let a client look at or act for others.
var forbidden = []string{
	"zwlr_screencopy_manager_v1", "ext_image_copy_capture_manager_v1", "ext_output_image_capture_source_manager_v1", "zwlr_export_dmabuf_manager_v1",
	"zwlr_data_control_manager_v1", "ext_data_control_manager_v1", "zwlr_foreign_toplevel_manager_v1", "ext_foreign_toplevel_list_v1",
	"zwlr_layer_shell_v1", "ext_session_lock_manager_v1", "zwp_virtual_keyboard_manager_v1", "zwlr_virtual_pointer_manager_v1",
	"zwp_input_method_manager_v2", "zwlr_output_manager_v1", "zwlr_gamma_control_manager_v1", "wp_drm_lease_device_v1", "ext_idle_notifier_v1",
	"ext_transient_seat_manager_v1", "wl_drm", "wp_linux_drm_syncobj_manager_v1", "wl_shell",
}

func offered(c *proxytest.Client) (names []string) {
	for _, e := range c.Events() {
		if e.Is(proto.IWlRegistry, proto.EvWlRegistryGlobal) {
			var ev proto.WlRegistryGlobalEvent
			if err := ev.Decode(e.Message); err != nil {
				c.T.Fatal(err)
			}
			names = append(names, ev.Interface)
		}
	}
	return names
}

func withPolicy(t *testing.T, p *proxy.Policy) *proxytest.Client {
	t.Helper()
	comp := waylandtest.New(t, everything(t))
	return connect(t, newProxy(t, comp, proxy.Config{Policy: p, Resources: proxytest.NewResources(dmabuf.XRGB8888)}))
}

func TestDefaultPolicy(t *testing.T) {
	c := withPolicy(t, nil)
	names := offered(c)
	for _, name := range append(forbidden, "wp_security_context_manager_v1") {
		if slices.Contains(names, name) {
			t.Errorf("%s is offered", name)
		}
	}
	for _, name := range []string{"wl_compositor", "wl_shm", "wl_seat", "wl_output", "xdg_wm_base", "zwp_linux_dmabuf_v1", "wl_data_device_manager",
		"zwp_primary_selection_device_manager_v1", "wp_presentation", "wp_commit_timing_manager_v1", "wp_color_manager_v1", "xdg_activation_v1"} {
		if !slices.Contains(names, name) {
			t.Errorf("%s is not offered", name)
		}
	}
	if v := c.Version("wl_fixes"); v != 1 {
		t.Errorf("wl_fixes version %d", v)
	}
	if v := c.Version("wl_seat"); v != 9 {
		t.Errorf("wl_seat version %d, want the compositor's", v)
	}
	// A hidden global cannot be bound by guessing its name either.
	p := newProxy(t, waylandtest.New(t, everything(t)), proxy.Config{})
	for name := range uint32(50) {
		c := connect(t, p)
		c.Registry().Bind(&c.Out, name, "wp_security_context_manager_v1", 1, c.NewID(proto.IWpSecurityContextManagerV1, 1))
		if c.Sync() {
			t.Fatalf("name %d was bound", name)
		}
	}
}

func TestPolicyRules(t *testing.T) {
	for name, k := range map[string]struct {
		rule func(*proxy.Policy)
		want map[string]uint32 // versions; 0 is hidden
	}{
		"clipboard": {func(p *proxy.Policy) { p.Clipboard = false },
			map[string]uint32{"wl_data_device_manager": 0, "zwp_primary_selection_device_manager_v1": 0, "wl_seat": 9}},
		"deny": {func(p *proxy.Policy) { p.Deny = []string{"wl_seat", "zwp_linux_dmabuf_v1"} },
			map[string]uint32{"wl_seat": 0, "zwp_linux_dmabuf_v1": 0, "wl_output": 4}},
		"allow caps": {func(p *proxy.Policy) {
			p.Allow = map[string]uint32{"wl_seat": 5, "zwp_linux_dmabuf_v1": 4, "wl_shm": 99}
		},
			map[string]uint32{"wl_seat": 5, "zwp_linux_dmabuf_v1": 4, "wl_shm": 1, "wl_output": 4}},
		"only": {func(p *proxy.Policy) {
			p.Only, p.Allow = true, map[string]uint32{"wl_compositor": 4, "wl_shm": 1, "xdg_wm_base": 2}
		}, map[string]uint32{"wl_seat": 0, "zwp_linux_dmabuf_v1": 0, "wl_compositor": 4, "xdg_wm_base": 2}},
		"deny wins": {func(p *proxy.Policy) { p.Allow, p.Deny = map[string]uint32{"wl_seat": 5}, []string{"wl_seat"} }, map[string]uint32{"wl_seat": 0}},
	} {
		t.Run(name, func(t *testing.T) {
			p := proxy.DefaultPolicy()
			k.rule(p)
			c := withPolicy(t, p)
			for iface, want := range k.want {
				if got := c.Version(iface); got != want {
					t.Errorf("%s has version %d, want %d", iface, got, want)
				}
			}
		})
	}
}

// TestClockRule hides protocols with times from a guest whose clock is not known.
func TestClockRule(t *testing.T) {
	comp := waylandtest.New(t, everything(t))
	d := perBuffer
	d.HasClock = false
	c := proxytest.New(t, newProxy(t, comp, proxy.Config{}), proxytest.Options{Dialect: d})
	for _, iface := range []string{"wp_presentation", "wp_commit_timing_manager_v1"} {
		if v := c.Version(iface); v != 0 {
			t.Errorf("%s version %d is offered", iface, v)
		}
	}
}

// TestPrefixes marks windows, also those that are silent.
func TestPrefixes(t *testing.T) {
	p := proxy.DefaultPolicy()
	p.TitlePrefix, p.AppIDPrefix = "[vm] ", "vm."
	comp := waylandtest.New(t, waylandtest.Config{})
	px := newProxy(t, comp, proxy.Config{Policy: p})
	c := connect(t, px)
	w := c.NewWindow()
	last := func() waylandtest.Commit {
		w.Surface.Commit(&c.Out)
		c.Roundtrip()
		all := comp.Commits()
		return all[len(all)-1]
	}
	if k := last(); k.Title != "[vm] " || k.AppID != "vm." {
		t.Errorf("silent window: %q, %q", k.Title, k.AppID)
	}
	w.Top.SetTitle(&c.Out, "tïtle")
	w.Top.SetAppId(&c.Out, "app")
	if k := last(); k.Title != "[vm] tïtle" || k.AppID != "vm.app" {
		t.Errorf("%q, %q", k.Title, k.AppID)
	}
	if ws := px.Windows(); ws[0].Title != "tïtle" || ws[0].App != "app" {
		t.Errorf("windows: %+v", ws)
	}
	w.Top.SetTitle(&c.Out, "bad \xff\xc3"+strings.Repeat("é", 1000))
	if k := last(); !strings.HasPrefix(k.Title, "[vm] bad \uFFFDéé") || len(k.Title) > 1024 {
		t.Errorf("%d bytes: %.40q", len(k.Title), k.Title)
	}
}

func TestLoadPolicy(t *testing.T) {
	p, err := proxy.LoadPolicy("../../../docs/policy-untrusted.toml")
	if err != nil {
		t.Fatal(err)
	}
	comp := waylandtest.New(t, everything(t))
	c := connect(t, newProxy(t, comp, proxy.Config{Policy: p, Resources: proxytest.NewResources(dmabuf.XRGB8888)}))
	names := offered(c)
	for _, name := range append(slices.Concat(forbidden, p.Deny), "wl_data_device_manager", "zwp_primary_selection_device_manager_v1") {
		if slices.Contains(names, name) {
			t.Errorf("%s is offered", name)
		}
	}
	w := c.NewWindow()
	w.Surface.Commit(&c.Out)
	c.Roundtrip()
	if all := comp.Commits(); all[len(all)-1].Title != "[untrusted] " || all[len(all)-1].AppID != "untrusted." {
		t.Errorf("window %+v", all[len(all)-1])
	}

	dir := t.TempDir()
	for _, k := range []struct{ name, text, bad string }{
		{"ok.json", `{"clipboard": false, "limits": {"objects": 5, "park_time": "1s"}, "allow": {"wl_seat": 3}}`, ""},
		{"empty.toml", ``, ""},
		{"key.toml", "clipbord = false", "clipbord"},
		{"key.json", `{"clipbord": false}`, "clipbord"},
		{"type.toml", "clipboard = 3", "clipboard"},
		{"syntax.toml", "clipboard = ", "line 1"},
		{"capture.toml", "[allow]\nzwlr_screencopy_manager_v1 = 3", "zwlr_screencopy_manager_v1"},
		{"context.toml", "[allow]\nwp_security_context_manager_v1 = 1", "wp_security_context_manager_v1"},
		{"limit.toml", "[limits]\nobjects = -1", "objects"},
		{"time.toml", "[limits]\npark_time = \"soon\"", "park_time"},
		{"prefix.toml", `title_prefix = "` + strings.Repeat("x", 300) + `"`, "title_prefix"},
	} {
		path := filepath.Join(dir, k.name)
		if err := os.WriteFile(path, []byte(k.text), 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := proxy.LoadPolicy(path)
		if (err == nil) != (k.bad == "") || (k.bad != "" && (!errors.Is(err, proxy.ErrPolicy) || !strings.Contains(err.Error(), k.bad))) {
			t.Errorf("%s: %v, want an error with %q", k.name, err, k.bad)
		}
		if k.name == "ok.json" && (p.Clipboard || p.Limits.Objects != 5 || p.Allow["wl_seat"] != 3 || !p.SecurityContext) {
			t.Errorf("%s: %+v", k.name, p)
		}
	}
	if _, err := proxy.LoadPolicy(filepath.Join(dir, "none")); err == nil {
		t.Error("a missing file is no error")
	}
}
