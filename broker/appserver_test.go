package broker_test

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/crossdomain"
	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/headless"
	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/broker/wayland/waylandtest"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
	"github.com/gpubroker/gpubroker/virgl"
	"github.com/gpubroker/gpubroker/virgl/virgltest"
)

// crossClient is a Wayland client in the guest that speaks cross-domain itself.
type crossClient struct {
	r       *appsRig
	out     wire.Writer
	in      []byte
	poll    *fakeguest.Op
	globals map[string]uint32 // name by interface
	serial  uint32            // of xdg_surface.configure
	errs    string
}

// flush sends what was written.
func (c *crossClient) flush(ids ...uint32) {
	c.r.t.Helper()
	if err := c.out.Err(); err != nil {
		c.r.t.Fatal(err)
	}
	c.r.ok(submit(ctxHdr(crossCtx), send(string(c.out.Unsent()), crossdomain.IDBlob, ids...)))
	c.out.Reset()
}

// until reads events until f is true.
func (c *crossClient) until(what string, f func() bool) {
	c.r.t.Helper()
	c.read(what, func() bool {
		if c.errs != "" {
			c.r.t.Fatalf("no %s: %s", what, c.errs)
		}
		return f()
	})
}

// read is until for a client that may be ended.
func (c *crossClient) read(what string, f func() bool) {
	c.r.t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); {
		if time.Now().After(end) {
			c.r.t.Fatalf("no %s: %s", what, c.errs)
		}
		if c.poll == nil {
			c.poll = c.r.poll()
		}
		p := c.r.answered(c.poll)
		c.poll = nil
		size := binary.LittleEndian.Uint32(p[12:])
		if size == 0 {
			c.r.t.Fatalf("no %s: the channel ended", what)
		}
		c.in = append(c.in, p[crossdomain.SizeSendReceive:][:size]...)
		for len(c.in) >= 8 {
			word := binary.LittleEndian.Uint32(c.in[4:])
			if len(c.in) < int(word>>16) {
				break
			}
			m := wire.Message{Object: wire.ID(binary.LittleEndian.Uint32(c.in)), Opcode: uint16(word), Body: c.in[8 : word>>16]}
			c.event(m)
			c.in = c.in[word>>16:]
		}
	}
}

// Objects of the client.
const (
	objDisplay = iota + 1
	objRegistry
	objCompositor
	objWM
	objDMABuf
	objSurface
	objXdg
	objTop
	objParams
	objBuffer
)

func (c *crossClient) event(m wire.Message) {
	d := m.Decoder()
	switch {
	case m.Object == objRegistry && m.Opcode == 0:
		name := d.Uint()
		c.globals[d.String()] = name
	case m.Object == objXdg && m.Opcode == 0:
		c.serial = d.Uint()
	case m.Object == objDisplay && m.Opcode == 0:
		d.Uint()
		d.Uint()
		c.errs = d.String()
	}
}

// TestCrossReason: a client in the guest that speaks cross-domain itself hears why the
// proxy ends it, also when it had not read what came before.
func TestCrossReason(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{})
	names := &broker.Names{}
	p, err := proxy.New(proxy.Config{Display: comp.Socket(), Resources: names, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	r := &appsRig{}
	r.machine = newMachine(t, machineConfig{profile: vhostusertest.QEMU11B, apps: &crossdomain.Channels{
		Wayland: func(ctx context.Context, g proxy.Guest, id uint32) error {
			return p.Serve(ctx, g, proxy.Owner{Ctx: id})
		},
	}})
	t.Cleanup(p.Close)
	names.GPU = r.dev
	r.connect(crossdomain.ChannelWayland)
	c := &crossClient{r: r, globals: map[string]uint32{}}
	proto.WlDisplay(objDisplay).GetRegistry(&c.out, objRegistry)
	c.flush()
	time.Sleep(50 * time.Millisecond) // the globals wait for a poll
	c.out.Begin(4242, 0)
	c.out.End()
	c.flush()
	time.Sleep(50 * time.Millisecond)
	c.read("the error", func() bool { return c.errs != "" })
	if c.globals["wl_compositor"] == 0 || !strings.Contains(c.errs, "object 4242") {
		t.Errorf("globals %v, told %q", c.globals, c.errs)
	}
	if p := r.answered(r.poll()); binary.LittleEndian.Uint32(p[12:]) != 0 {
		t.Error("the channel has not ended")
	}
}

// TestCrossWindow: the whole way of a window. A client in the guest draws with virgl,
// names the resource in a cross-domain message, and its dma-buf is on the compositor;
// nothing was copied.
func TestCrossWindow(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{DMABuf: 3, Layouts: []waylandtest.Layout{
		{Fourcc: dmabuf.ARGB8888, Modifier: dmabuf.ModLinear}, {Fourcc: dmabuf.XRGB8888, Modifier: dmabuf.ModLinear},
	}})
	names := &broker.Names{}
	p, err := proxy.New(proxy.Config{Display: comp.Socket(), Resources: names, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	r := &appsRig{}
	r.machine = newMachine(t, machineConfig{
		profile: vhostusertest.QEMU11B,
		fake:    virgltest.Config{Kind: dmabuf.KindDMABuf, Capsets: []virgl.CapsetInfo{{ID: 1, MaxVersion: 1, MaxSize: 308}, {ID: 2, MaxVersion: 2, MaxSize: 1376}}},
		apps: &crossdomain.Channels{Wayland: func(ctx context.Context, g proxy.Guest, id uint32) error {
			return p.Serve(ctx, g, proxy.Owner{Ctx: id})
		}},
	})
	t.Cleanup(p.Close) // before the machine goes
	names.GPU = r.dev
	r.createCtx(1)
	r.create3D(7, 64, 32)
	r.attachCtx(1, 7)
	r.connect(crossdomain.ChannelWayland)
	r.attachCtx(crossCtx, 7)

	c := &crossClient{r: r, globals: map[string]uint32{}}
	out := &c.out
	proto.WlDisplay(objDisplay).GetRegistry(out, objRegistry)
	c.flush()
	c.until("globals", func() bool {
		return c.globals["wl_compositor"] != 0 && c.globals["xdg_wm_base"] != 0 && c.globals["zwp_linux_dmabuf_v1"] != 0
	})
	reg := proto.WlRegistry(objRegistry)
	reg.Bind(out, c.globals["wl_compositor"], "wl_compositor", 4, objCompositor)
	reg.Bind(out, c.globals["xdg_wm_base"], "xdg_wm_base", 1, objWM)
	reg.Bind(out, c.globals["zwp_linux_dmabuf_v1"], "zwp_linux_dmabuf_v1", 3, objDMABuf)
	proto.WlCompositor(objCompositor).CreateSurface(out, objSurface)
	proto.XdgWmBase(objWM).GetXdgSurface(out, objXdg, objSurface)
	proto.XdgSurface(objXdg).GetToplevel(out, objTop)
	proto.XdgToplevel(objTop).SetTitle(out, "cube")
	proto.WlSurface(objSurface).Commit(out)
	c.flush()
	c.until("configure", func() bool { return c.serial != 0 })
	proto.XdgSurface(objXdg).AckConfigure(out, c.serial)
	proto.ZwpLinuxDmabufV1(objDMABuf).CreateParams(out, objParams)
	// add has a descriptor, which is an identifier here: its bytes are without it.
	out.Begin(objParams, proto.OpZwpLinuxBufferParamsV1Add)
	for _, v := range []uint32{0, 0, 256, 0xffffff, 0xffffffff} { // plane, offset, stride, modifier (none)
		out.Uint(v)
	}
	out.End()
	c.flush(7)
	// What shows it is drawn after that, and before the commit.
	if _, err := r.Ctrl.Submit(submit(ctxHdr(1), make([]byte, 64)), 64); err != nil {
		t.Fatal(err)
	}
	proto.ZwpLinuxBufferParamsV1(objParams).CreateImmed(out, objBuffer, 64, 32, uint32(dmabuf.ARGB8888), 0)
	proto.WlSurface(objSurface).Attach(out, objBuffer, 0, 0)
	proto.WlSurface(objSurface).DamageBuffer(out, 0, 0, 64, 32)
	proto.WlSurface(objSurface).Commit(out)
	c.flush()
	waylandtest.Eventually(t, "the window", func() bool {
		for _, f := range comp.Commits() {
			if f.Buffer != nil && !f.Buffer.Shm && f.Buffer.W == 64 && f.Title == "cube" {
				return true
			}
		}
		return false
	})
	windows := p.Windows()
	if len(windows) != 1 || windows[0].Frames["dmabuf"] != 1 || windows[0].BytesCopied != 0 || windows[0].Transport != "cross-domain" {
		t.Errorf("%+v", windows)
	}
	for _, v := range comp.Violations() {
		t.Error(v)
	}
	// Another client's resource ends this connection with an error, and the channel.
	r.create3D(8, 64, 32)
	r.attachCtx(1, 8)
	if typ, _ := r.do(submit(ctxHdr(crossCtx), send("x", crossdomain.IDBlob, 8))); typ.IsOK() {
		t.Error("another context's texture was named")
	}
}

// importMachine is an import device with a fake guest.
func importMachine(t *testing.T, log *zap.Logger) (*machine, *broker.Names) {
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
	udmabuf, err := dmabuf.OpenUDMABuf()
	if err != nil {
		t.Log("without udmabuf:", err)
	}
	m.dev = broker.NewDevice(broker.DeviceConfig{
		Loop: m.loop, Renderer: virgl.None(relay.Signal), Fences: relay, Sink: headless.New(display.Mode{}),
		UDMABuf: udmabuf, Import: true, Log: log,
	})
	b, err := vhostuser.NewBackend(vhostuser.Config{Device: m.dev, Executor: m.loop})
	must(err)
	m.Guest, m.stop, err = fakeguest.Serve(b, fakeguest.Config{Profile: vhostusertest.QEMU11B})
	must(err)
	must(m.Boot())
	t.Cleanup(func() {
		must(m.stop())
		m.dev.Close()
		must(m.loop.Close())
		if udmabuf != nil {
			must(udmabuf.Close())
		}
	})
	return m, &broker.Names{Import: m.dev}
}

// TestImportDevice: it offers blobs and nothing else, and what is imported belongs to
// the client that names it first.
func TestImportDevice(t *testing.T) {
	m, names := importMachine(t, zap.NewNop())
	const gpuBits = 1<<virtiogpu.FeatureVirgl | 1<<virtiogpu.FeatureEDID | 1<<virtiogpu.FeatureResourceUUID |
		1<<virtiogpu.FeatureResourceBlob | 1<<virtiogpu.FeatureContextInit
	if got := m.FE.Offered() & gpuBits; got != 1<<virtiogpu.FeatureResourceBlob {
		t.Errorf("features %#x", got)
	}
	var cfg [virtiogpu.SizeConfig]byte
	m.dev.ReadConfig(cfg[:])
	if n, sets := binary.LittleEndian.Uint32(cfg[8:]), binary.LittleEndian.Uint32(cfg[12:]); n != 0 || sets != 0 {
		t.Errorf("%d scanouts, %d capability sets", n, sets)
	}
	b, err := m.Pages.Scattered(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	b.WriteAt([]byte{1, 2, 3, 4}, 5*4096+8)
	m.ok(createBlob(virtiogpu.CtrlHdr{}, 1, virtiogpu.BlobMemGuest, virtiogpu.BlobFlagShareable, 0, 1<<20, b))
	for _, cmd := range [][]byte{
		createBlob(virtiogpu.CtrlHdr{}, 2, virtiogpu.BlobMemHost3D, virtiogpu.BlobFlagMappable, 0, 4096, nil),
		(&virtiogpu.CtxCreate{CtrlHdr: ctxHdr(1)}).Append(nil), create3D(3, 8, 8),
		scanoutBlob(0, 1, 64, 64, 256, 0, virtiogpu.FormatB8G8R8X8),
	} {
		if typ, _ := m.do(cmd); typ.IsOK() {
			t.Errorf("%v was carried out", virtiogpu.Type(binary.LittleEndian.Uint32(cmd)))
		}
	}
	first, second := proxy.Owner{Token: "first"}, proxy.Owner{Token: "second"}
	r, err := names.Open(t.Context(), first, proxy.DeviceImport, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []proxy.Owner{second, {}} {
		if _, err := names.Open(t.Context(), o, proxy.DeviceImport, 1); !errors.Is(err, proxy.ErrNotOwned) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	again, err := names.Open(t.Context(), first, proxy.DeviceImport, 1)
	if err != nil {
		t.Fatal(err)
	}
	closed(t, again)
	if fd, isDMABuf, err := r.Memory(t.Context()); err == nil {
		mem, err := dmabuf.Map(fd, 1<<20, false)
		if err != nil || !isDMABuf || mem[5*4096+8] != 1 {
			t.Errorf("dma-buf %v, %v", isDMABuf, err)
		}
		_ = dmabuf.Unmap(mem)
		_ = fd.Close()
	} else if !errors.Is(err, proxy.ErrNotExportable) {
		t.Error(err)
	}
	dst, err := shmfallback.Alloc(64, 64, dmabuf.XRGB8888, "window")
	if err != nil {
		t.Fatal(err)
	}
	n, err := r.Read(t.Context(), proxy.Layout{Fourcc: dmabuf.XRGB8888, Stride: 4096}, display.Rect{Y: 5, W: 64, H: 1}, dst)
	if err != nil || n != 256 || dst.Mem[5*int(dst.Planes[0].Stride)+8] != 1 {
		t.Errorf("%d bytes, %v", n, err)
	}
	dst.Release()
	closed(t, r)
	m.ok((&virtiogpu.ResourceUnref{ResourceID: 1}).Append(nil))
	m.ok(createBlob(virtiogpu.CtrlHdr{}, 1, virtiogpu.BlobMemGuest, virtiogpu.BlobFlagShareable, 0, 1<<20, b))
	if r, err = names.Open(t.Context(), second, proxy.DeviceImport, 1); err != nil {
		t.Fatalf("the number is the next one's: %v", err)
	}
	closed(t, r)
	if _, err := names.Open(t.Context(), first, proxy.DeviceGPU, 1); !errors.Is(err, proxy.ErrUnknownResource) {
		t.Errorf("a GPU that is not there: %v", err)
	}
}

// TestImportDetach: Linux detaches the memory of what it imported before it lets go of
// it. That is refused, since a window may show it, and only said at debug; what is
// really wrong is a warning.
func TestImportDetach(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	m, names := importMachine(t, zap.New(core))
	b, err := m.Pages.Scattered(4096)
	if err != nil {
		t.Fatal(err)
	}
	b.WriteAt([]byte{7}, 0)
	detach := func(id uint32) {
		t.Helper()
		if typ, _ := m.do((&virtiogpu.ResourceDetachBacking{ResourceID: id}).Append(nil)); typ.IsOK() {
			t.Errorf("detached from %d", id)
		}
	}
	m.ok(createBlob(virtiogpu.CtrlHdr{}, 1, virtiogpu.BlobMemGuest, virtiogpu.BlobFlagShareable, 0, 4096, b))
	r, err := names.Open(t.Context(), proxy.Owner{Token: "a"}, proxy.DeviceImport, 1)
	if err != nil {
		t.Fatal(err)
	}
	detach(1)
	m.ok((&virtiogpu.ResourceUnref{ResourceID: 1}).Append(nil))
	dst, err := shmfallback.Alloc(1, 1, dmabuf.XRGB8888, "window")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(t.Context(), proxy.Layout{Fourcc: dmabuf.XRGB8888, Stride: 4}, display.Rect{W: 1, H: 1}, dst); err != nil || dst.Mem[0] != 7 {
		t.Errorf("its memory after that: %d, %v", dst.Mem[0], err)
	}
	dst.Release()
	closed(t, r)
	if n := logs.FilterLevelExact(zap.WarnLevel).Len(); n != 0 {
		t.Errorf("warnings: %v", logs.All())
	}
	if n := logs.FilterMessage("command refused").Len(); n != 1 {
		t.Errorf("%d lines about it, want 1: %v", n, logs.All())
	}
	detach(1) // it is gone
	if n := logs.FilterLevelExact(zap.WarnLevel).Len(); n != 1 {
		t.Errorf("%d warnings, want 1: %v", n, logs.All())
	}
}
