package metrics

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/unixsock"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
)

func TestMain(m *testing.M) { fdtest.Main(m) }

// full is a snapshot in which every number is another.
func full() Snapshot {
	var h display.Histogram
	h.Add(100_000)
	h.Add(3_000_000)
	return Snapshot{
		Version: "1.2", Renderer: "lib", Node: "surfaceless", Display: "wayland", Connected: true,
		Frames: map[string]uint64{"dmabuf": 11, "copy": 12}, FramesSkipped: 13, CopiedFrames: 14, CopiedCursors: 15,
		Commands:   map[string]Command{"SUBMIT_3D": {16, 17}},
		RingErrors: 18, Submits: 19, Flushes: 20, Fences: 21, Exports: 22, Imports: 23, CopyWaits: 24, PaceCaps: 25, Reconnects: 26,
		FencesOutstanding: 27, ImportsLive: 28, Resources: map[string]int{"2d": 29}, Contexts: 30, Scanouts: 31,
		WindowSize: 32, WindowUsed: 33, Mappings: 34, MappingsLimit: 35, FlushToCommit: h.Distribution(),
		Supervised: true, WorkerDeaths: map[string]uint64{"watchdog": 36}, LastDeath: Death{"watchdog", "37", "glxgears", "SUBMIT_3D"},
		Vtest: &Vtest{Clients: 51, Resources: 52, Bytes: 53, Total: 54, Ended: 55, Submits: 56},
	}
}

func listen(t *testing.T, addr string, source func() Snapshot) *Server {
	t.Helper()
	s, err := Listen(addr, source, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func get(t *testing.T, s *Server, path string) (int, string) {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, s.Addr().Network(), s.Addr().String())
	}}
	resp, err := (&http.Client{Transport: transport}).Get("http://broker" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestScrape: every number arrives under its name.
func TestScrape(t *testing.T) {
	for _, addr := range []string{"unix:" + filepath.Join(t.TempDir(), "m"), "127.0.0.1:0"} {
		s := listen(t, addr, full)
		code, body := get(t, s, "/metrics")
		if code != http.StatusOK {
			t.Fatalf("%s: %d %s", addr, code, body)
		}
		lines := strings.Split(body, "\n")
		for _, want := range []string{
			`gpubroker_responsive 1`, `gpubroker_info{display="wayland",node="surfaceless",renderer="lib",version="1.2"} 1`, `gpubroker_connected 1`,
			`gpubroker_frames_total{tier="dmabuf"} 11`, `gpubroker_frames_total{tier="copy"} 12`, `gpubroker_frames_skipped_total 13`,
			`gpubroker_copied_bytes_total{what="frame"} 14`, `gpubroker_copied_bytes_total{what="cursor"} 15`,
			`gpubroker_commands_total{command="SUBMIT_3D"} 16`, `gpubroker_command_errors_total{command="SUBMIT_3D"} 17`,
			`gpubroker_ring_errors_total 18`, `gpubroker_submits_total 19`, `gpubroker_flushes_total 20`, `gpubroker_fences_total 21`,
			`gpubroker_exports_total 22`, `gpubroker_imports_total 23`, `gpubroker_copy_waits_total 24`, `gpubroker_pace_caps_total 25`,
			`gpubroker_display_reconnects_total 26`, `gpubroker_fences_outstanding 27`, `gpubroker_imports 28`, `gpubroker_resources{kind="2d"} 29`,
			`gpubroker_contexts 30`, `gpubroker_scanouts 31`, `gpubroker_window_bytes 32`, `gpubroker_window_used_bytes 33`,
			`gpubroker_window_mappings 34`, `gpubroker_window_mappings_limit 35`,
			`gpubroker_vtest_clients 51`, `gpubroker_vtest_resources 52`, `gpubroker_vtest_bytes 53`, `gpubroker_vtest_clients_total 54`,
			`gpubroker_vtest_clients_ended_total 55`, `gpubroker_vtest_submits_total 56`,
			`gpubroker_flush_to_commit_seconds_bucket{le="6.4e-05"} 0`, `gpubroker_flush_to_commit_seconds_bucket{le="0.000128"} 1`,
			`gpubroker_flush_to_commit_seconds_bucket{le="0.002048"} 1`, `gpubroker_flush_to_commit_seconds_bucket{le="0.004096"} 2`,
			`gpubroker_flush_to_commit_seconds_sum 0.0031`, `gpubroker_flush_to_commit_seconds_count 2`,
		} {
			if !slices.Contains(lines, want) {
				t.Errorf("%s: no line %s", addr, want)
			}
		}
		if !regexp.MustCompile(`(?m)^process_open_fds [1-9]`).MatchString(body) {
			t.Error("no count of descriptors")
		}
		if code, body := get(t, s, "/"); code != http.StatusOK || !strings.Contains(body, "/metrics") {
			t.Errorf("/: %d %s", code, body)
		}
		if code, _ := get(t, s, "/secrets"); code != http.StatusNotFound {
			t.Errorf("/secrets: %d", code)
		}
		if t.Failed() {
			t.Log(body)
		}
	}
}

// TestDocumented: docs/metrics.md lists what is there, with its type.
func TestDocumented(t *testing.T) {
	f, err := os.Open("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	row := regexp.MustCompile("^\\| `(gpubroker_[a-z_]+)` \\| ([a-z]+) \\|")
	var documented []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if m := row.FindStringSubmatch(lines.Text()); m != nil {
			documented = append(documented, m[1]+" "+m[2])
		}
	}
	_, body := get(t, listen(t, "127.0.0.1:0", full), "/metrics")
	var have []string
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (gpubroker_[a-z_]+ [a-z]+)$`).FindAllStringSubmatch(body, -1) {
		have = append(have, m[1])
	}
	slices.Sort(documented)
	slices.Sort(have)
	if !slices.Equal(documented, have) {
		t.Errorf("documented %q\nserved %q", documented, have)
	}
}

// TestHungBroker: a scrape says so in time, and nothing piles up behind it.
func TestHungBroker(t *testing.T) {
	var asked atomic.Int32
	release := make(chan struct{})
	c := &collector{patience: 50 * time.Millisecond, source: func() Snapshot {
		n := asked.Add(1)
		if n == 1 {
			<-release
		}
		return Snapshot{Submits: uint64(n)}
	}}
	for range 3 {
		if _, ok := c.snapshot(); ok {
			t.Error("a broker that hangs answered")
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	close(release)
	c.patience = time.Minute
	if s, ok := c.snapshot(); !ok || s.Submits != 2 {
		t.Errorf("%v, submits %d: want what is newer than the question that hung", ok, s.Submits)
	}
}

func TestAddresses(t *testing.T) {
	for _, addr := range []string{"", "unix:", "9090", "/run/metrics", "localhost:", "a:b:c"} {
		if _, err := Listen(addr, full, zap.NewNop()); !errors.Is(err, ErrAddress) {
			t.Errorf("%q: %v, want ErrAddress", addr, err)
		}
	}
	path := filepath.Join(t.TempDir(), "m")
	s := listen(t, "unix:"+path, full)
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket mode %v, %v", st.Mode(), err)
	}
	var op *OpError
	if _, err := Listen("unix:"+path, full, zap.NewNop()); !errors.Is(err, unixsock.ErrInUse) || !errors.As(err, &op) {
		t.Errorf("in use: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}
