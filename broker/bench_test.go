package broker_test

import (
	"testing"

	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/virgl/virgltest"
)

// The benchmarks send real commands over real rings to the device on its render
// thread; renderer and display are fakes, so what they measure is the broker.
// TestSteadyState demands what they show: no heap allocation per frame.

func setUp2D(m *machine, w, h uint32) (transfer, flush []byte) {
	m.create2D(1, w, h)
	m.attach(1, uint64(w)*uint64(h)*4)
	m.scanout(0, 1, rect(0, 0, w, h))
	return (&virtiogpu.TransferToHost2D{ResourceID: 1, R: rect(0, 0, w, h)}).Append(nil),
		(&virtiogpu.ResourceFlush{ResourceID: 1, R: rect(0, 0, w, h)}).Append(nil)
}

func setUp3D(m *machine, w, h uint32) (draw, flush []byte) {
	m.createCtx(1)
	m.create3D(1, w, h)
	m.attachCtx(1, 1)
	m.scanout(0, 1, rect(0, 0, w, h))
	return submit(fenced(1, 7), make([]byte, 4096)),
		(&virtiogpu.ResourceFlush{ResourceID: 1, R: rect(0, 0, w, h)}).Append(nil)
}

func (m *machine) both(a, b []byte) {
	for _, cmd := range [2][]byte{a, b} {
		if _, err := m.Do(cmd, m.resp); err != nil {
			m.t.Fatal(err)
		}
	}
}

func benchmark2D(b *testing.B, w, h uint32) {
	m := newMachine(b, machineConfig{ram: 256 << 20})
	transfer, flush := setUp2D(m, w, h)
	m.both(transfer, flush)
	b.SetBytes(int64(w) * int64(h) * 4)
	b.ReportAllocs()
	for b.Loop() {
		m.both(transfer, flush)
	}
}

func BenchmarkTransferFlush64(b *testing.B)    { benchmark2D(b, 64, 64) }
func BenchmarkTransferFlush1080p(b *testing.B) { benchmark2D(b, 1920, 1080) }
func BenchmarkTransferFlush4K(b *testing.B)    { benchmark2D(b, 3840, 2160) }

func benchmark3D(b *testing.B, w, h uint32) {
	m := newMachine(b, machineConfig{fake: virgltest.Config{Kind: dmabuf.KindDMABuf}})
	draw, flush := setUp3D(m, w, h)
	m.both(draw, flush)
	b.ReportAllocs()
	for b.Loop() {
		m.both(draw, flush)
	}
}

func BenchmarkSubmitFlush720p(b *testing.B) { benchmark3D(b, 1280, 720) }
func BenchmarkSubmitFlush4K(b *testing.B)   { benchmark3D(b, 3840, 2160) }

func BenchmarkSubmit3D(b *testing.B) {
	m := newMachine(b, machineConfig{})
	m.createCtx(1)
	cmd := submit(ctxHdr(1), make([]byte, 4096))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Do(cmd, m.resp); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCommand is the cheapest command there is: what a round trip costs.
func BenchmarkCommand(b *testing.B) {
	m := newMachine(b, machineConfig{})
	cmd := (&virtiogpu.CtrlHdr{Type: virtiogpu.CmdGetDisplayInfo}).Append(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Do(cmd, m.resp); err != nil {
			b.Fatal(err)
		}
	}
}

// TestSteadyState: a frame, drawn or copied, allocates nothing anywhere in the
// process once it has run a few times.
func TestSteadyState(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's own allocations would be counted; the run without it checks this")
	}
	for _, c := range []struct {
		name  string
		fake  virgltest.Config
		setUp func(m *machine, w, h uint32) (a, b []byte)
	}{
		{"transfer and flush", virgltest.Config{}, setUp2D},
		{"submit and flush", virgltest.Config{Kind: dmabuf.KindDMABuf}, setUp3D},
		{"submit and read back", virgltest.Config{}, setUp3D},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t, machineConfig{fake: c.fake})
			first, second := c.setUp(m, 128, 64)
			for range 300 {
				m.both(first, second)
			}
			if n := testing.AllocsPerRun(500, func() { m.both(first, second) }); n != 0 {
				t.Errorf("%g allocations per frame, want none", n)
			}
		})
	}
}
