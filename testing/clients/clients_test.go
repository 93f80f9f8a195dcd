package clients_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
	"github.com/gpubroker/gpubroker/testing/clients"
	"github.com/gpubroker/gpubroker/testing/golden"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

func TestMain(m *testing.M) { fdtest.Main(m) }

// programs builds gpubroker and gpubroker-guest once. The folder is the checkout's
// own for results, so that nothing has to be removed.
var programs = sync.OnceValues(func() (clients.Programs, error) {
	return clients.BuildPrograms(context.Background(), filepath.Join("..", "..", "out", "bin"))
})

// direct shows what a client looks like on the compositor itself.
func direct(t *testing.T, comp *clients.Compositor, c *clients.Case) *clients.Result {
	t.Helper()
	r := clients.Run(t.Context(), c, comp, &clients.Direct{Root: labtest.Root(t), Compositor: comp}, nil)
	if !r.OK {
		t.Fatalf("%s directly on %s: %s", c.Name, comp.Name, r.Why)
	}
	return r
}

// report logs a result; what is not ok fails the test, with the pictures kept.
func report(t *testing.T, r, want *clients.Result) {
	t.Helper()
	if r.OK {
		t.Logf("%s, %s, %s: %s (%.1f s)", r.Client, r.Transport, r.Compositor, r.Why, r.Seconds)
		return
	}
	t.Errorf("%s, %s, %s: %s", r.Client, r.Transport, r.Compositor, r.Why)
	for name, r := range map[string]*clients.Result{"got": r, "want": want} {
		if r != nil && r.Look != nil && r.Look.Last != nil {
			golden.Keep(t, r.Client+"-"+r.Compositor+"-"+name, r.Look.Last.Image())
		}
	}
}

// TestUnix runs clients through gpubroker and gpubroker-guest on this machine, and
// compares their windows with those of direct runs: all of the way of a window but
// the virtual machine. `make clients` runs more of them, in guests too.
func TestUnix(t *testing.T) {
	root := labtest.Root(t)
	p, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	for _, on := range []struct {
		compositor string
		clients    []string
	}{
		{clients.WestonPixman, []string{"wayland-info", "weston-simple-shm", "weston-simple-damage-viewport", "weston-presentation-shm",
			"weston-simple-egl", "weston-subsurfaces", "weston-scaler", "weston-terminal", "gtk4-demo-cairo"}},
		{clients.Sway, []string{"wayland-info", "foot", "weston-terminal", "weston-cliptest"}},
	} {
		t.Run(on.compositor, func(t *testing.T) {
			comp, err := clients.StartCompositor(t.Context(), root, on.compositor)
			if err != nil {
				t.Fatal(err)
			}
			defer comp.Stop()
			u, err := clients.StartUnix(t.Context(), root, p, comp, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if t.Failed() {
					t.Logf("gpubroker-guest said:\n%s\ngpubroker said:\n%s", u.Log(), u.Broker().Log())
				}
				if _, err := u.Close(); err != nil {
					t.Error(err)
				}
			}()
			for _, name := range on.clients {
				c, ok := clients.Find(name)
				if !ok {
					t.Fatalf("no client %s", name)
				}
				want := direct(t, comp, &c)
				report(t, clients.Run(t.Context(), &c, comp, u, want), want)
				if name != "weston-terminal" {
					continue
				}
				for _, r := range clients.Faults(t.Context(), &c, comp, u, want) {
					report(t, r, want)
				}
			}
			if comp.Keyboard() {
				for _, r := range clients.Clipboards(t.Context(), comp, u, &clients.Direct{Root: root, Compositor: comp}) {
					report(t, r, nil)
				}
			}
			if err := u.Healthy(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestNames: names are unique, for the report and its pictures.
func TestNames(t *testing.T) {
	names := clients.Names()
	slices.Sort(names)
	if n := len(slices.Compact(slices.Clone(names))); n != len(names) {
		t.Errorf("%d names for %d clients", n, len(names))
	}
	for _, name := range names {
		if filepath.Base(name) != name || name == string(os.PathSeparator) {
			t.Errorf("name %q", name)
		}
	}
}
