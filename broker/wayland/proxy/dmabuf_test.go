package proxy_test

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy/proxytest"
	"github.com/gpubroker/gpubroker/broker/wayland/waylandtest"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// layouts are formats that a compositor offers, LINEAR.
func layouts(fourccs ...dmabuf.Fourcc) (out []waylandtest.Layout) {
	for _, f := range fourccs {
		out = append(out, waylandtest.Layout{Fourcc: f, Modifier: dmabuf.ModLinear})
	}
	return out
}

// gpu is the item of a texture.
func gpu(id uint32) proxy.Item { return proxy.Item{Kind: proxy.ItemResource, Resource: id} }

// createImmed makes a wl_buffer of resource id.
func createImmed(c *proxytest.Client, dm wire.ID, id uint32, w, h int32, f dmabuf.Fourcc) proto.WlBuffer {
	p := proto.ZwpLinuxBufferParamsV1(c.NewID(proto.IZwpLinuxBufferParamsV1, 3))
	proto.ZwpLinuxDmabufV1(dm).CreateParams(&c.Out, p)
	c.ParamsAdd(p, gpu(id), 0, 0, uint32(w)*4, uint64(dmabuf.ModLinear))
	b := proto.WlBuffer(c.NewID(proto.IWlBuffer, 1))
	p.CreateImmed(&c.Out, b, w, h, uint32(f), 0)
	p.Destroy(&c.Out)
	return b
}

// create asks for the same and waits for the answer; 0 if it failed.
func create(c *proxytest.Client, dm wire.ID, id uint32, w, h int32, f dmabuf.Fourcc) proto.WlBuffer {
	p := proto.ZwpLinuxBufferParamsV1(c.NewID(proto.IZwpLinuxBufferParamsV1, 3))
	proto.ZwpLinuxDmabufV1(dm).CreateParams(&c.Out, p)
	c.ParamsAdd(p, gpu(id), 0, 0, uint32(w)*4, uint64(dmabuf.ModLinear))
	p.Create(&c.Out, w, h, uint32(f), 0)
	p.Destroy(&c.Out)
	before := c.Count(proto.IZwpLinuxBufferParamsV1, proto.EvZwpLinuxBufferParamsV1Created)
	c.Roundtrip()
	if c.Count(proto.IZwpLinuxBufferParamsV1, proto.EvZwpLinuxBufferParamsV1Created) == before {
		return 0
	}
	var ev proto.ZwpLinuxBufferParamsV1CreatedEvent
	if err := ev.Decode(c.Last(proto.IZwpLinuxBufferParamsV1, proto.EvZwpLinuxBufferParamsV1Created).Message); err != nil {
		c.T.Fatal(err)
	}
	return ev.Buffer
}

// TestExportsAreShown: a texture goes out as its export is, with the colours of the
// export and the alpha that the client wants.
func TestExportsAreShown(t *testing.T) {
	for _, version := range []uint32{3, 4} {
		comp := waylandtest.New(t, waylandtest.Config{DMABuf: version, Layouts: layouts(dmabuf.ARGB8888, dmabuf.XRGB8888, dmabuf.ABGR8888, dmabuf.XBGR8888)})
		res := proxytest.NewResources(dmabuf.ARGB8888, dmabuf.XRGB8888)
		p := newProxy(t, comp, proxy.Config{Resources: res})
		c := connect(t, p)
		w := c.NewWindow()
		dm := c.Bind("zwp_linux_dmabuf_v1", 3)
		for i, k := range []struct{ texture, export, wants, shown dmabuf.Fourcc }{
			{dmabuf.ARGB8888, dmabuf.ARGB8888, dmabuf.ARGB8888, dmabuf.ARGB8888},
			{dmabuf.ARGB8888, dmabuf.ABGR8888, dmabuf.ARGB8888, dmabuf.ABGR8888}, // llvmpipe
			{dmabuf.ARGB8888, dmabuf.ABGR8888, dmabuf.XRGB8888, dmabuf.XBGR8888},
			{dmabuf.XRGB8888, dmabuf.ABGR8888, dmabuf.XRGB8888, dmabuf.XBGR8888},
			{dmabuf.XRGB8888, dmabuf.XBGR8888, dmabuf.ARGB8888, dmabuf.ABGR8888},
		} {
			id := uint32(10 + i)
			tex := res.AddTexture(t, id, 32, 16, k.texture, k.export)
			for _, make := range []func(*proxytest.Client, wire.ID, uint32, int32, int32, dmabuf.Fourcc) proto.WlBuffer{createImmed, create} {
				b := make(c, dm, id, 32, 16, k.wants)
				before := tex.DrawnCount()
				w.Show(b)
				c.Roundtrip()
				frames := comp.Frames()
				f := frames[len(frames)-1]
				if f.Buffer.Shm || f.Buffer.Layout.Fourcc != k.shown || f.Buffer.W != 32 || f.Buffer.Stride != 128 {
					t.Errorf("version %d, %v as %v wanted as %v: shown as %+v", version, k.texture, k.export, k.wants, f.Buffer)
				}
				if tex.DrawnCount() != before+1 {
					t.Errorf("the commit did not wait for the GPU")
				}
				b.Destroy(&c.Out)
			}
		}
		if ws := p.Windows(); ws[0].Frames["dmabuf"] != 10 || ws[0].BytesCopied != 0 || ws[0].Why != "" {
			t.Errorf("windows: %+v", ws)
		}
		c.Leave()
		if n := res.OpenCount(); n != 0 {
			t.Errorf("%d resources still open", n)
		}
	}
}

// TestYInvertedExport says upside down what is.
func TestYInvertedExport(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{DMABuf: 3, Layouts: layouts(dmabuf.ARGB8888)})
	res := proxytest.NewResources(dmabuf.ARGB8888)
	tex := res.AddTexture(t, 1, 32, 16, dmabuf.ARGB8888, dmabuf.ARGB8888)
	fd, err := tex.Export.Planes[0].FD.Dup()
	if err != nil {
		t.Fatal(err)
	}
	tex.Export, err = dmabuf.New(dmabuf.Desc{Kind: dmabuf.KindDMABuf, Width: 32, Height: 16, Fourcc: dmabuf.ARGB8888, YInvert: true,
		Planes: []dmabuf.Plane{{FD: fd, Stride: 256, Offset: 64}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tex.Export.Release)
	c := connect(t, newProxy(t, comp, proxy.Config{Resources: res}))
	w := c.NewWindow()
	w.Show(createImmed(c, c.Bind("zwp_linux_dmabuf_v1", 3), 1, 32, 16, dmabuf.ARGB8888))
	c.Roundtrip()
	if b := comp.WaitFrames(t, 1)[0].Buffer; b.Flags != uint32(proto.ZwpLinuxBufferParamsV1FlagsYInvert) || b.Stride != 256 || b.Offset != 64 {
		t.Errorf("shown as %+v, want the export's stride and offset, upside down", b)
	}
}

// TestConversion: what the compositor does not take is copied, the damage only, into
// a buffer that the compositor does not look at.
func TestConversion(t *testing.T) {
	for name, cfg := range map[string]waylandtest.Config{
		"no dmabuf":    {},
		"other format": {DMABuf: 3, Layouts: layouts(dmabuf.RGB565)},
		"refused":      {DMABuf: 3, Layouts: layouts(dmabuf.ABGR8888), OnImport: func(waylandtest.Layout) waylandtest.Answer { return waylandtest.Failed }},
	} {
		t.Run(name, func(t *testing.T) {
			comp := waylandtest.New(t, cfg)
			res := proxytest.NewResources(dmabuf.ARGB8888)
			tex := res.AddTexture(t, 1, 32, 16, dmabuf.ARGB8888, dmabuf.ABGR8888)
			p := newProxy(t, comp, proxy.Config{Resources: res})
			c := connect(t, p)
			w := c.NewWindow()
			dm := c.Bind("zwp_linux_dmabuf_v1", 3)
			b := createImmed(c, dm, 1, 32, 16, dmabuf.ARGB8888)
			tex.Draw(0xff332211)
			w.Show(b)
			c.Roundtrip()
			if f := comp.WaitFrames(t, 1)[0]; !f.Buffer.Shm || f.Pixel != 0xff332211 || f.Buffer.W != 32 || f.Buffer.H != 16 {
				t.Errorf("frame %+v of %+v", f, f.Buffer)
			}
			if n := c.Count(proto.IWlBuffer, proto.EvWlBufferRelease); n != 1 {
				t.Errorf("%d releases, want 1 at once", n)
			}
			// The second frame goes into a second buffer, all of it; the third finds the
			// first released and lacks the damage of two frames.
			first := comp.Frames()[0].Buffer
			for i, d := range []display.Rect{{X: 1, Y: 2, W: 3, H: 4}, {X: 6, Y: 7, W: 1, H: 1}} {
				tex.Draw(uint32(i))
				w.Surface.Attach(&c.Out, b, 0, 0)
				w.Surface.DamageBuffer(&c.Out, int32(d.X), int32(d.Y), int32(d.W), int32(d.H))
				w.Surface.Commit(&c.Out)
				c.Roundtrip()
			}
			frames := comp.Frames()
			if len(frames) != 3 || frames[1].Buffer == first || frames[2].Buffer != first {
				t.Errorf("%d frames, buffers do not take turns", len(frames))
			}
			want := []display.Rect{{W: 32, H: 16}, {W: 32, H: 16}, {X: 1, Y: 2, W: 6, H: 6}}
			got := tex.Reads()
			for i := range want {
				if i >= len(got) || got[i] != want[i] {
					t.Fatalf("read %v, want %v", got, want)
				}
			}
			ws := p.Windows()
			if ws[0].Frames["shm"] != 3 || ws[0].BytesCopied != 4*(32*16+32*16+36) || !strings.Contains(ws[0].Why, "compositor") {
				t.Errorf("windows: %+v", ws)
			}
			if got := p.Stats().BytesCopied.Load(); got != ws[0].BytesCopied {
				t.Errorf("%d bytes counted in all", got)
			}
		})
	}
}

// TestCopiesAreNotOverwritten holds releases back: each frame has a buffer of its own
// until there are no more, and then waits, while another client goes on.
func TestCopiesAreNotOverwritten(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{HoldReleases: true})
	res := proxytest.NewResources(dmabuf.ARGB8888)
	tex := res.AddTexture(t, 1, 32, 16, dmabuf.ARGB8888, dmabuf.ABGR8888)
	p := newProxy(t, comp, proxy.Config{Resources: res})
	c, other := connect(t, p), connect(t, p)
	w := c.NewWindow()
	b := createImmed(c, c.Bind("zwp_linux_dmabuf_v1", 3), 1, 32, 16, dmabuf.ARGB8888)
	const frames = 9
	for i := range frames {
		tex.Draw(uint32(i))
		w.Show(b)
		if i < 6 {
			c.Roundtrip()
		}
	}
	c.Flush()
	other.Roundtrip()
	seen := map[uint32]bool{}
	for _, f := range comp.WaitFrames(t, 6) {
		if seen[f.Buffer.ID] {
			t.Errorf("buffer %d is shown again before its release", f.Buffer.ID)
		}
		seen[f.Buffer.ID] = true
	}
	if n := len(comp.Frames()); n != 6 {
		t.Fatalf("%d frames with 6 buffers that are not released", n)
	}
	for len(comp.Frames()) < frames {
		comp.Release()
	}
	c.Roundtrip()
}

// TestCommitWaitsForTheGPU holds one client's commit; others go on.
func TestCommitWaitsForTheGPU(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{DMABuf: 3, Layouts: layouts(dmabuf.ARGB8888)})
	res := proxytest.NewResources(dmabuf.ARGB8888)
	drawn := make(chan struct{})
	tex := res.AddTexture(t, 1, 32, 16, dmabuf.ARGB8888, dmabuf.ARGB8888)
	tex.Wait = func(ctx context.Context) error {
		select {
		case <-drawn:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p := newProxy(t, comp, proxy.Config{Resources: res})
	c, other, third := connect(t, p), connect(t, p), connect(t, p)
	w := c.NewWindow()
	w.Show(createImmed(c, c.Bind("zwp_linux_dmabuf_v1", 3), 1, 32, 16, dmabuf.ARGB8888))
	c.Flush()
	other.Roundtrip()
	if n := len(comp.Frames()); n != 0 {
		t.Errorf("%d frames before the GPU has drawn", n)
	}
	close(drawn)
	comp.WaitFrames(t, 1)

	// A device reset ends the client, and nobody else.
	res.AddTexture(t, 2, 32, 16, dmabuf.ARGB8888, dmabuf.ARGB8888).Wait = func(context.Context) error { return proxy.ErrGone }
	w.Show(createImmed(c, c.Bind("zwp_linux_dmabuf_v1", 3), 2, 32, 16, dmabuf.ARGB8888))
	c.Flush()
	if err := c.Wait(); !errors.Is(err, proxy.ErrGone) {
		t.Errorf("after a reset: %v", err)
	}
	third.Roundtrip()
}

// TestFormatsOffered: what guests draw and we can show, and nothing else.
func TestFormatsOffered(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{DMABuf: 3, Layouts: layouts(dmabuf.ARGB2101010, dmabuf.NV12)})
	res := proxytest.NewResources(dmabuf.XRGB8888, dmabuf.ARGB2101010, dmabuf.ABGR16161616F)
	p := newProxy(t, comp, proxy.Config{Resources: res})
	c := connect(t, p)
	c.Bind("zwp_linux_dmabuf_v1", 3)
	c.Roundtrip()
	var got []proxy.Format
	for _, e := range c.Events() {
		if e.Is(proto.IZwpLinuxDmabufV1, proto.EvZwpLinuxDmabufV1Modifier) {
			var ev proto.ZwpLinuxDmabufV1ModifierEvent
			if err := ev.Decode(e.Message); err != nil {
				t.Fatal(err)
			}
			got = append(got, proxy.Format{Fourcc: dmabuf.Fourcc(ev.Format), Modifier: dmabuf.Modifier(uint64(ev.ModifierHi)<<32 | uint64(ev.ModifierLo))})
		}
	}
	want := []proxy.Format{
		{Fourcc: dmabuf.ARGB2101010, Modifier: dmabuf.ModLinear}, {Fourcc: dmabuf.ARGB2101010, Modifier: dmabuf.ModInvalid},
		{Fourcc: dmabuf.XRGB8888, Modifier: dmabuf.ModLinear}, {Fourcc: dmabuf.XRGB8888, Modifier: dmabuf.ModInvalid},
	}
	if len(got) != len(want) {
		t.Fatalf("offered %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("offered %v, want %v", got, want)
		}
	}
}

// allVersions is a policy that shows guests what only some of them can take.
func allVersions() *proxy.Policy {
	p := proxy.DefaultPolicy()
	p.Allow = map[string]uint32{"zwp_linux_dmabuf_v1": 6}
	return p
}

// TestVersionOffered: clients that bind whatever there is get what they can take.
func TestVersionOffered(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{DMABuf: 5, Layouts: layouts(dmabuf.ARGB8888)})
	for want, policy := range map[uint32]*proxy.Policy{5: nil, 6: allVersions()} {
		c := connect(t, newProxy(t, comp, proxy.Config{Policy: policy, Resources: proxytest.NewResources(dmabuf.ARGB8888)}))
		if got := c.Version("zwp_linux_dmabuf_v1"); got != want {
			t.Errorf("version %d is offered, want %d", got, want)
		}
	}
}

// TestFeedback names the guest's device, in versions 4 to 6, whatever the
// compositor has.
func TestFeedback(t *testing.T) {
	for _, host := range []uint32{0, 3, 5} {
		comp := waylandtest.New(t, waylandtest.Config{DMABuf: host, Layouts: layouts(dmabuf.ARGB8888)})
		p := newProxy(t, comp, proxy.Config{Policy: allVersions(), Resources: proxytest.NewResources(dmabuf.ARGB8888)})
		for version := uint32(4); version <= 6; version++ {
			c := connect(t, p)
			dm := proto.ZwpLinuxDmabufV1(c.Bind("zwp_linux_dmabuf_v1", version))
			f := proto.ZwpLinuxDmabufFeedbackV1(c.NewID(proto.IZwpLinuxDmabufFeedbackV1, version))
			dm.GetDefaultFeedback(&c.Out, f)
			c.Roundtrip()
			table := c.Last(proto.IZwpLinuxDmabufFeedbackV1, proto.EvZwpLinuxDmabufFeedbackV1FormatTable)
			if table == nil || table.Items[0].Kind != proxy.ItemBytes || len(table.Items[0].Bytes) != 32 || binary.LittleEndian.Uint32(table.Items[0].Bytes) != uint32(dmabuf.ARGB8888) {
				t.Fatalf("format table %+v", table)
			}
			var dev proto.ZwpLinuxDmabufFeedbackV1TrancheTargetDeviceEvent
			if err := dev.Decode(c.Last(proto.IZwpLinuxDmabufFeedbackV1, proto.EvZwpLinuxDmabufFeedbackV1TrancheTargetDevice).Message); err != nil {
				t.Fatal(err)
			}
			if binary.LittleEndian.Uint64(dev.Device) != perBuffer.RenderDev {
				t.Errorf("target device % x", dev.Device)
			}
			if main := c.Count(proto.IZwpLinuxDmabufFeedbackV1, proto.EvZwpLinuxDmabufFeedbackV1MainDevice); (main == 0) != (version >= 6) {
				t.Errorf("version %d: %d main_device events", version, main)
			}
			if version == 6 {
				q := proto.ZwpLinuxBufferParamsV1(c.NewID(proto.IZwpLinuxBufferParamsV1, 6))
				dm.CreateParams(&c.Out, q)
				q.SetSamplingDevice(&c.Out, dev.Device)
				c.Roundtrip()
			}
			if host == 5 {
				before := c.Count(proto.IZwpLinuxDmabufFeedbackV1, proto.EvZwpLinuxDmabufFeedbackV1Done)
				comp.Offer(layouts(dmabuf.XRGB8888))
				c.Eventually("feedback of the change", func() bool {
					return c.Count(proto.IZwpLinuxDmabufFeedbackV1, proto.EvZwpLinuxDmabufFeedbackV1Done) > before
				})
			}
			c.Leave()
		}
		// Without a device there is no feedback.
		d := perBuffer
		d.RenderDev = 0
		c := proxytest.New(t, p, proxytest.Options{Dialect: d})
		if v := c.Version("zwp_linux_dmabuf_v1"); v != 3 {
			t.Errorf("version %d without a device, want 3", v)
		}
		d.FeedbackRaw = true
		c = proxytest.New(t, p, proxytest.Options{Dialect: d})
		if v := c.Version("zwp_linux_dmabuf_v1"); (host == 5) != (v == 6) {
			t.Errorf("version %d with raw feedback of a compositor of version %d", v, host)
		}
	}
}

// TestBlobAsDMABuf shows guest memory that a client made into a dma-buf itself.
func TestBlobAsDMABuf(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{DMABuf: 3, Layouts: layouts(dmabuf.XRGB8888)})
	res := proxytest.NewResources(dmabuf.XRGB8888, dmabuf.ARGB8888)
	blob := res.AddBlob(t, 5, 8192)
	blob.DMABuf = true
	p := newProxy(t, comp, proxy.Config{Resources: res})
	c := connect(t, p)
	w := c.NewWindow()
	dm := proto.ZwpLinuxDmabufV1(c.Bind("zwp_linux_dmabuf_v1", 3))
	item := proxy.Item{Kind: proxy.ItemResource, Device: proxy.DeviceImport, Resource: 5, Offset: 4096}
	for i, f := range []dmabuf.Fourcc{dmabuf.XRGB8888, dmabuf.ARGB8888} { // the second has to be copied
		q := proto.ZwpLinuxBufferParamsV1(c.NewID(proto.IZwpLinuxBufferParamsV1, 3))
		dm.CreateParams(&c.Out, q)
		c.ParamsAdd(q, item, 0, 0, 64, uint64(dmabuf.ModLinear))
		b := proto.WlBuffer(c.NewID(proto.IWlBuffer, 1))
		q.CreateImmed(&c.Out, b, 16, 16, uint32(f), 0)
		w.Show(b)
		c.Roundtrip()
		if got := comp.Frames()[i].Buffer; got.Shm != (i == 1) || got.Offset != int32(4096*(1-i)) {
			t.Errorf("%v shown as %+v", f, got)
		}
	}
	if ws := p.Windows(); ws[0].Frames["udmabuf"] != 1 || ws[0].Frames["shm"] != 1 {
		t.Errorf("windows: %+v", ws)
	}
	// wl_shm of the same memory goes out as a dma-buf, too.
	w.Show(w.Buffer(item, 16, 16, proto.WlShmFormatXrgb8888))
	w.Show(w.Buffer(item, 16, 16, proto.WlShmFormatArgb8888))
	c.Roundtrip()
	if ws := p.Windows(); ws[0].Frames["udmabuf"] != 2 || ws[0].Frames["shared"] != 1 || !strings.Contains(ws[0].Why, "does not take") {
		t.Errorf("windows: %+v", ws)
	}
}

// TestCompositorEndsOverAnImport: the client ends, the next one does not try the
// same again.
func TestCompositorEndsOverAnImport(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{DMABuf: 3, Layouts: layouts(dmabuf.ARGB8888),
		OnImport: func(waylandtest.Layout) waylandtest.Answer { return waylandtest.KillsConn }})
	res := proxytest.NewResources(dmabuf.ARGB8888)
	res.AddTexture(t, 1, 32, 16, dmabuf.ARGB8888, dmabuf.ARGB8888)
	p := newProxy(t, comp, proxy.Config{Resources: res})
	c := connect(t, p)
	c.NewWindow()
	createImmed(c, c.Bind("zwp_linux_dmabuf_v1", 3), 1, 32, 16, dmabuf.ARGB8888)
	c.Flush()
	if err := c.Wait(); !errors.Is(err, proxy.ErrCompositor) {
		t.Errorf("error %v", err)
	}
	if s := c.DisplayError(); !strings.Contains(s, "import refused by the test") {
		t.Errorf("the client was told %q", s)
	}
	c = connect(t, p)
	w := c.NewWindow()
	w.Show(createImmed(c, c.Bind("zwp_linux_dmabuf_v1", 3), 1, 32, 16, dmabuf.ARGB8888))
	c.Roundtrip()
	if f := comp.WaitFrames(t, 1)[0]; !f.Buffer.Shm {
		t.Error("the same import again")
	}
}
