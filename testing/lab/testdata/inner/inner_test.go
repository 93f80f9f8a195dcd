// Package inner runs inside a guest that plays the host.
package inner

import (
	"strings"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

func TestWestonOffersDMABuf(t *testing.T) {
	if !labtest.Root(t).InGuest() {
		t.Fatal("not in a guest of the lab")
	}
	weston := labtest.Weston(t, lab.WestonOptions{Renderer: "gl", W: 640, H: 480})
	out, err := weston.Client(t.Context(), "wayland-info", "-i", "zwp_linux_dmabuf_v1").CombinedOutput()
	if err != nil {
		t.Fatal(err, string(out))
	}
	t.Logf("%s", out)
	for _, fourcc := range []string{"AR24", "XR24", "AB24"} {
		if !strings.Contains(string(out), fourcc) {
			t.Errorf("zwp_linux_dmabuf_v1 does not offer %s", fourcc)
		}
	}
	img, err := weston.Screenshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if size := img.Bounds().Size(); size.X != 640 || size.Y != 480 {
		t.Errorf("screenshot is %v, want 640x480", size)
	}
}

// TestNestedGuest boots a guest in the guest, both emulated.
func TestNestedGuest(t *testing.T) {
	labtest.Full(t)
	start := time.Now()
	vm := labtest.VM(t, lab.VMConfig{
		Accel: lab.AccelTCG, MemMB: 512, SMP: 1, BootTimeout: 18 * time.Minute,
		Devices: []string{"-device", "virtio-gpu-pci"},
	})
	if err := vm.WaitBoot(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	t.Logf("user space of the nested guest after %v", time.Since(start).Round(time.Second))
	out, err := vm.Check(t.Context(), "modprobe virtio_gpu && ls /dev/dri")
	if err != nil || !strings.Contains(out, "card0") {
		t.Errorf("/dev/dri holds %q: %v", out, err)
	}
	t.Logf("virtio-gpu probed after %v", time.Since(start).Round(time.Second))
}
