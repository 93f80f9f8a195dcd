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
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

// vsockRun is both ends in one machine: a compositor, the broker with its AF_VSOCK
// listener for the machine's own CID, and a program whose windows go through it.
const vsockRun = `
cd /tmp; export XDG_RUNTIME_DIR=/run/user/0
waitfor() { for i in $(seq 600); do [ -e "$1" ] && return; sleep 0.1; done; echo "no $1"; return 1; }
weston --backend=headless --renderer=pixman --shell=kiosk --socket=host --idle-time=0 >weston.log 2>&1 & weston=$!
waitfor $XDG_RUNTIME_DIR/host || { cat weston.log; exit 1; }
/lab/share/gpubroker serve --socket-path /tmp/gpu --control /tmp/control --display none --virgl=off --log-level debug \
	--apps --apps-display $XDG_RUNTIME_DIR/host --vsock 1:4673602 >broker.log 2>&1 & broker=$!
waitfor /tmp/control || { cat broker.log; exit 1; }
/lab/share/gpubroker-guest run --log-level debug --transport vsock:1:4673602 weston-simple-shm >guest.log 2>&1 & guest=$!
for i in $(seq 300); do
	/lab/share/gpubroker-guest status --json >status 2>/dev/null && grep -Eq '"stream": ([3-9]|[0-9]{2,}),?$' status && break
	kill -0 $guest 2>/dev/null || break; sleep 0.2
done
kill -INT $guest; wait $guest
kill -TERM $broker; wait $broker; echo "broker: $?" >&2
kill $weston; wait $weston
cat guest.log broker.log >&2; cat status
`

// TestVSock runs the AF_VSOCK listener for real, in a machine whose kernel leads
// connections to its own CID back to itself.
func TestVSock(t *testing.T) {
	labtest.Root(t)
	dir := t.TempDir()
	vm := labtest.VM(t, lab.VMConfig{Bind: []string{dir}})
	for name, args := range map[string][]string{
		"gpubroker":       {"build", "-o", "", "../gpubroker"},
		"gpubroker-guest": {"build", "-o", "", "."},
		"transport.test":  {"test", "-c", "-o", "", "./internal/transport"},
	} {
		bin := filepath.Join(dir, name)
		for i := range args {
			if args[i] == "" {
				args[i] = bin
			}
		}
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
		}
		if _, err := vm.PutFile(bin); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := vm.Check(t.Context(), "modprobe vsock_loopback && ls /dev/vsock"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Run("ends", func(t *testing.T) {
		out, err := vm.Check(t.Context(), "cd /tmp; "+inguest.Variable+"=1 /lab/share/transport.test -test.v -test.run GuestVSock 2>&1")
		t.Log(out)
		if err != nil || strings.Contains(out, "--- SKIP") || !strings.Contains(out, "--- PASS: TestGuestVSock") {
			t.Errorf("the tests in the guest: %v", err)
		}
	})
	t.Run("program", func(t *testing.T) {
		out, err := vm.Check(t.Context(), vsockRun)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		var st serve.Status
		if i := strings.Index(out, "{\n"); i < 0 || json.Unmarshal([]byte(out[i:]), &st) != nil || len(st.Clients) != 1 {
			t.Fatalf("no status:\n%s", out)
		}
		if st.Transport != "vsock 1:4673602" || st.Clients[0].Frames["stream"] < 3 {
			t.Errorf("%s: %+v\n%s", st.Transport, st.Clients[0], out)
		}
		if !strings.Contains(out, "broker: 0") {
			t.Errorf("the broker did not end well:\n%s", out)
		}
	})
}
