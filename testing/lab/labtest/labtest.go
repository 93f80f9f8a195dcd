// Package labtest gives tests the lab's machines, and takes them away at the
// test's end.
package labtest

import (
	"os"
	"testing"

	"github.com/gpubroker/gpubroker/testing/lab"
)

// Env is the variable that turns on tests which boot guests and start
// compositors; `make test` sets it to 1.
const Env = "GPUBROKER_VM"

// Root returns the lab root. It skips the test unless GPUBROKER_VM=1, and then
// fails it if the root is missing.
func Root(t testing.TB) *lab.Root {
	t.Helper()
	if os.Getenv(Env) != "1" {
		t.Skipf("needs the lab root and starts real programs: set %s=1 (make test does)", Env)
	}
	root, err := lab.Find()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// EnvFull turns on the tests that take many minutes; `make test-full` sets it.
const EnvFull = "GPUBROKER_FULL"

// Full skips the test unless GPUBROKER_FULL=1.
func Full(t testing.TB) {
	t.Helper()
	if os.Getenv(EnvFull) != "1" {
		t.Skipf("takes many minutes: set %s=1 (make test-full does)", EnvFull)
	}
}

// VM starts a guest; see [lab.Root.StartVM]. A failed test logs its console.
func VM(t testing.TB, cfg lab.VMConfig) *lab.VM {
	t.Helper()
	vm, err := Root(t).StartVM(t.Context(), cfg)
	return keepVM(t, vm, err)
}

// HostVM starts a guest that plays the host; see [lab.Root.StartHostVM].
func HostVM(t testing.TB, cfg lab.VMConfig) *lab.VM {
	t.Helper()
	vm, err := Root(t).StartHostVM(t.Context(), cfg)
	return keepVM(t, vm, err)
}

func keepVM(t testing.TB, vm *lab.VM, err error) *lab.VM {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console of the guest:\n%s", vm.Console())
		}
		vm.Close()
	})
	return vm
}

// Weston starts a headless weston; see [lab.Root.Weston].
func Weston(t testing.TB, opt lab.WestonOptions) *lab.Compositor {
	t.Helper()
	c, err := Root(t).Weston(t.Context(), opt)
	return keepCompositor(t, c, err)
}

// Sway starts a headless sway; see [lab.Root.Sway].
func Sway(t testing.TB, opt lab.SwayOptions) *lab.Compositor {
	t.Helper()
	c, err := Root(t).Sway(t.Context(), opt)
	return keepCompositor(t, c, err)
}

func keepCompositor(t testing.TB, c *lab.Compositor, err error) *lab.Compositor {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the compositor:\n%s", c.Log())
		}
		c.Stop()
	})
	return c
}

// Xvfb starts an X server; see [lab.Root.Xvfb].
func Xvfb(t testing.TB, w, h int) *lab.Xvfb {
	t.Helper()
	x, err := Root(t).Xvfb(t.Context(), w, h, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.Stop)
	return x
}
