package serve_test

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

const patience = 60 * time.Second

// clients are real programs that draw in shared memory.
var clients = []struct {
	argv   []string
	app    string // part of app id or title
	frames uint64 // at least
	not    string // a compositor where it does not run directly either
	why    string
}{
	{[]string{"weston-simple-shm"}, "simple-shm", 5, "", ""},
	{[]string{"weston-simple-damage"}, "simple-damage", 5, "sway", "it ends by itself where there are no input devices"},
	{[]string{"weston-presentation-shm"}, "presentation-shm", 5, "", ""},
	{[]string{"weston-flower"}, "Flower", 1, "", ""},
	{[]string{"weston-terminal"}, "terminal", 1, "", ""},
	{[]string{"weston-smoke"}, "smoke", 5, "", ""},
	{[]string{"foot", "sh", "-c", "seq 3000; sleep 100"}, "foot", 3, "weston", "it wants a seat, which headless weston has not"},
	{[]string{"gtk4-demo"}, "GTK Demo", 1, "", ""},
}

// program is a running client.
type program struct {
	stop  func()
	ended chan error
	out   *strings.Builder
}

// start runs a program of the lab root in the guest's display.
func start(t *testing.T, root *lab.Root, g *guest, argv ...string) *program {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := root.Command(ctx, lab.CommandOptions{Env: []string{"WAYLAND_DISPLAY=" + g.display, "GSK_RENDERER=cairo",
		"XDG_RUNTIME_DIR=" + filepath.Dir(g.display)}}, argv...)
	p := &program{ended: make(chan error, 1), out: &strings.Builder{}}
	cmd.Stdout, cmd.Stderr = p.out, p.out
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	go func() { p.ended <- cmd.Wait() }()
	p.stop = sync.OnceFunc(func() { cancel(); <-p.ended })
	t.Cleanup(p.stop)
	return p
}

// shows reports whether a window has shown that many frames of a tier.
func (h *host) shows(name, tier string, frames uint64) bool {
	for _, w := range h.proxy.Windows() {
		if w.Frames[tier] >= frames && strings.Contains(w.App+w.Title, name) {
			return true
		}
	}
	return false
}

// TestClients runs real clients through both ends, in real compositors.
func TestClients(t *testing.T) {
	root := labtest.Root(t)
	for name, open := range map[string]func() *lab.Compositor{
		"weston": func() *lab.Compositor { return labtest.Weston(t, lab.WestonOptions{}) },
		"sway":   func() *lab.Compositor { return labtest.Sway(t, lab.SwayOptions{}) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, filepath.Join(t.TempDir(), "host"), open().Socket())
			g := newGuest(t, "unix:"+h.socket)
			for _, c := range clients {
				t.Run(c.argv[0], func(t *testing.T) {
					if c.not == name {
						t.Skip(c.why)
					}
					p := start(t, root, g, c.argv...)
					wait(t, p, func() bool { return h.shows(c.app, "shm", c.frames) }, h, g)
					st := g.server.Status(g.display)
					if len(st.Clients) != 1 || st.Clients[0].Frames["stream"] < c.frames || st.Clients[0].Copied["stream"] == 0 {
						t.Errorf("status %+v", st)
					}
				})
				wait(t, nil, func() bool { return h.proxy.Clients() == 0 }, h, g)
			}
			g.server.WaitIdle()
		})
	}
}

// TestRestarts ends the compositor and the host's end under a client: it ends with an
// error, and the next is served as if nothing had been.
func TestRestarts(t *testing.T) {
	root := labtest.Root(t)
	dir := t.TempDir()
	weston := labtest.Weston(t, lab.WestonOptions{})
	h := newHost(t, filepath.Join(dir, "host"), weston.Socket())
	g := newGuest(t, "unix:"+h.socket)
	first := start(t, root, g, "weston-simple-shm")
	wait(t, first, func() bool { return h.shows("simple-shm", "shm", 3) }, h, g)
	weston.Stop()
	select {
	case <-first.ended:
		first.ended <- nil
	case <-time.After(patience):
		t.Fatal("the client does not end with the compositor")
	}
	if !strings.Contains(first.out.String(), "error 3") {
		t.Errorf("the client says %q", first.out)
	}
	h.stop()
	refused := start(t, root, g, "weston-simple-shm")
	<-refused.ended
	refused.ended <- nil
	if !strings.Contains(refused.out.String(), "no connection to the host") {
		t.Errorf("without a host the client says %q", refused.out)
	}
	h = newHost(t, filepath.Join(dir, "host"), labtest.Weston(t, lab.WestonOptions{}).Socket())
	last := start(t, root, g, "weston-simple-shm")
	wait(t, last, func() bool { return h.shows("simple-shm", "shm", 3) }, h, g)
}

// wait waits for something, and fails if the client ends before.
func wait(t *testing.T, p *program, ok func() bool, h *host, g *guest) {
	t.Helper()
	if p == nil {
		p = &program{}
	}
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
		select {
		case err := <-p.ended:
			p.ended <- err
			t.Fatalf("the client ended: %v\n%s", err, p.out)
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("not in %v; host %+v, guest %+v", patience, h.proxy.Windows(), g.server.Status(""))
		}
	}
}
