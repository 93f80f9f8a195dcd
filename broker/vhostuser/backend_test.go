package vhostuser_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"

	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// bench is a back-end with an echo device, and the front-end's end of its socket.
type bench struct {
	dev    *vhostusertest.Device
	ram    *vhostusertest.RAM
	fe     *vhostusertest.Frontend
	layout []vhostusertest.Layout
	served chan error
}

type option struct {
	profile vhostusertest.Profile
	order   []vhostusertest.Step
	shmem   *vhostuser.ShmemConfig
	noSeal  bool
	ctx     context.Context
	refuse  error
	quiet   bool
	log     *zap.Logger
	commit  func()
}

func open(t testing.TB, o option) *bench {
	t.Helper()
	loop, err := vhostusertest.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(loop.Close)
	b := &bench{dev: vhostusertest.NewDevice(loop), served: make(chan error, 1)}
	b.dev.RefuseFeatures = o.refuse
	copy(b.dev.Config[:], "events__scanouts")
	cfg := vhostuser.Config{Device: b.dev, Executor: loop, Shmem: o.shmem}
	if o.log != nil {
		cfg.Log = o.log
	} else if !o.quiet {
		cfg.Log = zaptest.NewLogger(t)
	}
	backend, err := vhostuser.NewBackend(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if b.ram, err = vhostusertest.NewRAM(vhostusertest.RAMConfig{Size: 1 << 20, Split: 512 << 10, NoSeal: o.noSeal}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.ram.Close)
	feSock, beSock, err := vhostusertest.Pair()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := vhostuser.FromFD(beSock)
	if err != nil {
		t.Fatal(err)
	}
	if o.ctx == nil {
		o.ctx = context.Background()
	}
	go func() { b.served <- backend.Serve(o.ctx, conn) }()
	if b.fe, err = vhostusertest.New(feSock, vhostusertest.Config{Profile: o.profile, RAM: b.ram, Order: o.order, BeforeCommit: o.commit}); err != nil {
		t.Fatal(err)
	}
	b.layout = []vhostusertest.Layout{
		{Size: 16, Desc: 0x1000, Avail: 0x2000, Used: 0x3000},
		{Size: 4, Desc: 1<<32 + 0x1000, Avail: 1<<32 + 0x2000, Used: 1<<32 + 0x3000},
	}
	return b
}

// quit ends the connection and returns what Serve said.
func (b *bench) quit(t testing.TB) error {
	t.Helper()
	b.fe.Quit()
	if p := b.fe.Problems(); len(p) > 0 {
		t.Errorf("QEMU would not like:\n%s", strings.Join(p, "\n"))
	}
	return b.wait(t)
}

func (b *bench) wait(t testing.TB) error {
	t.Helper()
	select {
	case err := <-b.served:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("Serve did not return")
		return nil
	}
}

func (b *bench) events(t testing.TB) []string {
	t.Helper()
	if err := b.fe.Sync(); err != nil {
		t.Fatal(err)
	}
	return b.dev.Events()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestLife checks, for each version of QEMU, what the device is told.
func TestLife(t *testing.T) {
	for _, p := range vhostusertest.Profiles {
		t.Run(p.Name, func(t *testing.T) {
			b := open(t, option{profile: p})
			must(t, b.fe.Init())
			channel := []string{}
			if p.Proto != 0 {
				channel = []string{"channel true"}
			}
			display := []string{}
			if p.DisplaySocket {
				display = []string{"display"}
			}
			check := func(what string, want ...string) {
				t.Helper()
				if diff := cmp.Diff(want, b.events(t)); diff != "" {
					t.Errorf("%s: the device was told (-want +got):\n%s", what, diff)
				}
			}
			reset := []string{}
			if p.ResetDevice {
				reset = []string{"reset", "reset"}
			}
			check("init", slices.Concat([]string{"attach"}, channel, reset[:len(reset)/2])...)
			startup := append(slices.Clone(display), "features", "start 0 fresh=true base=0", "start 1 fresh=true base=0")
			for range 2 {
				must(t, b.fe.Start(vhostuser.FVersion1, b.layout))
				check("start", startup...)
				must(t, b.fe.Stop())
				check("stop", "stop 0", "stop 1")
				must(t, b.fe.Cont())
				// Nothing was ever taken, so this is as good as fresh.
				check("cont", startup...)
				must(t, b.fe.Reset())
				check("reset", append([]string{"stop 0", "stop 1"}, reset...)...)
			}
			must(t, b.fe.Start(vhostuser.FVersion1, b.layout))
			check("start", startup...)
			if err := b.quit(t); err != nil {
				t.Errorf("Serve: %v", err)
			}
			want := []string{"stop 0", "stop 1"}
			if p.Proto != 0 {
				want = append(want, "channel false")
			}
			if diff := cmp.Diff(append(want, "detach"), b.dev.Events()); diff != "" {
				t.Errorf("quit: the device was told (-want +got):\n%s", diff)
			}
		})
	}
}

// TestOrders sends the parts of a ring in every order: it starts when the last
// one is there, and only then.
func TestOrders(t *testing.T) {
	steps := []vhostusertest.Step{vhostusertest.StepNum, vhostusertest.StepBase, vhostusertest.StepAddr, vhostusertest.StepKick, vhostusertest.StepCall}
	for _, p := range []vhostusertest.Profile{vhostusertest.QEMU72A, vhostusertest.Bare} {
		permute(steps, func(order []vhostusertest.Step) {
			t.Run(fmt.Sprintf("%s/%v", p.Name, order), func(t *testing.T) {
				b := open(t, option{profile: p, order: slices.Clone(order)})
				must(t, b.fe.Init())
				must(t, b.fe.Start(0, b.layout))
				want := []string{"display", "features", "start 0 fresh=true base=0", "start 1 fresh=true base=0"}
				if ev := b.events(t); len(ev) < 4 || !slices.Equal(ev[len(ev)-4:], want) {
					t.Errorf("the device was told %q", ev)
				}
				must(t, b.quit(t))
			})
		})
	}
}

func permute(s []vhostusertest.Step, f func([]vhostusertest.Step)) {
	if len(s) == 0 {
		return
	}
	var rec func(k int)
	rec = func(k int) {
		if k == len(s) {
			f(s)
			return
		}
		for i := k; i < len(s); i++ {
			s[k], s[i] = s[i], s[k]
			rec(k + 1)
			s[k], s[i] = s[i], s[k]
		}
	}
	rec(0)
}

func TestConfig(t *testing.T) {
	b := open(t, option{profile: vhostusertest.QEMU10A})
	must(t, b.fe.Init())
	for _, r := range [][2]uint32{{0, 16}, {0, 256}, {4, 4}, {255, 1}, {256, 0}, {0, 0}} {
		got, err := b.fe.GetConfig(r[0], r[1])
		must(t, err)
		space := make([]byte, 256)
		copy(space, b.dev.Config[:])
		if want := space[r[0] : r[0]+r[1]]; !bytes.Equal(got, want) {
			t.Errorf("config %d+%d: %q, want %q", r[0], r[1], got, want)
		}
	}
	must(t, b.fe.SetConfig(0, []byte("new!")))
	if got := b.dev.Written(); string(got) != "new!" {
		t.Errorf("device got %q", got)
	}
	var status *vhostusertest.StatusError
	if err := b.fe.SetConfig(100, []byte{1}); !errors.As(err, &status) {
		t.Errorf("a write that the device refuses: %v", err)
	}
	// A bad range is answered with size 0, as the protocol says.
	if _, err := b.fe.GetConfig(256, 1); err == nil || !strings.Contains(err.Error(), "0 bytes") {
		t.Errorf("config beyond the end: %v", err)
	}
	must(t, b.quit(t))
}

func TestFeatures(t *testing.T) {
	b := open(t, option{profile: vhostusertest.QEMU11B})
	must(t, b.fe.Init())
	const transport = vhostuser.FIndirectDesc | vhostuser.FEventIdx | vhostuser.FProtocolFeatures | vhostuser.FVersion1
	if got, want := b.fe.Offered(), transport|b.dev.Features(); got != want {
		t.Errorf("offered %#x, want %#x", got, want)
	}
	if got := b.fe.Proto(); got&(vhostuser.ProtoShmem|vhostuser.ProtoGPAAddresses|vhostuser.ProtoMQ|vhostuser.ProtoStatus) != 0 {
		t.Errorf("protocol features %#x", uint64(got))
	}
	const always = vhostuser.ProtoConfig | vhostuser.ProtoReplyAck | vhostuser.ProtoConfigureMemSlots | vhostuser.ProtoBackendReq |
		vhostuser.ProtoBackendSendFD | vhostuser.ProtoResetDevice
	if got := b.fe.Proto(); got != always {
		t.Errorf("protocol features %#x, want %#x", uint64(got), uint64(always))
	}
	must(t, b.quit(t))

	for _, bit := range []uint64{vhostuser.FRingPacked, vhostuser.FAccessPlatform, vhostuser.FInOrder} {
		b := open(t, option{profile: vhostusertest.QEMU10A})
		must(t, b.fe.Init())
		_ = b.fe.Start(bit, b.layout) // fails or not, as the message wins the race or not
		if err := b.wait(t); !errors.Is(err, vhostuser.ErrFeature) {
			t.Errorf("driver bit %#x: %v", bit, err)
		}
		b.fe.Quit()
	}

	refused := errors.New("boom")
	b = open(t, option{profile: vhostusertest.QEMU10A, refuse: refused})
	must(t, b.fe.Init())
	must(t, b.fe.Start(0, b.layout))
	if ev := b.events(t); slices.ContainsFunc(ev, func(e string) bool { return strings.HasPrefix(e, "start") }) {
		t.Errorf("a ring started although the device refused the features: %q", ev)
	}
	must(t, b.quit(t))
}

// TestMasking swaps the call eventfd while rings run: each swap interrupts once,
// for what may have been lost.
func TestMasking(t *testing.T) {
	b := open(t, option{profile: vhostusertest.QEMU11A})
	must(t, b.fe.Init())
	must(t, b.fe.Start(0, b.layout))
	_, err := b.fe.WaitCall(0, 0)
	must(t, err)
	for range 3 {
		must(t, b.fe.Mask(0, true))
		must(t, b.fe.Sync())
		if got, err := b.fe.WaitCall(0, 0); got || err != nil {
			t.Errorf("masked, but the guest was interrupted (%v)", err)
		}
		must(t, b.fe.Mask(0, false))
		if got, err := b.fe.WaitCall(0, 5*time.Second); !got || err != nil {
			t.Errorf("unmasked: no interrupt (%v)", err)
		}
	}
	must(t, b.quit(t))
}

// TestRestartEnable disables and enables rings without anything else.
func TestRestartEnable(t *testing.T) {
	b := open(t, option{profile: vhostusertest.QEMU10A})
	must(t, b.fe.Init())
	must(t, b.fe.Start(0, b.layout))
	b.events(t)
	for range 3 {
		must(t, b.fe.Request(vhostuser.ReqSetVringEnable, vhostuser.VringState{Index: 1, Num: 0}.Append(nil)))
		must(t, b.fe.Request(vhostuser.ReqSetVringEnable, vhostuser.VringState{Index: 1, Num: 1}.Append(nil)))
		want := []string{"stop 1", "start 1 fresh=false base=0"}
		if diff := cmp.Diff(want, b.events(t)); diff != "" {
			t.Error(diff)
		}
	}
	// A new kick eventfd on a running ring.
	must(t, b.fe.Request(vhostuser.ReqSetVringKick, vhostuser.VringFD{Index: 1}.Append(nil), b.fe.CallFD(0)))
	if diff := cmp.Diff([]string{"stop 1", "start 1 fresh=false base=0"}, b.events(t)); diff != "" {
		t.Error(diff)
	}
	// The old way to reset.
	must(t, b.fe.Request(vhostuser.ReqResetOwner, nil))
	if diff := cmp.Diff([]string{"stop 0", "stop 1"}, b.events(t)); diff != "" {
		t.Error(diff)
	}
	must(t, b.quit(t))
}

// TestNoFDs runs a ring without kick, call and error eventfds: it is polled.
func TestNoFDs(t *testing.T) {
	b := open(t, option{profile: vhostusertest.QEMU10A})
	must(t, b.fe.Init())
	must(t, b.fe.Start(0, b.layout))
	none := vhostuser.VringFD{Index: 0, NoFD: true}.Append(nil)
	for _, req := range []vhostuser.Request{vhostuser.ReqSetVringKick, vhostuser.ReqSetVringCall, vhostuser.ReqSetVringErr} {
		must(t, b.fe.Request(req, none))
	}
	// One descriptor of 16 writable bytes, put into the ring by hand.
	desc, avail, used := b.ram.Slice(0x1000, 16), b.ram.Slice(0x2000, 8), b.ram.Slice(0x3000, 16)
	copy(desc, vhostuser.VringAddr{Index: 0x8000, Desc: 0x2_0000_0010}.Append(nil)[:16])
	avail[2] = 1
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		var idx byte
		b.dev.Loop.Call(func() { idx = used[2] }) // in step with the device's writes
		if idx == 1 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the ring is not polled")
		}
	}
	must(t, b.quit(t))
}

// TestMemoryChanges takes the rings' memory away and brings it back while they
// run, and moves it.
func TestMemoryChanges(t *testing.T) {
	for _, p := range []vhostusertest.Profile{vhostusertest.QEMU10A, vhostusertest.Bare} {
		t.Run(p.Name, func(t *testing.T) {
			b := open(t, option{profile: p})
			must(t, b.fe.Init())
			must(t, b.fe.Start(0, b.layout))
			b.events(t)
			whole := slices.Clone(b.ram.Regions)
			b.ram.Regions = whole[:1] // the cursor ring lies in the other one
			must(t, b.fe.UpdateMemory())
			if diff := cmp.Diff([]string{"stop 1"}, b.events(t)); diff != "" {
				t.Error(diff)
			}
			b.ram.Regions = whole
			must(t, b.fe.UpdateMemory())
			if diff := cmp.Diff([]string{"start 1 fresh=false base=0"}, b.events(t)); diff != "" {
				t.Error(diff)
			}
			// The same again: nothing happens.
			must(t, b.fe.UpdateMemory())
			if ev := b.events(t); len(ev) != 0 {
				t.Error(ev)
			}
			// The address of a running ring's parts may be said again, or be bad.
			addr := vhostuser.VringAddr{Index: 0, Desc: b.ram.UserAddr(0x1000), Avail: b.ram.UserAddr(0x2000), Used: b.ram.UserAddr(0x3000)}
			must(t, b.fe.Request(vhostuser.ReqSetVringAddr, addr.Append(nil)))
			addr.Used = 0x1234
			if err := b.fe.Request(vhostuser.ReqSetVringAddr, addr.Append(nil)); (err != nil) != (p.Proto != 0) {
				t.Errorf("bad ring address: %v", err)
			}
			if ev := b.events(t); len(ev) != 0 {
				t.Error(ev)
			}
			must(t, b.quit(t))
		})
	}
}

// TestUnsealed warns, once, of memory that can shrink, and works.
func TestUnsealed(t *testing.T) {
	for _, noSeal := range []bool{false, true} {
		core, logs := observer.New(zap.WarnLevel)
		b := open(t, option{profile: vhostusertest.QEMU10A, noSeal: noSeal, log: zap.New(core)})
		must(t, b.fe.Init())
		must(t, b.fe.Start(0, b.layout))
		must(t, b.fe.Sync())
		n := logs.FilterMessageSnippet("can shrink").Len()
		if want := map[bool]int{true: 1}[noSeal]; n != want {
			t.Errorf("seal=off %t: %d warnings, want %d", noSeal, n, want)
		}
		must(t, b.quit(t))
	}
}

func TestContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	b := open(t, option{profile: vhostusertest.QEMU10A, ctx: ctx})
	must(t, b.fe.Init())
	must(t, b.fe.Start(0, b.layout))
	cancel()
	if err := b.wait(t); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if ev := b.dev.Events(); !slices.Contains(ev, "detach") {
		t.Errorf("the device was told %q", ev)
	}
	b.fe.Quit()
}

func TestNewBackendErrors(t *testing.T) {
	loop, err := vhostusertest.NewLoop()
	must(t, err)
	defer loop.Close()
	dev := vhostusertest.NewDevice(loop)
	for _, cfg := range []vhostuser.Config{{Device: dev}, {Executor: loop}, {Device: dev, Executor: loop, Queues: 257}, {Device: dev, Executor: loop, Queues: -1}} {
		if _, err := vhostuser.NewBackend(cfg); !errors.Is(err, vhostuser.ErrState) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

func memfd(t testing.TB) *dmabuf.FD {
	t.Helper()
	ram, err := vhostusertest.NewRAM(vhostusertest.RAMConfig{Size: 1 << 20})
	must(t, err)
	defer ram.Close()
	fd, err := ram.FD.Dup()
	must(t, err)
	return fd
}
