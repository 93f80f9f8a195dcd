package dmabuf_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

// TestHostVM runs this package's tests in a virtual machine whose kernel has udmabuf,
// a dma-heap, vgem, and in virtio-gpu a driver with syncobjs; none may be skipped there.
func TestHostVM(t *testing.T) {
	vm := labtest.HostVM(t, lab.VMConfig{Devices: []string{"-device", "virtio-gpu-pci"}})
	if out, err := vm.Check(t.Context(), "modprobe virtio_gpu"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	bin := filepath.Join(t.TempDir(), "dmabuf.test")
	if err := lab.BuildTest(t.Context(), "github.com/gpubroker/gpubroker/dmabuf", bin); err != nil {
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
