package soak_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/hostile"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
	"github.com/gpubroker/gpubroker/testing/soak"
)

func TestMain(m *testing.M) { fdtest.Main(m) }

// TestSoak is a hundredth of `make soak` and some more kills, on the machine's own
// libraries; with GPUBROKER_VM=1 on the lab's, with a real compositor and a real guest.
func TestSoak(t *testing.T) {
	o := soak.Options{Root: hostile.HostRoot(), Resources: 9000, Fences: 1000, Contexts: 100, Kills: 10, Seed: 1, Log: testWriter{t}}
	o.GL = hostile.HaveGL()
	if !o.GL {
		t.Log("no libvirglrenderer.so.1 on this machine: the 3D parts are left out")
	}
	if os.Getenv(labtest.Env) == "1" {
		o.Root, o.GL, o.Weston, o.GuestKills = labtest.Root(t), true, true, 3
	}
	o.Binary = filepath.Join(t.TempDir(), "gpubroker")
	if err := brokerproc.Build(t.Context(), o.Binary); err != nil {
		t.Fatal(err)
	}
	rep, err := soak.Do(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := rep.Verdict(); err != nil {
		t.Error(err)
	}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}
