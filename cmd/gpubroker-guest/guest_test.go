package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/inguest"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/serve"
	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

// guestPackages are those with tests for a guest.
var guestPackages = []string{"drm", "shm", "relay"}

// modeB is the device of QEMU 11.1 that passes everything on.
const modeB = lab.GenericGPU + ",chardev="

// TestGuest runs the tests of the packages inside a real guest with a GPU and an
// import device, and then real programs through every way to the host.
func TestGuest(t *testing.T) {
	root := labtest.Root(t)
	dir := t.TempDir()
	broker := filepath.Join(dir, "gpubroker")
	if err := brokerproc.Build(t.Context(), broker); err != nil {
		t.Fatal(err)
	}
	weston := labtest.Weston(t, lab.WestonOptions{})
	imp, port := filepath.Join(dir, "import"), filepath.Join(dir, "port")
	b, err := brokerproc.Start(t.Context(), root, brokerproc.Options{Binary: broker, Bind: []string{weston.RuntimeDir, dir},
		Args: []string{"--display", "none", "--virgl=on", "--hostmem", "256M", "--log-level", "debug",
			"--apps", "--apps-display", weston.Socket(), "--import-socket", imp, "--serial", port}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := b.Stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
		if t.Failed() {
			t.Logf("gpubroker said:\n%s", b.Log())
		}
	})
	vm := labtest.VM(t, lab.VMConfig{Bind: []string{dir}, Devices: []string{
		"-chardev", "socket,id=gpu,path=" + b.Socket, "-device", modeB + "gpu",
		"-chardev", "socket,id=import,path=" + imp, "-device", modeB + "import",
		"-chardev", "socket,id=port,path=" + port, "-device", "virtserialport,chardev=port,name=org.gpubroker.0",
	}})
	build := func(name string, args ...string) {
		bin := filepath.Join(dir, name)
		cmd := exec.Command("go", append(args[:len(args)-1:len(args)-1], "-o", bin, args[len(args)-1])...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
		}
		if _, err := vm.PutFile(bin); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range guestPackages {
		build(name+".test", "test", "-c", "./internal/"+name)
	}
	build("gpubroker-guest", "build", ".")
	if _, err := vm.Check(t.Context(), `modprobe virtio_gpu
for i in $(seq 100); do [ -e /dev/dri/renderD129 ] && exit 0; sleep 0.1; done; ls /dev/dri; exit 1`); err != nil {
		t.Fatal(err)
	}
	for _, name := range guestPackages {
		t.Run(name, func(t *testing.T) {
			out, err := vm.Check(t.Context(), "cd /tmp; "+inguest.Variable+"=1 /lab/share/"+name+".test -test.v -test.run 'Guest|Node|Blob|Foreign|Tier' 2>&1")
			t.Log(out)
			if err != nil {
				t.Error(err)
			}
			if strings.Contains(out, "--- SKIP") {
				t.Error("a test was skipped")
			}
		})
	}
	for _, way := range []string{"auto", "cross-domain", "serial"} {
		t.Run(way, func(t *testing.T) { realPrograms(t, vm, way) })
	}
}

// realPrograms runs programs of the guest over one way to the host.
func realPrograms(t *testing.T, vm *lab.VM, way string) {
	for program, tiers := range map[string][]string{
		// Without udmabuf on the host there is no use for the import device.
		"weston-simple-shm": {"import", "blob"},
		"weston-simple-egl": {"dmabuf"},
	} {
		out, err := vm.Check(t.Context(), `export XDG_RUNTIME_DIR=/tmp/run-`+way+`; mkdir -p -m 700 $XDG_RUNTIME_DIR; cd /tmp
/lab/share/gpubroker-guest run --log-level debug --transport `+way+` `+program+` >guest.log 2>&1 & pid=$!
for i in $(seq 300); do
	/lab/share/gpubroker-guest status --json >status 2>/dev/null && grep -Eq '"(dmabuf|import|blob|stream)": ([3-9]|[0-9]{2}),?$' status && break
	kill -0 $pid 2>/dev/null || break; sleep 0.2
done
/lab/share/gpubroker-guest status >&2
kill -INT $pid; wait $pid; cat guest.log >&2; cat status`)
		if err != nil {
			t.Fatalf("%s: %v\n%s", program, err, out)
		}
		var st serve.Status
		if i := strings.Index(out, "{\n"); i < 0 || json.Unmarshal([]byte(out[i:]), &st) != nil || len(st.Clients) != 1 {
			t.Fatalf("%s: no status:\n%s", program, out)
		}
		t.Logf("%s: %s: %+v", program, st.Transport, st.Clients[0])
		if way == "auto" && !strings.HasPrefix(st.Transport, "cross-domain") || way != "auto" && !strings.HasPrefix(st.Transport, way) {
			t.Errorf("%s: transport %s", program, st.Transport)
		}
		frames := uint64(0)
		for _, tier := range tiers {
			frames += st.Clients[0].Frames[tier]
		}
		if frames < 3 {
			t.Errorf("%s: frames %v, want 3 by one of %v:\n%s", program, st.Clients[0].Frames, tiers, out)
		}
		for tier, n := range st.Clients[0].Copied {
			if n > 0 && (tier == "stream" || program == "weston-simple-egl") {
				t.Errorf("%s: %d bytes copied by %s", program, n, tier)
			}
		}
	}
}
