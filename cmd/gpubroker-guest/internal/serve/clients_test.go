package serve_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/serve"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

const patience = 60 * time.Second

// clients are real programs that draw in shared memory.
var clients = []struct {
	argv   []string
	app    string // part of app id or title
	frames uint64 // at least
}{
	{[]string{"weston-simple-shm"}, "simple-shm", 5},
	{[]string{"weston-simple-damage"}, "simple-damage", 5},
	{[]string{"weston-presentation-shm"}, "presentation-shm", 5},
	{[]string{"weston-flower"}, "Flower", 1},
	{[]string{"weston-terminal"}, "terminal", 1},
	{[]string{"weston-smoke"}, "smoke", 5},
}

// TestClients runs real clients through both ends, in a real compositor.
func TestClients(t *testing.T) {
	root := labtest.Root(t)
	weston := labtest.Weston(t, lab.WestonOptions{})
	h := newHost(t, filepath.Join(t.TempDir(), "host"), weston.Socket())
	g := newGuest(t, "unix:"+h.socket)
	for _, c := range clients {
		t.Run(c.argv[0], func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			cmd := root.Command(ctx, lab.CommandOptions{Env: []string{
				"WAYLAND_DISPLAY=" + g.display, "XDG_RUNTIME_DIR=" + filepath.Dir(g.display)}}, c.argv...)
			out := &strings.Builder{}
			cmd.Stdout, cmd.Stderr = out, out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			defer func() { cancel(); <-ended }()
			wait(t, ended, out, func() bool {
				for _, w := range h.proxy.Windows() {
					if w.Frames["shm"] >= c.frames && strings.Contains(w.App+w.Title, c.app) {
						t.Logf("%+v", w)
						return true
					}
				}
				return false
			}, h.proxy, g.server)
			st := g.server.Status(g.display)
			if len(st.Clients) != 1 || st.Clients[0].Frames["stream"] < c.frames || st.Clients[0].Copied["stream"] == 0 {
				t.Errorf("status %+v", st)
			}
		})
		wait(t, nil, nil, func() bool { return h.proxy.Clients() == 0 }, h.proxy, g.server)
	}
	g.server.WaitIdle()
}

// wait waits for something, and fails if the client ends before.
func wait(t *testing.T, ended chan error, out *strings.Builder, ok func() bool, p *proxy.Proxy, s *serve.Server) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("the client ended: %v\n%s", err, out)
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("not in %v; host %+v, guest %+v", patience, p.Windows(), s.Status(""))
		}
	}
}
