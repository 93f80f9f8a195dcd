package inner_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
	"github.com/gpubroker/gpubroker/testing/nested/inner"
	"github.com/gpubroker/gpubroker/testing/report"
)

func TestNestedBroker(t *testing.T) {
	labtest.Full(t)
	root := labtest.Root(t)
	start := time.Now()
	w := labtest.Weston(t, lab.WestonOptions{Renderer: "gl", W: 640, H: 480})
	b, err := brokerproc.Start(t.Context(), root, brokerproc.Options{
		Binary: os.Getenv(inner.EnvBinary), Env: w.Env(), Log: t.Output(),
		Args: []string{"--display", "wayland", "--wayland-display", w.Socket(), "--virgl=on", "--size", "640x480"},
	})
	if err != nil {
		t.Fatal(err)
	}
	vm := labtest.VM(t, lab.VMConfig{
		Accel: lab.AccelTCG, MemMB: 512, SMP: 1, BootTimeout: 25 * time.Minute, Output: t.Output(),
		Devices: []string{"-chardev", "socket,id=gpu,path=" + b.Socket, "-device", "vhost-user-gpu-pci,chardev=gpu"},
	})
	if err := vm.WaitBoot(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	t.Logf("user space of the nested guest after %v", time.Since(start).Round(time.Second))
	if _, err := vm.Check(t.Context(), "modprobe virtio_gpu && for i in $(seq 600); do [ -e /dev/dri/card0 ] && exit 0; sleep 1; done; exit 1"); err != nil {
		t.Fatal(err)
	}
	t.Logf("its console on gpubroker after %v", time.Since(start).Round(time.Second))
	out, err := vm.Check(t.Context(), "mkfifo /tmp/nothing; sleep 100000 > /tmp/nothing & kmscube -D /dev/dri/card0 -c 3 < /tmp/nothing 2>&1")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.ToLower(out), `renderer: "virgl`) {
		t.Errorf("kmscube says:\n%s", out)
	}
	t.Logf("kmscube's frames after %v", time.Since(start).Round(time.Second))
	st, err := b.Status()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("frames by tier: %v, %d bytes copied, %d errors", st.Tiers, st.BytesCopied, st.Errors)
	if st.Tiers["dmabuf"] == 0 || st.Errors != 0 {
		t.Errorf("frames by tier %v, %d errors", st.Tiers, st.Errors)
	}
	if img, err := w.Screenshot(t.Context()); err != nil {
		t.Error(err)
	} else if colours, _ := report.Colours(img); colours < 2 {
		t.Error("the screenshot is blank")
	}
	if _, err := b.Stop(); err != nil {
		t.Error(err)
	}
}
