package virgl_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

// TestHostVM runs this package's tests in a virtual machine whose kernel has udmabuf
// and vgem: there llvmpipe exports real dma-bufs. Once without a node and once on
// vgem's card0.
func TestHostVM(t *testing.T) {
	vm := labtest.HostVM(t, lab.VMConfig{})
	bin := filepath.Join(t.TempDir(), "virgl.test")
	if err := lab.BuildTest(t.Context(), "github.com/gpubroker/gpubroker/virgl", bin); err != nil {
		t.Fatal(err)
	}
	for node, tests := range map[string]string{
		"":               "Export|Fence|Reset|Info|MissingLibrary",
		"/dev/dri/card0": "ExportColors|ExportOutlives|FenceCovers|Triangle|Info",
	} {
		out, code, err := vm.RunBinary(t.Context(), bin, []string{"GPUBROKER_TEST_NODE=" + node},
			"-test.v", "-test.run", tests, "-test.timeout=8m")
		if err != nil {
			t.Fatal(err)
		}
		if code != 0 {
			t.Errorf("node %q: exit code %d\n%s", node, code, out)
			continue
		}
		if strings.Contains(out, "--- SKIP: TestExport") || strings.Contains(out, "--- SKIP: TestFence") {
			t.Errorf("node %q: tests of dma-bufs were skipped\n%s", node, out)
		}
		t.Logf("node %q:\n%s", node, out)
	}
}
