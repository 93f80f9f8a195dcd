package gbm_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

// TestHostVM runs this package's tests in a virtual machine with a DRM node (vgem)
// and udmabuf.
func TestHostVM(t *testing.T) {
	vm := labtest.HostVM(t, lab.VMConfig{})
	bin := filepath.Join(t.TempDir(), "gbm.test")
	if err := lab.BuildTest(t.Context(), "github.com/gpubroker/gpubroker/gbm", bin); err != nil {
		t.Fatal(err)
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
