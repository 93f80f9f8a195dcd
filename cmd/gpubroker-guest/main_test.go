package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
)

func TestMain(m *testing.M) { fdtest.Main(m) }

// cli runs the program and returns what it wrote.
func cli(ctx context.Context, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(ctx, args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestUsage(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	for _, c := range []struct {
		args []string
		code int
		say  string // in either output
	}{
		{[]string{}, 0, "Usage:"},
		{[]string{"--help"}, 0, "Usage:"},
		{[]string{"version"}, 0, "gpubroker-guest"},
		{[]string{"run"}, 2, "which command"},
		{[]string{"run", "--x11=other", "true"}, 2, "--x11=other"},
		{[]string{"run", "there-is-no-such-program"}, 1, "not found"},
		{[]string{"serve", "extra"}, 2, "extra"},
		{[]string{"serve", "--no-such-flag"}, 2, "no-such-flag"},
		{[]string{"serve", "--transport", "pigeon"}, 1, "pigeon"},
		{[]string{"serve", "--transport", "vsock:x:y"}, 1, "two numbers"},
		{[]string{"serve", "--transport", "cross-domain"}, 1, "render node"},
		{[]string{"serve", "--log-level", "loud"}, 2, "loud"},
		{[]string{"serve", "--log-format", "xml"}, 2, "xml"},
		{[]string{"status"}, 1, "no gpubroker-guest serves"},
	} {
		code, out, errs := cli(t.Context(), c.args...)
		if code != c.code || !strings.Contains(out+errs, c.say) {
			t.Errorf("%q: code %d, want %d and %q in:\n%s%s", c.args, code, c.code, c.say, out, errs)
		}
	}
	left, err := os.ReadDir(os.Getenv("XDG_RUNTIME_DIR"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

// TestServeAndStatus has a display whose host is not there: clients are told so, and
// the status counts them.
func TestServeAndStatus(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", dir)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if code, _, errs := cli(ctx, "serve", "--transport", "unix:"+filepath.Join(dir, "host"), "--display", "d"); code != 0 {
			t.Errorf("serve: code %d: %s", code, errs)
		}
	}()
	defer func() { cancel(); <-done }()
	var c net.Conn
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var err error
		if c, err = net.Dial("unix", filepath.Join(dir, "d")); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	answer := make([]byte, 4096)
	n, err := c.Read(answer)
	if err != nil || !strings.Contains(string(answer[:n]), "no connection to the host") {
		t.Errorf("the client reads %q (%v)", answer[:n], err)
	}
	_ = c.Close()

	if code, _, errs := cli(ctx, "serve", "--transport", "unix:/x", "--display", "d"); code != 1 || !strings.Contains(errs, "another program") {
		t.Errorf("a second server: code %d: %s", code, errs)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		code, out, errs := cli(ctx, "status", "--display", "d")
		if code == 0 && strings.Contains(out, "refused so far: 1") && strings.Contains(out, "transport  unix") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("status: code %d\n%s%s", code, out, errs)
		}
	}
	if code, out, _ := cli(ctx, "status", "--display", "d", "--json"); code != 0 || !strings.Contains(out, `"refused": 1`) {
		t.Errorf("status --json: code %d\n%s", code, out)
	}
}

// TestRun runs programs with and without a server.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", dir)
	t.Setenv("DISPLAY", ":77")
	tr := "unix:" + filepath.Join(dir, "host")
	out := filepath.Join(dir, "out")
	code, _, errs := cli(t.Context(), "run", "--transport", tr, "sh", "-c", `echo "$WAYLAND_DISPLAY ${DISPLAY-none}" > `+out+`; exit 7`)
	if code != 7 {
		t.Errorf("code %d, want the program's 7: %s", code, errs)
	}
	got, err := os.ReadFile(out)
	if want := filepath.Join(dir, "wayland-gpubroker") + " none\n"; err != nil || string(got) != want {
		t.Errorf("environment %q (%v), want %q", got, err, want)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "wayland*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if code, _, errs := cli(t.Context(), "run", "--transport", "unix:", "true"); code != 1 || !strings.Contains(errs, "unix:PATH") {
		t.Errorf("bad transport: code %d: %s", code, errs)
	}
	t.Setenv("PATH", "/nowhere")
	code, _, errs = cli(t.Context(), "run", "--transport", tr, "--x11", "/bin/true")
	if code != 1 || !strings.Contains(errs, "xwayland-satellite") || !strings.Contains(errs, "rootful") {
		t.Errorf("no X server: code %d: %s", code, errs)
	}
}
