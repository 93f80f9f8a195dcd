package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gpubroker/gpubroker/broker/virtiogpu"
)

// get scrapes a socket.
func get(t *testing.T, path string) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	resp, err := client.Get("http://broker/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestMetrics scrapes a running broker.
func TestMetrics(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics")
	s := serveProgram(t, "--virgl=off", "--metrics", "unix:"+path)
	s.ok((&virtiogpu.ResourceCreate2D{ResourceID: 3, Format: virtiogpu.FormatB8G8R8A8, Width: 64, Height: 64}).Append(nil))
	whole := virtiogpu.Rect{Width: 64, Height: 64}
	s.ok((&virtiogpu.SetScanout{ScanoutID: 0, ResourceID: 3, R: whole}).Append(nil))
	s.ok((&virtiogpu.ResourceFlush{ResourceID: 3, R: whole}).Append(nil))
	body := get(t, path)
	for _, want := range []string{
		"gpubroker_responsive 1\n", "gpubroker_connected 1\n", `gpubroker_frames_total{tier="shm"} 1`, `gpubroker_resources{kind="2d"} 1`,
		`gpubroker_commands_total{command="RESOURCE_FLUSH"} 1`, `gpubroker_command_errors_total{command="RESOURCE_FLUSH"} 0`,
		`gpubroker_info{display="headless"`, "gpubroker_flush_to_commit_seconds_count 1\n", "gpubroker_scanouts 1\n",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in\n%s", want, body)
		}
	}
}

func TestMetricsUsage(t *testing.T) {
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), []string{"serve", "--socket-path", filepath.Join(t.TempDir(), "s"), "--metrics", "9090"}, &stdout, &stderr)
	if code != exitUsage || !strings.Contains(stderr.String(), `--metrics "9090": want unix:PATH or HOST:PORT`) {
		t.Errorf("code %d, %s", code, &stderr)
	}
}
