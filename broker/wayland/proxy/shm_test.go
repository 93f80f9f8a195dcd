package proxy_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy/proxytest"
	"github.com/gpubroker/gpubroker/broker/wayland/waylandtest"
)

// TestMemoryWindow shows a window whose content comes as bytes.
func TestMemoryWindow(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{})
	p := newProxy(t, comp, proxy.Config{})
	c := connect(t, p)
	w := c.NewWindow()
	w.Top.SetTitle(&c.Out, "a title")
	w.Top.SetAppId(&c.Out, "an.app")
	b := w.Buffer(proxy.Item{Kind: proxy.ItemMemory}, 8, 4, proto.WlShmFormatXrgb8888)
	w.Fill(b, display.Rect{W: 8, H: 4}, 0xff112233)
	w.Show(b)
	c.Roundtrip()
	frames := comp.WaitFrames(t, 1)
	if f := frames[0]; f.Pixel != 0xff112233 || f.Title != "a title" || f.AppID != "an.app" || f.Buffer.W != 8 || f.Buffer.H != 4 {
		t.Errorf("committed %+v", f)
	}
	ws := p.Windows()
	if len(ws) != 1 || ws[0].App != "an.app" || ws[0].Title != "a title" || ws[0].Frames["shm"] != 1 || ws[0].BytesCopied != 8*4*4 || ws[0].Why == "" || ws[0].Transport != "test" {
		t.Errorf("windows: %+v", ws)
	}
	// A second buffer makes the compositor release the first.
	b2 := w.Buffer(proxy.Item{Kind: proxy.ItemMemory}, 8, 4, proto.WlShmFormatArgb8888)
	w.Fill(b2, display.Rect{W: 8, H: 4}, 0x80000000)
	w.Show(b2)
	c.Roundtrip()
	if n := c.Count(proto.IWlBuffer, proto.EvWlBufferRelease); n != 1 {
		t.Errorf("%d releases, want 1", n)
	}
	w.Fill(b, display.Rect{X: 2, Y: 1, W: 3, H: 2}, 0xffffffff)
	w.Show(b)
	c.Roundtrip()
	if got := p.Windows()[0].BytesCopied; got != 2*8*4*4+3*2*4 {
		t.Errorf("%d bytes copied", got)
	}
	b.Destroy(&c.Out) // shown: the compositor keeps it
	b2.Destroy(&c.Out)
	c.Roundtrip()
	waylandtest.Eventually(t, "the shown buffer alone is left", func() bool { return comp.Buffers() == 1 })
	w.Surface.Attach(&c.Out, 0, 0, 0)
	w.Surface.Commit(&c.Out)
	c.Roundtrip()
	waylandtest.Eventually(t, "the last buffer is gone", func() bool { return comp.Buffers() == 0 })
	c.Leave()
	if err := c.Wait(); err != nil {
		t.Errorf("the orderly end is an error: %v", err)
	}
}

// TestSharedWindow shows memory that the guest shares, without a copy.
func TestSharedWindow(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{})
	res := proxytest.NewResources()
	p := newProxy(t, comp, proxy.Config{Resources: res})
	c := connect(t, p)
	w := c.NewWindow()
	blob := res.AddBlob(t, 7, 8192)
	b := w.Buffer(proxy.Item{Kind: proxy.ItemResource, Device: proxy.DeviceImport, Resource: 7, Offset: 4096}, 16, 16, proto.WlShmFormatXrgb8888)
	if _, err := unix.Pwrite(blob.Blob.Int(), []byte{1, 2, 3, 4}, 4096); err != nil {
		t.Fatal(err)
	}
	w.Show(b)
	c.Roundtrip()
	if f := comp.WaitFrames(t, 1)[0]; f.Pixel != 0x04030201 {
		t.Errorf("pixel %#x", f.Pixel)
	}
	if ws := p.Windows(); ws[0].Frames["shared"] != 1 || ws[0].BytesCopied != 0 {
		t.Errorf("windows: %+v", ws)
	}
	c.Leave()
	if n := res.OpenCount(); n != 0 {
		t.Errorf("%d resources still open", n)
	}
}
