package proxy_test

import (
	"context"
	"image"
	"image/color"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy/proxytest"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/testing/golden"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

const screenW, screenH = 320, 200

// onCompositors runs a test on each real compositor of the lab.
func onCompositors(t *testing.T, f func(t *testing.T, c *lab.Compositor)) {
	for _, renderer := range []string{"pixman", "gl"} {
		t.Run("weston "+renderer, func(t *testing.T) {
			f(t, labtest.Weston(t, lab.WestonOptions{Renderer: renderer, W: screenW, H: screenH}))
		})
	}
	t.Run("sway", func(t *testing.T) { f(t, labtest.Sway(t, lab.SwayOptions{W: screenW, H: screenH})) })
}

func realProxy(t *testing.T, c *lab.Compositor, res proxy.Resources) *proxy.Proxy {
	t.Helper()
	p, err := proxy.New(proxy.Config{Display: c.Socket(), Resources: res, VMName: "test", Log: zaptest.NewLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// expect waits until the screen looks like want.
func expect(t *testing.T, c *lab.Compositor, name string, want image.Image) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; {
		got, err := c.Screenshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if golden.Compare(got, want, golden.Tolerance{}).OK() {
			return
		}
		if time.Now().After(end) {
			golden.Equal(t, name, got, want, golden.Tolerance{})
			return
		}
	}
}

// picture shows swapped colours and shifted rows.
func picture(seed int) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, screenW, screenH))
	for y := range screenH {
		for x := range screenW {
			img.SetNRGBA(x, y, color.NRGBA{uint8(x * 255 / screenW), uint8(y * 255 / screenH), uint8((x/16*37 + y/16*91 + seed*53) & 255), 255})
		}
	}
	return img
}

// words returns a rectangle of a picture as packed B8G8R8A8 rows.
func words(img *image.NRGBA, r display.Rect) []byte {
	var out []byte
	for y := r.Y; y < r.Y+r.H; y++ {
		for x := r.X; x < r.X+r.W; x++ {
			c := img.NRGBAAt(int(x), int(y))
			out = append(out, c.B, c.G, c.R, c.A)
		}
	}
	return out
}

var whole = display.Rect{W: screenW, H: screenH}

// TestRealPixels compares what real compositors show of each kind of buffer.
func TestRealPixels(t *testing.T) {
	onCompositors(t, func(t *testing.T, comp *lab.Compositor) {
		res := proxytest.NewResources(dmabuf.ARGB8888, dmabuf.XRGB8888)
		p := realProxy(t, comp, res)
		c := connect(t, p)
		w := c.NewWindow()
		send := func(b proto.WlBuffer, img *image.NRGBA, r display.Rect) {
			c.Flush()
			c.Chunk(proxy.Chunk{Update: &proxy.Update{Buffer: uint32(b), Rect: r, Pixels: words(img, r)}})
		}
		show := func(b proto.WlBuffer, r display.Rect) {
			w.Surface.Attach(&c.Out, b, 0, 0)
			w.Surface.DamageBuffer(&c.Out, int32(r.X), int32(r.Y), int32(r.W), int32(r.H))
			w.Surface.Commit(&c.Out)
			c.Roundtrip()
		}
		// Bytes, then a part of them in a second buffer and in the first again.
		one, two := picture(1), picture(2)
		var bufs [2]proto.WlBuffer
		for i := range bufs {
			bufs[i] = w.Buffer(proxy.Item{Kind: proxy.ItemMemory}, screenW, screenH, proto.WlShmFormatXrgb8888)
			send(bufs[i], one, whole)
		}
		show(bufs[0], whole)
		expect(t, comp, "bytes", one)
		part := display.Rect{X: 33, Y: 21, W: 100, H: 60}
		mixed := picture(1)
		for y := part.Y; y < part.Y+part.H; y++ {
			for x := part.X; x < part.X+part.W; x++ {
				mixed.SetNRGBA(int(x), int(y), two.NRGBAAt(int(x), int(y)))
			}
		}
		send(bufs[1], two, part)
		show(bufs[1], part)
		expect(t, comp, "a part in another buffer", mixed)
		send(bufs[0], one, part)
		show(bufs[0], part)
		expect(t, comp, "the part as it was", one)

		// Memory that the guest shares.
		three := picture(3)
		blob := res.AddBlob(t, 7, 4096+screenW*screenH*4)
		if _, err := unix.Pwrite(blob.Blob.Int(), words(three, whole), 4096); err != nil {
			t.Fatal(err)
		}
		show(w.Buffer(proxy.Item{Kind: proxy.ItemResource, Device: proxy.DeviceImport, Resource: 7, Offset: 4096}, screenW, screenH, proto.WlShmFormatXrgb8888), whole)
		expect(t, comp, "shared", three)

		// Textures whose export the compositor takes or does not: llvmpipe imports any
		// file that it can map. The export's bytes are in another order.
		dm := c.Bind("zwp_linux_dmabuf_v1", 3)
		tex := res.AddTexture(t, 1, screenW, screenH, dmabuf.XRGB8888, dmabuf.XBGR8888)
		tex.Set(words(one, whole))
		export := words(one, whole)
		for i := 0; i < len(export); i += 4 {
			export[i], export[i+2] = export[i+2], export[i]
		}
		if _, err := unix.Pwrite(tex.Export.Planes[0].FD.Int(), export, 0); err != nil {
			t.Fatal(err)
		}
		show(createImmed(c, dm, 1, screenW, screenH, dmabuf.XRGB8888), whole)
		expect(t, comp, "texture", one)

		// Textures that have to be copied.
		tex = res.AddTexture(t, 2, screenW, screenH, dmabuf.XRGB8888, dmabuf.XBGR8888)
		tex.Export = nil // its reference ends with the test
		b := createImmed(c, dm, 2, screenW, screenH, dmabuf.XRGB8888)
		for i := range 5 {
			img := picture(10 + i)
			tex.Set(words(img, whole))
			show(b, whole)
			expect(t, comp, "texture again", img)
		}
		ws := p.Windows()
		t.Logf("frames %v, why %q", ws[0].Frames, ws[0].Why)
		if ws[0].Frames["shm"]+ws[0].Frames["dmabuf"] != 9 || ws[0].Frames["shm"] < 8 || ws[0].Frames["shared"] != 1 {
			t.Errorf("windows: %+v", ws)
		}
	})
}

// program is a real client, run until it is stopped.
func program(t *testing.T, c *lab.Compositor, display string, argv ...string) (stop func() string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var out strings.Builder
	if display != "" {
		argv = append([]string{"env", "WAYLAND_DISPLAY=" + display, "WAYLAND_DEBUG=0"}, argv...)
	}
	cmd := c.Client(ctx, argv...)
	cmd.Stdout, cmd.Stderr = &out, &out
	release, err := lab.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait(); release() }()
	var once sync.Once
	stop = func() string {
		once.Do(func() {
			select {
			case err := <-done:
				t.Errorf("%v ended by itself: %v: %s", argv, err, out.String())
			default:
			}
			cancel()
			select {
			case <-done:
			case <-time.After(5 * time.Second):
			}
		})
		return out.String()
	}
	t.Cleanup(func() { stop() })
	return stop
}

// TestRealClients runs unmodified programs through the proxy: the animated ones keep
// drawing, the still ones look as they do without.
func TestRealClients(t *testing.T) {
	animated := [][]string{
		{"weston-simple-shm"}, {"weston-simple-damage"}, {"weston-presentation-shm"}, {"weston-subsurfaces"}, {"weston-smoke"},
	}
	still := [][]string{{"weston-scaler"}, {"weston-flower"}, {"weston-transformed"}}
	for _, renderer := range []string{"pixman", "gl"} {
		t.Run(renderer, func(t *testing.T) {
			comp := labtest.Weston(t, lab.WestonOptions{Renderer: renderer, W: 640, H: 480})
			res := proxytest.NewResources()
			p := realProxy(t, comp, res)
			d := proxytest.Listen(t, p, res)
			for _, argv := range animated {
				before := len(d.Errors())
				stop := program(t, comp, d.Path, argv...)
				waitUntil(t, argv[0]+" draws", func() bool {
					var n uint64
					for _, w := range p.Windows() {
						n += w.Frames["shared"]
					}
					return n >= 10
				})
				out := stop()
				waitUntil(t, argv[0]+" has left", func() bool { return p.Clients() == 0 })
				if errs := d.Errors(); len(errs) > before {
					t.Errorf("%v: %v: %s", argv, errs[before:], out)
				}
			}
			for _, argv := range still {
				stop := program(t, comp, "", argv...)
				want := settled(t, comp)
				stop()
				stop = program(t, comp, d.Path, argv...)
				waitUntil(t, argv[0]+" draws", func() bool { w := p.Windows(); return len(w) > 0 && w[0].Frames["shared"] > 0 })
				if argv[0] == "weston-flower" { // of random shape
					stop()
					continue
				}
				expect(t, comp, argv[0], want)
				stop()
			}
			if errs := d.Errors(); len(errs) > 0 {
				t.Errorf("clients ended with %v", errs)
			}
		})
	}
}

// TestRealToolkits: terminals, one with a pool of 512 MiB, look on sway as they do
// without the proxy, and a toolkit that binds all that it finds keeps drawing.
func TestRealToolkits(t *testing.T) {
	comp := labtest.Sway(t, lab.SwayOptions{W: 640, H: 480})
	res := proxytest.NewResources()
	p := realProxy(t, comp, res)
	d := proxytest.Listen(t, p, res)
	for _, argv := range [][]string{
		{"foot", "-o", "cursor.blink=no", "sleep", "1000"},
		{"weston-terminal", "--shell=/bin/cat"},
		{"env", "GSK_RENDERER=cairo", "gtk4-widget-factory"},
	} {
		if argv[0] == "env" { // it moves by itself
			stop := program(t, comp, d.Path, argv...)
			waitUntil(t, argv[2]+" draws", func() bool { w := p.Windows(); return len(w) > 0 && w[0].Frames["shared"] > 20 })
			stop()
			continue
		}
		stop := program(t, comp, "", argv...)
		waitShown(t, comp)
		want := settled(t, comp)
		stop()
		stop = program(t, comp, d.Path, argv...)
		waitUntil(t, argv[0]+" draws", func() bool { w := p.Windows(); return len(w) > 0 && w[0].Frames["shared"] > 0 })
		expect(t, comp, argv[0], want)
		t.Logf("%v: %v", argv, p.Windows())
		stop()
		waitUntil(t, argv[0]+" has left", func() bool { return p.Clients() == 0 })
		waitUntil(t, "an empty screen", func() bool { return empty(t, comp) })
	}
	if errs := d.Errors(); len(errs) > 0 {
		t.Errorf("clients ended with %v", errs)
	}
}

// empty reports whether the screen has one colour.
func empty(t *testing.T, c *lab.Compositor) bool {
	t.Helper()
	shot, err := c.Screenshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := shot.Bounds()
	first := shot.At(r.Min.X, r.Min.Y)
	for y := r.Min.Y; y < r.Max.Y; y += 3 {
		for x := r.Min.X; x < r.Max.X; x += 3 {
			if shot.At(x, y) != first {
				return false
			}
		}
	}
	return true
}

func waitShown(t *testing.T, c *lab.Compositor) {
	t.Helper()
	waitUntil(t, "something on the screen", func() bool { return !empty(t, c) })
}

func waitUntil(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("30 s have passed and still not: %s", what)
		}
	}
}

// settled returns the screen when it has not changed for a while.
func settled(t *testing.T, c *lab.Compositor) image.Image {
	t.Helper()
	var last image.Image
	same := 0
	for range 20 {
		shot, err := c.Screenshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if last != nil && golden.Compare(shot, last, golden.Tolerance{}).OK() {
			same++
		} else {
			same = 0
		}
		last = shot
		if same >= 4 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	return last
}
