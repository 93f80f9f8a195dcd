package vhostuser_test

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/dmabuf"
)

const window = 256 << 20

func shmem() *vhostuser.ShmemConfig {
	return &vhostuser.ShmemConfig{Sizes: [256]uint64{1: window}}
}

// openB is a running machine in mode B with a host-visible window.
func openB(t *testing.T) *bench { return openBWith(t, nil) }

func openBWith(t *testing.T, commit func()) *bench {
	t.Helper()
	b := open(t, option{profile: vhostusertest.QEMU11B, shmem: shmem(), commit: commit})
	must(t, b.fe.Init())
	if got := b.fe.Shmem(); got != *shmem() {
		t.Fatalf("front-end got sizes %v", got.Sizes[:4])
	}
	must(t, b.fe.Start(0, b.layout))
	must(t, b.fe.Sync())
	return b
}

// call sends one request and waits for its outcome.
func call(t *testing.T, f func(done func(error))) error {
	t.Helper()
	out := make(chan error, 1)
	f(func(err error) { out <- err })
	select {
	case err := <-out:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("no outcome")
		return nil
	}
}

func (b *bench) mapFile(t *testing.T, m vhostuser.MMap, fd *dmabuf.FD) error {
	t.Helper()
	return call(t, func(done func(error)) { b.dev.Channel().Map(m, fd, done) })
}

func (b *bench) unmap(t *testing.T, m vhostuser.MMap) error {
	t.Helper()
	return call(t, func(done func(error)) { b.dev.Channel().Unmap(m, done) })
}

// waitRegions waits until the device's memory has n regions: the front-end sends
// the change after its reply.
func (b *bench) waitRegions(t *testing.T, n int) {
	t.Helper()
	got := 0
	for range 1000 {
		b.dev.Loop.Call(func() { got = b.dev.Mem.Regions() })
		if got == n {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("%d memory regions, want %d", got, n)
}

func TestShmem(t *testing.T) {
	b := openB(t)
	fd := memfd(t)
	defer fd.Close()
	m := vhostuser.MMap{ID: 1, FDOffset: 4096, Offset: 0x10000, Len: 0x8000, Write: true}
	must(t, b.mapFile(t, m, fd))
	if got := b.fe.Mappings(); !slices.Equal(got, []vhostuser.MMap{m}) {
		t.Errorf("mapped %+v, want %+v", got, m)
	}
	// Our own file comes back as a memory region, which is taken only at a start.
	b.waitRegions(t, 2)
	must(t, b.fe.Stop())
	must(t, b.fe.Cont())
	must(t, b.fe.Sync())
	b.waitRegions(t, 3)
	b.dev.Loop.Call(func() {
		segs, err := b.dev.Mem.Segments(nil, vhostusertest.WindowGPA(0x10000), 0x8000)
		if err != nil || len(segs) != 1 {
			t.Errorf("the window cannot be translated: %v", err)
		}
	})
	for name, bad := range map[string]vhostuser.MMap{
		"overlap":         {ID: 1, Offset: 0x10000, Len: 4096},
		"another region":  {ID: 2, Len: 4096},
		"beyond":          {ID: 1, Offset: window - 4096, Len: 8192},
		"longer than fd":  {ID: 1, FDOffset: 1 << 20, Len: 4096},
		"nothing":         {ID: 1},
		"offset overflow": {ID: 1, Offset: ^uint64(0), Len: 4096},
	} {
		err := b.mapFile(t, bad, fd)
		var op *vhostuser.OpError
		if !errors.Is(err, vhostuser.ErrRefused) || !errors.As(err, &op) {
			t.Errorf("%s: %v", name, err)
		}
	}
	wrong := m
	wrong.Len = 4096
	if err := b.unmap(t, wrong); !errors.Is(err, vhostuser.ErrRefused) {
		t.Errorf("unmap of a part: %v", err)
	}
	must(t, b.unmap(t, m))
	b.waitRegions(t, 2)
	closed, err := fd.Dup()
	must(t, err)
	_ = closed.Close()
	if err := b.mapFile(t, m, closed); err == nil {
		t.Error("a closed descriptor was mapped")
	}
	must(t, b.quit(t))
}

// TestManyMaps fills the window with more mappings than a memory table has room
// for, all in flight at once.
func TestManyMaps(t *testing.T) {
	b := openB(t)
	fd := memfd(t)
	defer fd.Close()
	const n = 400
	var wg sync.WaitGroup
	for i := range uint64(n) {
		wg.Add(1)
		b.dev.Channel().Map(vhostuser.MMap{ID: 1, Offset: i * 4096, Len: 4096, Write: true}, fd, func(err error) {
			defer wg.Done()
			if err != nil {
				t.Errorf("map %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	must(t, b.fe.Stop())
	must(t, b.fe.Cont())
	b.waitRegions(t, n+2)
	for i := range uint64(n) {
		wg.Add(1)
		b.dev.Channel().Unmap(vhostuser.MMap{ID: 1, Offset: i * 4096, Len: 4096}, func(err error) {
			defer wg.Done()
			if err != nil {
				t.Errorf("unmap %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	b.waitRegions(t, 2)
	must(t, b.quit(t))
}

// TestGate sends requests at times when QEMU would crash on them.
func TestGate(t *testing.T) {
	b := open(t, option{profile: vhostusertest.QEMU11B, shmem: shmem()})
	must(t, b.fe.Init())
	must(t, b.fe.Sync())
	fd := memfd(t)
	defer fd.Close()
	m := vhostuser.MMap{ID: 1, Len: 4096}
	stopped := func(when string) {
		t.Helper()
		if err := b.mapFile(t, m, fd); !errors.Is(err, vhostuser.ErrStopped) {
			t.Errorf("map %s: %v", when, err)
		}
		if err := b.unmap(t, m); !errors.Is(err, vhostuser.ErrStopped) {
			t.Errorf("unmap %s: %v", when, err)
		}
	}
	stopped("before the start")
	b.dev.Channel().ConfigChange() // waits for the start
	time.Sleep(20 * time.Millisecond)
	if n := b.fe.ConfigChanges(); n != 0 {
		t.Errorf("%d config changes before the start", n)
	}
	must(t, b.fe.Start(0, b.layout))
	b.waitChanges(t, 1)
	must(t, b.mapFile(t, m, fd))
	must(t, b.fe.Stop())
	stopped("after vm stop")
	must(t, b.fe.Cont())
	must(t, b.fe.Sync())
	must(t, b.unmap(t, m))
	must(t, b.mapFile(t, m, fd))
	must(t, b.fe.Reset())
	stopped("after a reset")
	must(t, b.fe.Start(0, b.layout))
	must(t, b.fe.Sync())
	must(t, b.mapFile(t, m, fd))   // the reset dropped the old one
	before := b.fe.ConfigChanges() // each mapping makes one
	b.dev.Channel().ConfigChange()
	b.waitChanges(t, before+1)
	must(t, b.quit(t))
}

func (b *bench) waitChanges(t *testing.T, n int) {
	t.Helper()
	for range 1000 {
		if b.fe.ConfigChanges() == n {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("%d config changes, want %d", b.fe.ConfigChanges(), n)
}

// TestStopRace stops and starts the device while another goroutine maps and
// unmaps without a pause. A request may be on its way when the stop begins; the
// front-end then reads one that it does not know. Whatever happens, neither side
// hangs, and each request ends.
func TestStopRace(t *testing.T) {
	b := openB(t)
	fd := memfd(t)
	defer fd.Close()
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for i := uint64(0); ; i++ {
			select {
			case <-end:
				return
			default:
			}
			m := vhostuser.MMap{ID: 1, Offset: (i % 64) * 4096, Len: 4096}
			_ = call(t, func(done func(error)) { b.dev.Channel().Map(m, fd, done) })
			_ = call(t, func(done func(error)) { b.dev.Channel().Unmap(m, done) })
		}
	}()
	const stops = 200
	for range stops {
		must(t, b.fe.Stop())
		must(t, b.fe.Cont())
	}
	close(end)
	<-ended
	b.fe.Quit()
	must(t, b.wait(t))
	for _, p := range b.fe.Problems() {
		t.Error(p)
	}
	n := b.fe.Unknown()
	t.Logf("%d of %d stops met a request on its way", n, stops)
	if n == 0 || n > stops {
		t.Error("want some, and one at most for each stop")
	}
}

// TestChannelCloses checks that waiting requests end when the front-end goes.
func TestChannelCloses(t *testing.T) {
	b := openB(t)
	fd := memfd(t)
	defer fd.Close()
	ch := b.dev.Channel()
	outcomes := make(chan error, 100)
	for i := range uint64(100) {
		ch.Map(vhostuser.MMap{ID: 1, Offset: i * 4096, Len: 4096}, fd, func(err error) { outcomes <- err })
	}
	b.fe.Quit()
	must(t, b.wait(t))
	for range 100 {
		select {
		case err := <-outcomes:
			if err != nil && !errors.Is(err, vhostuser.ErrClosed) && !errors.Is(err, vhostuser.ErrStopped) {
				t.Errorf("outcome %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a request never ended")
		}
	}
	if err := call(t, func(done func(error)) { ch.Map(vhostuser.MMap{ID: 1, Len: 4096}, fd, done) }); !errors.Is(err, vhostuser.ErrClosed) {
		t.Errorf("map on a closed channel: %v", err)
	}
	ch.ConfigChange() // does nothing
}

// TestNoShmem has a front-end that does not know shared memory.
func TestNoShmem(t *testing.T) {
	b := open(t, option{profile: vhostusertest.QEMU10A, shmem: shmem()})
	must(t, b.fe.Init())
	must(t, b.fe.Start(0, b.layout))
	must(t, b.fe.Sync())
	if b.dev.Channel().CanMap() {
		t.Error("CanMap although SHMEM was not negotiated")
	}
	fd := memfd(t)
	defer fd.Close()
	if err := b.mapFile(t, vhostuser.MMap{ID: 1, Len: 4096}, fd); !errors.Is(err, vhostuser.ErrUnknown) {
		t.Errorf("map: %v", err)
	}
	b.dev.Channel().ConfigChange()
	b.waitChanges(t, 1)
	must(t, b.quit(t))
}

// TestChannelAgain replaces the channel, and gives one that answers nonsense.
func TestChannelAgain(t *testing.T) {
	b := openB(t)
	fd := memfd(t)
	defer fd.Close()
	ours, theirs, err := vhostusertest.Pair()
	must(t, err)
	must(t, b.fe.Request(vhostuser.ReqSetBackendReqFD, nil, theirs))
	_ = theirs.Close()
	conn, err := vhostuser.FromFD(ours)
	must(t, err)
	defer conn.Close()
	out := make(chan error, 1)
	b.dev.Channel().Map(vhostuser.MMap{ID: 1, Len: 4096}, fd, func(err error) { out <- err })
	m, err := conn.Read()
	must(t, err)
	if m.Request != uint32(vhostuser.BackendShmemMap) || !m.NeedReply() || len(m.FDs) != 1 {
		t.Fatalf("request %d, flags %#x, %d descriptors", m.Request, m.Flags, len(m.FDs))
	}
	m.CloseFDs()
	must(t, conn.Send(77, vhostuser.FlagReply, u64(0)))
	if err := <-out; !errors.Is(err, vhostuser.ErrProtocol) {
		t.Errorf("a wrong reply: %v", err)
	}
	if err := b.mapFile(t, vhostuser.MMap{ID: 1, Len: 4096}, fd); !errors.Is(err, vhostuser.ErrClosed) {
		t.Errorf("map after a wrong reply: %v", err)
	}
	must(t, b.quit(t))
}

// TestMapCommitted: a mapping is reported only when the guest's memory has it,
// because until then what the guest writes there is lost.
func TestMapCommitted(t *testing.T) {
	var committed atomic.Bool
	b := openBWith(t, func() {
		time.Sleep(5 * time.Millisecond)
		committed.Store(true)
	})
	fd := memfd(t)
	defer fd.Close()
	for i := range uint64(20) {
		committed.Store(false)
		must(t, b.mapFile(t, vhostuser.MMap{ID: 1, Offset: i * 0x10000, Len: 0x8000, Write: true}, fd))
		if !committed.Load() {
			t.Errorf("mapping %d was reported before it was made", i)
		}
	}
	must(t, b.quit(t))
}

// TestResetWhileMapped: the guest resets the device while blobs are mapped. QEMU
// 11.1 survives that only if it does not believe that we have their memory.
func TestResetWhileMapped(t *testing.T) {
	b := openB(t)
	fd := memfd(t)
	defer fd.Close()
	for range 5 {
		for i := range uint64(8) {
			must(t, b.mapFile(t, vhostuser.MMap{ID: 1, Offset: i * 0x10000, Len: 0x8000, Write: true}, fd))
		}
		must(t, b.fe.Reset())
		must(t, b.fe.Start(0, b.layout))
		must(t, b.fe.Sync())
	}
	b.waitRegions(t, 2)
	must(t, b.quit(t)) // which fails with the front-end's problems
}
