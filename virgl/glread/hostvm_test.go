//go:build cgo && egl

package glread_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

// TestHostVM runs this package's tests in a virtual machine with udmabuf, where there
// are dma-bufs to import. They are built here, with cgo.
func TestHostVM(t *testing.T) {
	vm := labtest.HostVM(t, lab.VMConfig{})
	bin := filepath.Join(t.TempDir(), "glread.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "egl", "-o", bin, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, code, err := vm.RunBinary(t.Context(), bin, nil, "-test.v", "-test.skip=TestHostVM")
	if err != nil {
		t.Fatal(err)
	}
	if code != 0 || strings.Contains(out, "--- SKIP") {
		t.Errorf("exit code %d, or tests skipped:\n%s", code, out)
		return
	}
	t.Log(out)
}
