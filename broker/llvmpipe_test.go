package broker_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/headless"
	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
	"github.com/gpubroker/gpubroker/virgl"
	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

// TestNameRenderer: with the real library, what a guest's program draws is what a
// window shows: read after its fence, and as a dma-buf where the driver gives some.
func TestNameRenderer(t *testing.T) {
	t.Setenv("LIBGL_ALWAYS_SOFTWARE", "1")
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
	var rend virgl.Renderer
	m.loop.Call(func() { rend, err = virgl.New(virgl.Config{OnFence: relay.Signal, Log: zap.NewNop()}) })
	must(err)
	m.dev = broker.NewDevice(broker.DeviceConfig{
		Loop: m.loop, Renderer: rend, Fences: relay, Sink: headless.New(display.Mode{Enabled: true, W: 64, H: 64}), Heads: 1, Log: zap.NewNop(),
	})
	b, err := vhostuser.NewBackend(vhostuser.Config{Device: m.dev, Executor: m.loop})
	must(err)
	m.Guest, m.stop, err = fakeguest.Serve(b, fakeguest.Config{Profile: vhostusertest.QEMU11B})
	must(err)
	must(m.Boot())
	t.Cleanup(func() {
		must(m.stop())
		m.dev.Close()
		m.loop.Call(func() { must(rend.Close()) })
		must(m.loop.Close())
	})

	formats := m.names().Formats()
	has := map[dmabuf.Fourcc]bool{}
	for _, f := range formats {
		has[f.Fourcc] = true
	}
	if !has[dmabuf.ARGB8888] || !has[dmabuf.XRGB8888] {
		t.Errorf("formats %v", formats)
	}
	const w, h = 96, 64
	m.namedCtx(1, token)
	m.ok((&virtiogpu.ResourceCreate3D{
		ResourceID: 1, Target: 2, Format: uint32(virtiogpu.FormatB8G8R8A8), Bind: 1<<1 | 1<<3, Width: w, Height: h, Depth: 1, ArraySize: 1,
	}).Append(nil))
	m.attachCtx(1, 1)
	r := m.open(proxy.Owner{Token: token}, 1)
	dst, err := shmfallback.Alloc(w, h, dmabuf.ARGB8888, "window")
	must(err)
	var cmds virglcmd.Builder
	for i := range 20 { // an old picture would be seen
		cmds.Reset()
		red := float32(i%2)*0.5 + 0.25
		if i == 0 {
			cmds.CreateSubCtx(1)
		}
		cmds.SetSubCtx(1)
		cmds.CreateSurface(10, 1, uint32(virtiogpu.FormatB8G8R8A8), 0, 0)
		cmds.SetFramebuffer(10)
		cmds.Clear(virglcmd.ClearColor0, [4]float32{red, 0.5, 0, 1}, 0, 0)
		cmds.DestroyObject(virglcmd.ObjectSurface, 10)
		// The stream tells of the frame before the control queue was served.
		if _, err := m.Ctrl.Submit(submit(ctxHdr(1), cmds.Bytes()), 64); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		must(r.Drawn(ctx))
		n, err := r.Read(ctx, proxy.Layout{}, display.Rect{X: 8, Y: 8, W: 4, H: 4}, dst)
		cancel()
		must(err)
		px := dst.Mem[8*int(dst.Planes[0].Stride)+8*4:]
		if want := byte(red*255 + 0.5); n != 64 || px[2]-want+1 > 2 || px[1] < 126 || px[1] > 129 || px[0] != 0 || px[3] != 255 {
			t.Fatalf("frame %d: pixel %v, want red %d", i, px[:4], want)
		}
	}
	dst.Release()
	buf, err := r.Buffer(t.Context())
	switch {
	case err == nil:
		if buf.Width != w || buf.Height != h || buf.Kind != dmabuf.KindDMABuf {
			t.Errorf("%v", buf)
		}
		buf.Release()
	case errors.Is(err, proxy.ErrNotExportable):
		t.Logf("no dma-buf to look at: %v", err)
	default:
		t.Error(err)
	}
	closed(t, r)
}
