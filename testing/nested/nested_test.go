// Package nested runs a guest on gpubroker within a guest that has real dma-bufs.
package nested

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
	"github.com/gpubroker/gpubroker/testing/nested/inner"
)

// TestNestedBroker takes about a quarter of an hour, most of it to boot a kernel that is
// emulated twice.
func TestNestedBroker(t *testing.T) {
	labtest.Full(t)
	share := t.TempDir()
	vm := labtest.HostVM(t, lab.VMConfig{Share: share, Output: t.Output()})
	if err := brokerproc.Build(t.Context(), filepath.Join(share, "gpubroker")); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(t.TempDir(), "inner.test")
	if err := lab.BuildTest(t.Context(), "github.com/gpubroker/gpubroker/testing/nested/inner", binary); err != nil {
		t.Fatal(err)
	}
	env := []string{labtest.Env + "=1", labtest.EnvFull + "=1", inner.EnvBinary + "=/lab/share/gpubroker"}
	out, code, err := vm.RunBinary(t.Context(), binary, env, "-test.v", "-test.timeout=55m", "-test.run=^TestNestedBroker$")
	if err != nil {
		t.Fatal(err)
	}
	if code != 0 || !strings.Contains(out, "--- PASS: TestNestedBroker") {
		t.Errorf("the inner test ended with code %d", code)
	}
}
