package virgl

import (
	"testing"

	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

// steadyStates are the calls that a broker makes for every frame. None may allocate.
func steadyStates(t testing.TB, r *renderer) []struct {
	name string
	op   func()
} {
	t.Helper()
	const w, h = 256, 256
	g := newGuest(t, r, 1)
	g.target(1, virglcmd.FormatB8G8R8A8, w, h, 0)
	if err := r.AttachBacking(1, [][]byte{pattern(w, h)}); err != nil {
		t.Fatal(err)
	}
	g.clear(1, virglcmd.FormatB8G8R8A8, testColor)
	g.b.Clear(virglcmd.ClearColor0, testColor, 0, 0)
	dst := make([]byte, 4*w*h)
	all := Transfer{Resource: 1, Box: Box{W: w, H: h, D: 1}}
	id := uint32(0)
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	return []struct {
		name string
		op   func()
	}{
		{"Submit", func() { check(r.Submit(1, g.b.Bytes())); r.Poll() }},
		{"TransferToHost", func() { check(r.TransferToHost(&all)) }},
		{"TransferFromHost", func() { check(r.TransferFromHost(&all)) }},
		{"ReadPixels", func() { check(r.ReadPixels(1, 0, 0, w, h, 4*w, dst)) }},
		{"SubmitFencePoll", func() {
			check(r.Submit(1, g.b.Bytes()))
			id++
			check(r.CreateFence(1, id))
			for r.fences.len() > 0 {
				r.settle()
				r.Poll()
			}
		}},
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector makes sync.Pool, which purego uses, lose objects now and then")
	}
	onThread(t, nil, func(r *renderer) {
		for _, s := range steadyStates(t, r) {
			if n := testing.AllocsPerRun(200, s.op); n != 0 {
				t.Errorf("%s: %v allocations a call, want 0", s.name, n)
			}
		}
	})
}

// The benchmarks run on the render thread, so each is a function of its own: b.Run
// would start another goroutine.
func benchmark(b *testing.B, name string) {
	onThread(b, nil, func(r *renderer) {
		for _, s := range steadyStates(b, r) {
			if s.name != name {
				continue
			}
			s.op()
			b.ReportAllocs()
			for b.Loop() {
				s.op()
			}
			return
		}
		b.Fatalf("no call named %s", name)
	})
}

func BenchmarkSubmit(b *testing.B)           { benchmark(b, "Submit") }
func BenchmarkTransferToHost(b *testing.B)   { benchmark(b, "TransferToHost") }
func BenchmarkTransferFromHost(b *testing.B) { benchmark(b, "TransferFromHost") }
func BenchmarkReadPixels(b *testing.B)       { benchmark(b, "ReadPixels") }
func BenchmarkSubmitFencePoll(b *testing.B)  { benchmark(b, "SubmitFencePoll") }
