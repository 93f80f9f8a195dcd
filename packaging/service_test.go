package packaging

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"image"
	"image/color"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
	"github.com/gpubroker/gpubroker/testing/golden"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

// serviceEnv makes TestServiceGuest run: the folder of the sockets.
const serviceEnv = "GPUBROKER_SERVICE_DIR"

// serviceScript installs the package and starts a user manager for an ordinary user. The
// machine was not booted with systemd, which a user manager only wants to believe.
const serviceScript = `set -e
dpkg --force-depends -i /lab/share/gpubroker.deb >/dev/null
mkdir -p /run/systemd/system /home/lab
getent passwd lab >/dev/null || useradd -u 1000 -d /home/lab lab
chown -R lab: /home/lab
install -d -o lab -m 700 /run/user/1000
mountpoint -q /sys/fs/cgroup || mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /sys/fs/cgroup/lab
chown -R lab: /sys/fs/cgroup/lab
cp /lab/share/packaging.test /tmp/packaging.test
echo $$ >/sys/fs/cgroup/lab/cgroup.procs
cat >/tmp/session <<'EOT'
set -e
export HOME=/home/lab XDG_RUNTIME_DIR=/run/user/1000 LANG=C.UTF-8 PATH=/usr/bin:/bin
mkdir -p ~/.config/gpubroker
cat >~/.config/gpubroker/vm.conf <<'EOC'
GPUBROKER_OPTIONS="--display headless --virgl=on --log-level debug"
LIBGL_ALWAYS_SOFTWARE=1
EOC
/usr/lib/systemd/systemd --user --log-target=console --log-level=notice >/tmp/manager.log 2>&1 &
for i in $(seq 300); do systemctl --user is-active -q basic.target 2>/dev/null && break; sleep 0.2; done
systemctl --user start gpubroker@vm.socket
test "$(systemctl --user is-active gpubroker@vm.service || true)" = inactive
code=0
GPUBROKER_SERVICE_DIR=$XDG_RUNTIME_DIR/gpubroker /tmp/packaging.test -test.v -test.run TestServiceGuest || code=$?
systemctl --user status --no-pager -l gpubroker@vm.service || true
pid=$(systemctl --user show -P MainPID gpubroker@vm.service)
echo "seccomp: $(sed -n 's/^Seccomp:\t//p' /proc/$pid/status) nnp: $(sed -n 's/^NoNewPrivs:\t//p' /proc/$pid/status)"
gpubroker ls || true
systemctl --user stop gpubroker@vm.service gpubroker@vm.socket
ls $XDG_RUNTIME_DIR/gpubroker
kill %1
exit $code
EOT
setpriv --reuid=1000 --regid=1000 --init-groups bash /tmp/session || { code=$?; cat /tmp/manager.log; exit $code; }
`

// TestService installs the package in a virtual machine, and lets systemd start the
// service there, hardened, for a guest that draws with OpenGL.
func TestService(t *testing.T) {
	vm := labtest.HostVM(t, lab.VMConfig{})
	deb := buildDebs(t)["gpubroker"].file
	dir := t.TempDir()
	if err := os.Rename(deb, filepath.Join(dir, "gpubroker.deb")); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "packaging.test")
	if err := lab.BuildTest(t.Context(), "github.com/gpubroker/gpubroker/packaging", bin); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{bin, filepath.Join(dir, "gpubroker.deb")} {
		if _, err := vm.PutFile(file); err != nil {
			t.Fatal(err)
		}
	}
	out, code, err := vm.Run(t.Context(), serviceScript)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"--- PASS: TestServiceGuest", "seccomp: 2 nnp: 1", "a guest is connected", "Active: active (running)"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q", want)
		}
	}
	if code != 0 || t.Failed() {
		t.Errorf("code %d:\n%s", code, out)
	}
}

// TestServiceGuest is the guest of TestService: its connection starts the service.
func TestServiceGuest(t *testing.T) {
	dir := os.Getenv(serviceEnv)
	if dir == "" {
		t.Skip("runs inside TestService's virtual machine")
	}
	g, err := fakeguest.Dial(filepath.Join(dir, "vm.sock"), fakeguest.Config{Profile: vhostusertest.QEMU11A})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Boot(); err != nil {
		t.Fatal(err)
	}
	if g.FE.Offered()&(1<<virtiogpu.FeatureVirgl) == 0 {
		t.Fatal("no 3D")
	}
	ok := func(cmd []byte) {
		t.Helper()
		resp := make([]byte, 512)
		n, err := g.Do(cmd, resp)
		if err != nil {
			t.Fatal(err)
		}
		var h virtiogpu.CtrlHdr
		if err := h.Decode(resp[:n]); err != nil || !h.Type.IsOK() {
			t.Fatalf("answered with %v, %v", h.Type, err)
		}
	}
	const w, h, target, vertices = 64, 48, 1, 2
	hdr := virtiogpu.CtrlHdr{CtxID: 1}
	ok((&virtiogpu.CtxCreate{CtrlHdr: hdr}).Append(nil))
	for _, c := range []virtiogpu.ResourceCreate3D{
		{ResourceID: target, Target: virglcmd.TargetTexture2D, Format: virglcmd.FormatB8G8R8X8, Bind: virglcmd.BindRenderTarget, Width: w, Height: h, Depth: 1, ArraySize: 1},
		{ResourceID: vertices, Target: virglcmd.TargetBuffer, Format: virglcmd.FormatR8, Bind: virglcmd.BindVertexBuffer, Width: 1024, Height: 1, Depth: 1, ArraySize: 1},
	} {
		ok(c.Append(nil))
		attach := (&virtiogpu.CtxResource{CtrlHdr: hdr, ResourceID: c.ResourceID}).Append(nil)
		binary.LittleEndian.PutUint32(attach, uint32(virtiogpu.CmdCtxAttachResource))
		ok(attach)
	}
	green := [4]float32{0, 1, 0, 1}
	quad := virglcmd.AppendVertices(nil, virglcmd.Quad(green, green)...)
	var b virglcmd.Builder
	b.InlineWrite(vertices, 0, virglcmd.Box{W: uint32(len(quad)), H: 1, D: 1}, 0, quad)
	b.Pipeline(virglcmd.HandlesFrom(10), target, virglcmd.FormatB8G8R8X8, w, h, vertices, virglcmd.FragmentShader)
	b.Draw(virglcmd.TriangleStrip, 0, 4)
	ok(append((&virtiogpu.Submit3D{CtrlHdr: hdr, Size: uint32(len(b.Bytes()))}).Append(nil), b.Bytes()...))
	ok((&virtiogpu.SetScanout{ResourceID: target, R: virtiogpu.Rect{Width: w, Height: h}}).Append(nil))
	ok((&virtiogpu.ResourceFlush{ResourceID: target, R: virtiogpu.Rect{Width: w, Height: h}}).Append(nil))

	file := filepath.Join(t.TempDir(), "shot.png")
	if out, err := exec.Command("gpubroker", "shot", "-o", file).CombinedOutput(); err != nil {
		t.Fatalf("shot: %v: %s", err, out)
	}
	got, err := golden.ReadPNG(file)
	if err != nil {
		t.Fatal(err)
	}
	want := image.NewNRGBA(image.Rect(0, 0, w, h))
	for i := range w * h {
		want.SetNRGBA(i%w, i/w, color.NRGBA{G: 255, A: 255})
	}
	golden.Equal(t, "service", got, want, golden.Tolerance{})
	var st struct {
		Renderer struct{ GL bool }
		Errors   int
	}
	out, err := exec.Command("gpubroker", "ls", "--json").Output()
	if err != nil || json.NewDecoder(bytes.NewReader(out)).Decode(&st) != nil || !st.Renderer.GL || st.Errors != 0 {
		t.Errorf("ls: %v, %+v", err, st)
	}
	// The connection stays until the test's process ends: the script looks at the service.
	t.Cleanup(func() {
		cmd := exec.Command("bash", "-c", `gpubroker ls | head -n 1; systemctl --user status --no-pager gpubroker@vm.service | grep Active:`)
		out, err := cmd.CombinedOutput()
		t.Logf("%s%v", out, err)
		g.Quit()
	})
}
