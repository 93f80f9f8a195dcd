package fakeguest_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/gpubroker/gpubroker/broker/guestmem"
	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
)

// machine is an echo device behind a back-end, and a guest that drives it.
type machine struct {
	*fakeguest.Guest
	dev *vhostusertest.Device
}

func newBackend(t testing.TB, shmem *vhostuser.ShmemConfig) (*vhostuser.Backend, *vhostusertest.Device) {
	t.Helper()
	loop, err := vhostusertest.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(loop.Close)
	dev := vhostusertest.NewDevice(loop)
	cfg := vhostuser.Config{Device: dev, Executor: loop, Shmem: shmem}
	if _, bench := t.(*testing.B); !bench {
		cfg.Log = zaptest.NewLogger(t)
	}
	b, err := vhostuser.NewBackend(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b, dev
}

func start(t testing.TB, cfg fakeguest.Config) *machine {
	t.Helper()
	b, dev := newBackend(t, nil)
	g, stop, err := fakeguest.Serve(b, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
		if p := g.FE.Problems(); len(p) > 0 {
			t.Errorf("QEMU would not like:\n%s", strings.Join(p, "\n"))
		}
	})
	if err := g.Boot(); err != nil {
		t.Fatal(err)
	}
	return &machine{g, dev}
}

func (m *machine) echo(t testing.TB, q *fakeguest.Queue, n int) {
	t.Helper()
	cmd := make([]byte, n)
	for i := range cmd {
		cmd[i] = byte(rand.Uint32())
	}
	resp := make([]byte, n)
	got, err := q.Do(cmd, resp)
	if err != nil {
		t.Fatalf("echo of %d bytes: %v", n, err)
	}
	if !bytes.Equal(resp[:got], cmd) {
		t.Fatalf("echo of %d bytes: %d came back, wrong", n, got)
	}
}

// each runs f for every version of QEMU, with and without indirect descriptors
// and event indices.
func each(t *testing.T, f func(t *testing.T, cfg fakeguest.Config)) {
	for _, p := range vhostusertest.Profiles {
		for _, noIndirect := range []bool{false, true} {
			for _, noEvent := range []bool{false, true} {
				if noEvent && p.ForcedBits&vhostuser.FEventIdx != 0 {
					p.ForcedBits &^= vhostuser.FEventIdx // event_idx=off on the command line
				}
				name := fmt.Sprintf("%s/indirect=%t/event=%t", p.Name, !noIndirect, !noEvent)
				t.Run(name, func(t *testing.T) {
					f(t, fakeguest.Config{Profile: p, NoIndirect: noIndirect, NoEventIdx: noEvent, Split: 32 << 20})
				})
			}
		}
	}
}

func TestEcho(t *testing.T) {
	each(t, func(t *testing.T, cfg fakeguest.Config) {
		m := start(t, cfg)
		for _, n := range []int{1, 24, 4095, 4096, 4097, 20000} {
			m.echo(t, m.Ctrl, n)
			m.echo(t, m.Cursor, n)
		}
		for range 3 * m.Ctrl.Size() { // several times around the ring
			m.echo(t, m.Ctrl, 40)
		}
	})
}

// TestWrap goes around the 16-bit indices.
func TestWrap(t *testing.T) {
	m := start(t, fakeguest.Config{Profile: vhostusertest.QEMU10A, QueueSizes: [2]int{4, 2}})
	cmd, resp := []byte("0123456789abcdef"), make([]byte, 16)
	for i := range 70000 {
		if n, err := m.Do(cmd, resp); err != nil || n != len(cmd) {
			t.Fatalf("command %d: %d bytes, %v", i, n, err)
		}
	}
}

func TestLongChain(t *testing.T) {
	m := start(t, fakeguest.Config{Profile: vhostusertest.QEMU11B, QueueSizes: [2]int{64, 64}})
	const n = 60 << 10 // 30 descriptors with the response
	m.echo(t, m.Ctrl, n)
	// 700 pages: more descriptors than the ring has, as Linux sends for a command
	// in vmalloc memory.
	b, err := m.Pages.Scattered(700 * fakeguest.PageSize)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Free()
	op, err := m.Ctrl.SubmitSG(b.Entries[:699], b.Entries[699:])
	if err != nil {
		t.Fatal(err)
	}
	if got, err := m.Ctrl.Wait(op, nil, time.Second); err != nil || got != fakeguest.PageSize {
		t.Fatalf("long chain: %d bytes, %v", got, err)
	}
}

// TestManyInFlight completes commands last first.
func TestManyInFlight(t *testing.T) {
	each(t, func(t *testing.T, cfg fakeguest.Config) {
		m := start(t, cfg)
		m.dev.Hold(true)
		var ops []*fakeguest.Op
		for i := range 20 {
			op, err := m.Ctrl.Submit(fmt.Appendf(nil, "command %d", i), 64)
			if err != nil {
				t.Fatal(err)
			}
			ops = append(ops, op)
		}
		releaseAll(t, m, ops)
		checkOps(t, m, ops)
	})
}

// releaseAll lets the device answer everything it holds, and stop holding.
func releaseAll(t *testing.T, m *machine, ops []*fakeguest.Op) {
	t.Helper()
	m.dev.Hold(false)
	for end := time.Now().Add(10 * time.Second); ; {
		m.dev.Release()
		open := 0
		for _, op := range ops {
			done, err := m.Ctrl.Done(op)
			if err != nil {
				t.Fatal(err)
			}
			open += btoi(!done)
		}
		if open == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d commands never answered", open, len(ops))
		}
	}
}

func checkOps(t *testing.T, m *machine, ops []*fakeguest.Op) {
	t.Helper()
	resp := make([]byte, 64)
	for i, op := range ops {
		n, err := m.Ctrl.Wait(op, resp, 5*time.Second)
		if want := fmt.Sprintf("command %d", i); err != nil || string(resp[:n]) != want {
			t.Fatalf("op %d: %q, %v; want %q", i, resp[:n], err, want)
		}
	}
}

// TestStopCont checks that nothing is lost or done twice when the VM stops with
// commands taken but not answered.
func TestStopCont(t *testing.T) {
	each(t, func(t *testing.T, cfg fakeguest.Config) {
		m := start(t, cfg)
		m.echo(t, m.Ctrl, 100)
		m.dev.Hold(true)
		var ops []*fakeguest.Op
		for i := range 10 {
			op, err := m.Ctrl.Submit(fmt.Appendf(nil, "command %d", i), 64)
			if err != nil {
				t.Fatal(err)
			}
			ops = append(ops, op)
		}
		if err := m.Stop(); err != nil {
			t.Fatal(err)
		}
		m.dev.Events()
		if err := m.Cont(); err != nil {
			t.Fatal(err)
		}
		releaseAll(t, m, ops)
		checkOps(t, m, ops)
		for _, e := range m.dev.Events() {
			if strings.Contains(e, "start 0 fresh=true") {
				t.Errorf("vm cont looks like a reset: %s", e)
			}
		}
		m.echo(t, m.Ctrl, 100)
		m.echo(t, m.Cursor, 100)
	})
}

// TestReset checks that each driver load after the first is seen as a fresh
// start, and that commands in flight before are forgotten.
func TestReset(t *testing.T) {
	each(t, func(t *testing.T, cfg fakeguest.Config) {
		m := start(t, cfg)
		m.echo(t, m.Ctrl, 10)
		m.dev.Hold(true)
		if _, err := m.Ctrl.Submit([]byte("lost"), 64); err != nil {
			t.Fatal(err)
		}
		if err := m.Reset(); err != nil {
			t.Fatal(err)
		}
		m.dev.Hold(false)
		m.dev.Events()
		if err := m.Boot(); err != nil {
			t.Fatal(err)
		}
		m.echo(t, m.Ctrl, 1000)
		if ev := m.dev.Events(); !slices.Contains(ev, "start 0 fresh=true base=0") {
			t.Errorf("no fresh start in %q", ev)
		}
		if n := m.dev.Release(); n != 0 {
			t.Errorf("%d chains survived the reset", n)
		}
	})
}

// TestWrappedStop stops a ring just as its indices are back at 0: a cont after
// that must not look like a reset, and a reset after that must.
func TestWrappedStop(t *testing.T) {
	for _, reset := range []bool{false, true} {
		t.Run(fmt.Sprintf("reset=%t", reset), func(t *testing.T) {
			m := start(t, fakeguest.Config{Profile: vhostusertest.QEMU72A, QueueSizes: [2]int{8, 2}})
			cmd, resp := []byte("0123456789abcdef"), make([]byte, 16)
			for range 1 << 16 {
				if _, err := m.Do(cmd, resp); err != nil {
					t.Fatal(err)
				}
			}
			m.dev.Events()
			var err error
			if reset {
				err = errors.Join(m.Reset(), m.Boot())
			} else {
				err = errors.Join(m.Stop(), m.Cont())
			}
			if err != nil {
				t.Fatal(err)
			}
			m.echo(t, m.Ctrl, 10)
			want := fmt.Sprintf("start 0 fresh=%t base=0", reset)
			if ev := m.dev.Events(); !slices.Contains(ev, want) {
				t.Errorf("no %q in %q", want, ev)
			}
		})
	}
}

// TestTenGuests is ten QEMUs, one after the other, on one listening socket, each
// with firmware, a reboot, a vm stop and an end that differs.
func TestTenGuests(t *testing.T) {
	for _, p := range vhostusertest.Profiles {
		t.Run(p.Name, func(t *testing.T) {
			b, dev := newBackend(t, nil)
			path := filepath.Join(t.TempDir(), "gpu.sock")
			l, err := vhostuser.Listen(path)
			if err != nil {
				t.Fatal(err)
			}
			ran := make(chan error, 1)
			go func() { ran <- b.Run(t.Context(), l) }()
			before := 0
			for i := range 10 {
				g, err := fakeguest.Dial(path, fakeguest.Config{Profile: p, RAMSize: 8 << 20})
				if err != nil {
					t.Fatal(err)
				}
				m := &machine{g, dev}
				life(t, m)
				if i%2 == 0 {
					if err := g.Shutdown(); err != nil {
						t.Fatal(err)
					}
				}
				g.Quit()
				if p := g.FE.Problems(); len(p) > 0 {
					t.Errorf("QEMU would not like:\n%s", strings.Join(p, "\n"))
				}
				waitDetached(t, dev)
				if i == 0 {
					before = settled(t, 0)
				} else if n := settled(t, before); n > before {
					t.Fatalf("%d descriptors open after guest %d, %d after the first", n, i, before)
				}
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			if err := <-ran; err == nil {
				t.Error("Run on a closed listener ended without an error")
			}
		})
	}
}

func life(t *testing.T, m *machine) {
	t.Helper()
	step := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	step(m.Boot()) // the firmware's driver
	m.echo(t, m.Ctrl, 30)
	step(m.Reset())
	step(m.Boot()) // Linux
	m.echo(t, m.Ctrl, 3000)
	m.echo(t, m.Cursor, 30)
	step(m.Stop())
	step(m.Cont())
	m.echo(t, m.Ctrl, 3000)
	step(m.FE.Mask(0, true))
	step(m.FE.Mask(0, false))
	m.echo(t, m.Ctrl, 3000)
	step(m.Reset()) // module unload and load
	step(m.Boot())
	m.echo(t, m.Cursor, 30)
}

// settled counts descriptors when at most want are left, or else after a while:
// the back-end closes its last one just after it detached the device.
func settled(t *testing.T, want int) (n int) {
	t.Helper()
	for range 50 {
		if n = fdtest.Count(t); n <= want {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	return n
}

func waitDetached(t *testing.T, dev *vhostusertest.Device) {
	t.Helper()
	for range 1000 {
		if slices.Contains(dev.Events(), "detach") {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("the device was not detached")
}

// TestRemap moves the guest's RAM in the front-end's address space while rings
// run, with a chain in flight, as a change of the memory table does.
func TestRemap(t *testing.T) {
	for _, p := range vhostusertest.Profiles {
		t.Run(p.Name, func(t *testing.T) {
			m := start(t, fakeguest.Config{Profile: p, RAMSize: 16 << 20, Split: 8 << 20})
			m.dev.Hold(true)
			op, err := m.Ctrl.Submit([]byte("command 0"), 64)
			if err != nil {
				t.Fatal(err)
			}
			held := func() (n int) {
				m.dev.Loop.Call(func() { n = m.dev.Held() })
				return n
			}
			for held() == 0 {
				time.Sleep(time.Millisecond)
			}
			// The second region is cut in two, and the part without the rings goes
			// away for a moment: chains that lie there must be found again.
			whole := slices.Clone(m.RAM.Regions)
			last := whole[1]
			half := last
			half.Size /= 2
			rest := last
			rest.GPA += half.Size
			rest.UserAddr += half.Size
			rest.MmapOffset += half.Size
			rest.Size -= half.Size
			m.RAM.Regions = []vhostuser.MemRegion{whole[0], half, rest}
			if err := m.FE.UpdateMemory(); err != nil {
				t.Fatal(err)
			}
			m.RAM.Regions = whole
			if err := m.FE.UpdateMemory(); err != nil {
				t.Fatal(err)
			}
			m.dev.Release()
			m.dev.Hold(false)
			checkOps(t, m, []*fakeguest.Op{op})
			m.echo(t, m.Ctrl, 5000)
		})
	}
}

func TestBlocks(t *testing.T) {
	m := start(t, fakeguest.Config{Profile: vhostusertest.QEMU72A, RAMSize: 8 << 20, Split: 4 << 20})
	free := m.Pages.Free()
	for _, make := range []func(uint64) (*fakeguest.Block, error){m.Pages.Scattered, m.Pages.Contiguous} {
		b, err := make(10*fakeguest.PageSize + 5)
		if err != nil {
			t.Fatal(err)
		}
		want := bytes.Repeat([]byte("0123456789"), 1500)
		b.WriteAt(want, 4000)
		got := bytes.Repeat([]byte{0}, len(want))
		b.ReadAt(got, 4000)
		if !bytes.Equal(got, want) {
			t.Error("block does not read back what was written")
		}
		// The device sees the same bytes through its own map.
		m.dev.Loop.Call(func() {
			back, err := m.dev.Mem.NewBacking(b.Entries)
			if err != nil {
				t.Error(err)
				return
			}
			defer back.Close()
			clear(got)
			if _, err := guestmem.ReadAt(got, back.Segs, 4000); err != nil || !bytes.Equal(got, want) {
				t.Errorf("backing reads other bytes (%v)", err)
			}
		})
		b.Free()
	}
	if got := m.Pages.Free(); got != free {
		t.Errorf("%d pages free, %d before", got, free)
	}
	if _, err := m.Pages.Scattered(1 << 30); !errors.Is(err, fakeguest.ErrNoMemory) {
		t.Errorf("a block larger than RAM: %v", err)
	}
	if got := m.Pages.Free(); got != free {
		t.Errorf("%d pages free after a failure, %d before", got, free)
	}
}

func BenchmarkEcho(b *testing.B) {
	m := start(b, fakeguest.Config{Profile: vhostusertest.QEMU10A})
	cmd, resp := make([]byte, 64), make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Do(cmd, resp); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEchoBatch(b *testing.B) {
	m := start(b, fakeguest.Config{Profile: vhostusertest.QEMU10A})
	cmd, resp := make([]byte, 64), make([]byte, 64)
	ops := make([]*fakeguest.Op, 64)
	b.ReportAllocs()
	for b.Loop() {
		var err error
		for i := range ops {
			if ops[i], err = m.Ctrl.Submit(cmd, len(resp)); err != nil {
				b.Fatal(err)
			}
		}
		for _, op := range ops {
			if _, err := m.Ctrl.Wait(op, resp, fakeguest.Timeout); err != nil {
				b.Fatal(err)
			}
		}
	}
}
