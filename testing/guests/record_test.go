package guests_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"image/png"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/golden"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
	"github.com/gpubroker/gpubroker/testing/report"
)

// replay plays a recording inside the lab root, as far as it goes.
func replay(t *testing.T, file, shot string) (rep broker.PlayReport) {
	t.Helper()
	root := labtest.Root(t)
	cmd := root.Command(t.Context(), lab.CommandOptions{Env: []string{"LIBGL_ALWAYS_SOFTWARE=1"}, Bind: []string{filepath.Dir(bin(t, "gpubroker")), filepath.Dir(file)}},
		bin(t, "gpubroker"), "replay", file, "--virgl=on", "--json", "--shot", shot)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	release, err := lab.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if err := json.Unmarshal(stdout.Bytes(), &rep); err != nil {
		t.Fatalf("%v\n%s%s", err, &stdout, &stderr)
	}
	return rep
}

// TestRecord records a real guest with a text console and kmscube, whose Mesa puts
// transfers into its streams, and plays it: the same answers, the same cube.
func TestRecord(t *testing.T) {
	file := filepath.Join(t.TempDir(), "recording")
	r := &rig{T: t, broker: startBroker(t, brokerproc.Options{
		Args: []string{"--display", "headless", "--virgl=on", "--record", file, "--log-level", "info"}, Bind: []string{filepath.Dir(file)}})}
	r.vm = labtest.VM(t, lab.VMConfig{Devices: r.gpu("vhost-user-gpu-pci")})
	check(t, r.vm, startCube)
	r.turns(t, 30)
	qmp(t, r.vm, "stop", nil)
	var then broker.Shot
	if err := broker.Ask(r.broker.Control, "shot scanout 0", &then); err != nil {
		t.Fatal(err)
	}
	st := r.status()
	shot := filepath.Join(filepath.Dir(file), "shot.png")
	rep := replay(t, file, shot)
	t.Logf("%d commands, %d compared, in %.1f s; %d submits", rep.Commands, rep.Compared, rep.Seconds, st.Submits)
	if rep.Different != 0 || rep.Commands != st.Commands || rep.Unanswered != 0 {
		t.Errorf("%d commands served; %+v", st.Commands, rep)
	}
	got, err := golden.ReadPNG(shot)
	if err != nil {
		t.Fatal(err)
	}
	want, err := png.Decode(bytes.NewReader(then.PNG))
	if err != nil {
		t.Fatal(err)
	}
	if colours, _ := report.Colours(want); colours < 50 {
		t.Errorf("%d colours: the cube is not there", colours)
	}
	golden.Equal(t, "cube", got, want, golden.Tolerance{})
}
