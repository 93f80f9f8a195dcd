package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/inguest"
	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

// guestPackages are those with tests for a guest.
var guestPackages = []string{"drm", "shm", "relay"}

// modeB is the device of QEMU 11.1 that passes everything on.
const modeB = "vhost-user-test-device-pci,virtio-id=16,num_vqs=2,vq_size=256,config_size=16,chardev="

// TestGuest runs the tests of the packages inside a real guest with a GPU and an
// import device, each served by a gpubroker.
func TestGuest(t *testing.T) {
	root := labtest.Root(t)
	dir := t.TempDir()
	broker := filepath.Join(dir, "gpubroker")
	if err := brokerproc.Build(t.Context(), broker); err != nil {
		t.Fatal(err)
	}
	var devices []string
	for id, args := range map[string][]string{"gpu": {"--virgl=on", "--hostmem", "256M"}, "import": {"--virgl=off", "--hostmem", "0"}} {
		b, err := brokerproc.Start(t.Context(), root, brokerproc.Options{Binary: broker,
			Args: append([]string{"--display", "headless"}, args...)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if _, err := b.Stop(); err != nil {
				t.Errorf("stop: %v", err)
			}
			if t.Failed() {
				t.Logf("gpubroker %s said:\n%s", id, b.Log())
			}
		})
		devices = append(devices, "-chardev", "socket,id="+id+",path="+b.Socket, "-device", modeB+id)
	}
	vm := labtest.VM(t, lab.VMConfig{Devices: devices})
	for _, name := range guestPackages {
		bin := filepath.Join(dir, name+".test")
		build := exec.Command("go", "test", "-c", "-o", bin, "./internal/"+name)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("go test -c: %v\n%s", err, out)
		}
		if _, err := vm.PutFile(bin); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := vm.Check(t.Context(), `modprobe virtio_gpu
for i in $(seq 100); do [ -e /dev/dri/renderD129 ] && exit 0; sleep 0.1; done; ls /dev/dri; exit 1`); err != nil {
		t.Fatal(err)
	}
	for _, name := range guestPackages {
		out, err := vm.Check(t.Context(), "cd /tmp; "+inguest.Variable+"=1 /lab/share/"+name+".test -test.v -test.run 'Guest|Node|Blob|Foreign|Tier' 2>&1")
		t.Log(out)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Contains(out, "--- SKIP") {
			t.Errorf("%s: a test was skipped", name)
		}
	}
}
