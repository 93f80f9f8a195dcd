package guests_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/gpubroker/gpubroker/broker/confine"
	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

// TestSandbox: a guest has its frame buffer and OpenGL from a worker in a sandbox; when
// that is killed, the frame buffer stays and a new program has OpenGL from the next one,
// which is in a sandbox, too.
func TestSandbox(t *testing.T) {
	if !confine.Supported() {
		t.Skip("this kernel has no landlock or no seccomp")
	}
	t.Parallel()
	w := labtest.Weston(t, lab.WestonOptions{W: screenW, H: screenH})
	r := &rig{T: t, weston: w, broker: startBroker(t, brokerproc.Options{
		Args: []string{"--display", "wayland", "--wayland-display", w.Socket(), "--virgl=on", "--sandbox"},
		Env:  w.Env(), Bind: []string{w.RuntimeDir}, Deadly: true,
	})}
	r.vm = labtest.VM(t, lab.VMConfig{SMP: 1, Devices: r.gpu("vhost-user-gpu-pci")})
	share(t, r.vm, bin(t, "guestpaint"))

	check(t, r.vm, startCube)
	r.turns(t, 10)
	r.confined(t)
	check(t, r.vm, lab.EndKmscube+"/lab/share/guestpaint fb")
	showsEventually(t, "frame buffer", r.shoot(t), painted(screenW, screenH), exact)
	r.noErrors(t)

	first := r.broker.Worker()
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, cubeTime, "another worker", func() bool {
		now := r.broker.Worker()
		_, err := r.broker.Status()
		return now != 0 && now != first && err == nil
	}, r.broker.Log)
	r.confined(t)
	showsEventually(t, "frame buffer of the next worker", r.shoot(t), painted(screenW, screenH), exact)
	check(t, r.vm, startCube)
	r.turns(t, 10)
}

// confined checks what the kernel says of the worker.
func (r *rig) confined(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.broker.Worker()))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"NoNewPrivs:\t1\n", "Seccomp:\t2\n"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the worker's status lacks %q:\n%s", want, text)
		}
	}
}
