package broker_test

import (
	"encoding/binary"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/crossdomain"
	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/headless"
	"github.com/gpubroker/gpubroker/broker/input"
	"github.com/gpubroker/gpubroker/broker/record"
	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
	"github.com/gpubroker/gpubroker/virgl"
	"github.com/gpubroker/gpubroker/virgl/virgltest"
)

// machine is a device with a fake renderer and a fake guest, in this process.
type machine struct {
	*fakeguest.Guest
	t    testing.TB
	dev  *broker.Device
	loop *broker.Loop
	fake *virgltest.Fake
	sink *headless.Sink
	resp []byte
	stop func() error
}

type machineConfig struct {
	limits  broker.Limits
	fake    virgltest.Config
	profile vhostusertest.Profile
	sink    display.Sink // headless if nil
	heads   int
	ram     uint64
	sizes   func([]input.Size) // DeviceConfig.HeadSizes
	apps    *crossdomain.Channels
	record  *record.Writer // DeviceConfig.Record; closed when the machine is
	// outOfBounds says that the test lets the guest name texels and bytes that are
	// not there: those the renderer itself must refuse.
	outOfBounds bool
}

// windowSize is the host-visible window of mode B machines.
const windowSize = 16 << 20

const classic = 1<<virtiogpu.FeatureVirgl | 1<<virtiogpu.FeatureEDID | 1<<virtiogpu.FeatureResourceUUID |
	vhostuser.FVersion1 | vhostuser.FIndirectDesc | vhostuser.FEventIdx | vhostuser.FProtocolFeatures

func newMachine(t testing.TB, cfg machineConfig) *machine {
	t.Helper()
	m := &machine{t: t, resp: make([]byte, 4096)}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	m.loop, err = broker.NewLoop()
	must(err)
	relay := &broker.FenceRelay{}
	cfg.fake.OnFence = relay.Signal
	m.fake, err = virgltest.New(cfg.fake)
	must(err)
	m.sink = headless.New(display.Mode{Enabled: true, W: 1280, H: 800})
	if cfg.sink == nil {
		cfg.sink = m.sink
	}
	if cfg.heads == 0 {
		cfg.heads = 2
	}
	if cfg.profile.Name == "" {
		cfg.profile = vhostusertest.QEMU11A
	}
	dc := broker.DeviceConfig{Loop: m.loop, Renderer: m.fake, Fences: relay, Sink: cfg.sink, Heads: cfg.heads, Limits: cfg.limits, HeadSizes: cfg.sizes, Apps: cfg.apps, Record: cfg.record, Log: zap.NewNop()}
	vc := vhostuser.Config{Executor: m.loop}
	gc := fakeguest.Config{Profile: cfg.profile, RAMSize: cfg.ram}
	if cfg.profile.DisplaySocket {
		gc.Features = classic // QEMU's own gpu device passes no others
	} else {
		dc.HostMem = windowSize
		vc.Shmem = &vhostuser.ShmemConfig{}
		vc.Shmem.Sizes[virtiogpu.ShmIDHostVisible] = windowSize
	}
	if cfg.record != nil {
		cfg.record.Info(&record.Info{GL: !cfg.fake.NoGL, Heads: dc.Heads, Width: 1280, Height: 800, HostMem: dc.HostMem, Apps: dc.Apps != nil})
	}
	m.dev = broker.NewDevice(dc)
	vc.Device = m.dev
	backend, err := vhostuser.NewBackend(vc)
	must(err)
	m.Guest, m.stop, err = fakeguest.Serve(backend, gc)
	must(err)
	must(m.Boot())
	t.Cleanup(func() {
		if err := m.stop(); err != nil {
			t.Error(err)
		}
		m.dev.Close()
		must(cfg.sink.Close())
		m.loop.Call(func() { must(m.fake.Close()) })
		must(m.loop.Close())
		if cfg.record != nil {
			must(cfg.record.Close())
		}
		for _, misuse := range m.fake.Misuse() {
			if cfg.outOfBounds && strings.Contains(misuse, "outside") {
				continue
			}
			t.Error("renderer misused:", misuse)
		}
	})
	return m
}

// do sends a command and returns the response's type and bytes.
func (m *machine) do(cmd []byte) (virtiogpu.Type, []byte) {
	m.t.Helper()
	n, err := m.Do(cmd, m.resp)
	if err != nil {
		m.t.Fatal(err)
	}
	var h virtiogpu.CtrlHdr
	if err := h.Decode(m.resp[:n]); err != nil {
		m.t.Fatal(err)
	}
	return h.Type, m.resp[:n]
}

// ok sends a command that must succeed.
func (m *machine) ok(cmd []byte) []byte {
	m.t.Helper()
	typ, resp := m.do(cmd)
	if !typ.IsOK() {
		m.t.Fatalf("%v answered with %v", virtiogpu.Type(binary.LittleEndian.Uint32(cmd)), typ)
	}
	return resp
}

func (m *machine) create2D(id, w, h uint32) {
	m.t.Helper()
	m.ok((&virtiogpu.ResourceCreate2D{ResourceID: id, Format: virtiogpu.FormatB8G8R8X8, Width: w, Height: h}).Append(nil))
}

func (m *machine) create3D(id, w, h uint32) {
	m.t.Helper()
	m.ok(create3D(id, w, h))
}

func create3D(id, w, h uint32) []byte {
	return (&virtiogpu.ResourceCreate3D{
		ResourceID: id, Target: 2, Format: uint32(virtiogpu.FormatB8G8R8A8), Bind: 2,
		Width: w, Height: h, Depth: 1, ArraySize: 1,
	}).Append(nil)
}

// attach gives the resource scattered guest pages, returned for writing.
func (m *machine) attach(id uint32, size uint64) *fakeguest.Block {
	m.t.Helper()
	b, err := m.Pages.Scattered(size)
	if err != nil {
		m.t.Fatal(err)
	}
	m.ok(attachCmd(id, b))
	return b
}

func attachCmd(id uint32, b *fakeguest.Block) []byte {
	cmd := (&virtiogpu.ResourceAttachBacking{ResourceID: id, NrEntries: uint32(len(b.Entries))}).Append(nil)
	for _, e := range b.Entries {
		cmd = virtiogpu.MemEntry{Addr: e.Addr, Length: e.Len}.Append(cmd)
	}
	return cmd
}

func ctxHdr(ctx uint32) virtiogpu.CtrlHdr { return virtiogpu.CtrlHdr{CtxID: ctx} }

func fenced(ctx uint32, id uint64) virtiogpu.CtrlHdr {
	return virtiogpu.CtrlHdr{CtxID: ctx, Flags: virtiogpu.FlagFence, FenceID: id}
}

func (m *machine) createCtx(id uint32) {
	m.t.Helper()
	m.ok((&virtiogpu.CtxCreate{CtrlHdr: ctxHdr(id)}).Append(nil))
}

func (m *machine) attachCtx(ctx, res uint32) {
	m.t.Helper()
	m.ok(typed(&virtiogpu.CtxResource{CtrlHdr: ctxHdr(ctx), ResourceID: res}, virtiogpu.CmdCtxAttachResource))
}

// typed encodes a struct that serves several commands.
func typed(c interface{ Append([]byte) []byte }, t virtiogpu.Type) []byte {
	p := c.Append(nil)
	binary.LittleEndian.PutUint32(p, uint32(t))
	return p
}

func submit(hdr virtiogpu.CtrlHdr, stream []byte) []byte {
	return append((&virtiogpu.Submit3D{CtrlHdr: hdr, Size: uint32(len(stream))}).Append(nil), stream...)
}

var _ virgl.Renderer = (*virgltest.Fake)(nil)
