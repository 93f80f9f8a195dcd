package hostile

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker/record"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

func TestMain(m *testing.M) { fdtest.Main(m) }

// TestHostile is a short `make hostile`: a part of the cases and a few seconds of
// mutations. With GPUBROKER_VM=1 it runs on the lab's libraries and with 3D; without,
// the machine's own virglrenderer is not put to the test: old ones die of garbage.
func TestHostile(t *testing.T) {
	o := Options{Root: HostRoot(), Every: 6, Seed: 1, Log: testWriter{t}}
	if os.Getenv(labtest.Env) == "1" {
		o.Root, o.GL, o.Mutate = labtest.Root(t), true, 5*time.Second
	} else {
		t.Logf("3D is left out: set %s=1 to run it on the lab's virglrenderer (make test does)", labtest.Env)
	}
	o.Binary = filepath.Join(t.TempDir(), "gpubroker")
	if err := brokerproc.Build(t.Context(), o.Binary); err != nil {
		t.Fatal(err)
	}
	rep, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d cases: %d answered, %d VMs dropped", rep.Cases, rep.Answered, rep.VMDropped)
	if rep.Cases < 60 || rep.VMDropped == 0 {
		t.Errorf("only %d cases, %d dropped", rep.Cases, rep.VMDropped)
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

// TestCases checks the list itself: there are enough of every kind, and each has a
// name of its own.
func TestCases(t *testing.T) {
	all := Cases()
	if len(all) < 200 {
		t.Errorf("%d cases, want 200 or more", len(all))
	}
	seen, groups := map[string]bool{}, map[string]int{}
	for _, c := range all {
		key := c.Group + ": " + c.Name
		if seen[key] {
			t.Errorf("two cases %q", key)
		}
		seen[key] = true
		groups[c.Group]++
	}
	for _, g := range []string{"2d", "size", "cursor", "context", "3d", "transfer", "classic", "no 3d", "blob", "map", "blob scanout",
		"fence", "stream", "shader", "message", "ring", "life", "race", "limit"} {
		if groups[g] == 0 {
			t.Errorf("no case in group %q", g)
		}
	}
}

// TestTraffic checks that the recordings can be read and hold what they are for.
func TestTraffic(t *testing.T) {
	all, err := Traffics()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"desktop", "scene", "gears", "glmark"} {
		if len(all[name]) < 20 {
			t.Errorf("%s has %d commands", name, len(all[name]))
		}
	}
	submits := 0
	for _, r := range all["glmark"] {
		if len(streamHeads(r.Cmd)) > 1 {
			submits++
		}
	}
	if submits < 50 {
		t.Errorf("%d streams in glmark's traffic", submits)
	}
}

// TestMutator: a seed makes the same traffic again, other traffic than before, and
// no draw of it is too large.
func TestMutator(t *testing.T) {
	good := sceneTraffic()
	make := func(seed uint64) []Record {
		m := mutator{rnd: rand.New(rand.NewPCG(seed, 3)), other: desktop()}
		return m.session(good)
	}
	flat := func(list []Record) (out []byte) {
		for _, r := range list {
			out = append(out, r.Cmd...)
		}
		return out
	}
	changed := 0
	for seed := range uint64(50) {
		a := flat(make(seed))
		if !bytes.Equal(a, flat(make(seed))) {
			t.Fatalf("seed %d makes two kinds of traffic", seed)
		}
		if !bytes.Equal(a, flat(good)) {
			changed++
		}
	}
	if changed < 40 {
		t.Errorf("%d of 50 seeds change anything", changed)
	}
	big := submit(1, dwords(head(cmdDraw, 0, 12), 0, huge, 4, 0, huge, 0, 0, 0, 0, 0, 0, 0, head(cmdLaunchGrid, 0, 8), huge, huge, huge, huge, huge, huge, 0, 0))
	(&mutator{}).tame(big)
	w := big[virtiogpu.SizeSubmit3D:]
	for _, at := range []int{2, 5, 14, 19} {
		if v := uint32(w[4*at]) | uint32(w[4*at+1])<<8 | uint32(w[4*at+2])<<16 | uint32(w[4*at+3])<<24; v > mostVertices {
			t.Errorf("dword %d is still %d", at, v)
		}
	}
}

// TestRecording: a recording of gpubroker becomes traffic, up to the first reset, with its
// guest memory inside the arena.
func TestRecording(t *testing.T) {
	path := filepath.Join(t.TempDir(), "recording")
	w, err := record.Create(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.Info(&record.Info{})
	w.Machine(&record.Machine{Regions: []record.Region{{GPA: 0, Size: 1 << 32}}})
	big := virtiogpu.MemEntry{Addr: 7 << 20, Length: 1 << 30}
	back := attach(1, 3, virtiogpu.MemEntry{Addr: 0x8000_1000, Length: 5000}, virtiogpu.MemEntry{Addr: 0x9000_0000, Length: 4096}, big)
	up := cursor(virtiogpu.CmdMoveCursor, virtiogpu.UpdateCursor{X: 3})
	for i, cmd := range [][]byte{create2D(1, bgra, 8, 8), back, up} {
		w.Memory(0x1000, make([]byte, 4096))
		w.Answer(w.Command(uint32(i)/2, uint64(len(cmd)), cmd), uint32(virtiogpu.RespOKNoData))
	}
	w.Reset()
	w.Command(0, 24, bare(virtiogpu.CmdGetDisplayInfo, 0))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := FromRecording(path)
	if err != nil {
		t.Fatal(err)
	}
	want := []Record{{Cmd: create2D(1, bgra, 8, 8)},
		{Cmd: attach(1, 3, virtiogpu.MemEntry{Addr: 0, Length: 5000}, virtiogpu.MemEntry{Addr: 8192, Length: 4096}, big)}, {Cursor: true, Cmd: up}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if _, err := FromRecording("testdata"); err == nil {
		t.Error("a folder is no recording")
	}
}

// TestTrafficCodec: what is kept is what is replayed.
func TestTrafficCodec(t *testing.T) {
	body, err := encodeTraffic(desktop())
	if err != nil {
		t.Fatal(err)
	}
	var back []Record
	if err := decodeTraffic(body, &back); err != nil {
		t.Fatal(err)
	}
	if len(back) != len(desktop()) || !bytes.Equal(back[3].Cmd, desktop()[3].Cmd) {
		t.Error("the traffic has changed")
	}
}
