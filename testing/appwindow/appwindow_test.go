package appwindow

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker/link"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy/proxytest"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
	"github.com/gpubroker/gpubroker/testing/westoncap"
)

func TestMain(m *testing.M) { fdtest.Main(m) }

// brokerEnv names the gpubroker to test; one is built if it is empty.
const brokerEnv = "GPUBROKER_BINARY"

// Size of the output and the window, in pixels.
const outW, outH, winW, winH = 320, 240, 128, 96

const frames = 20

// TestWindow shows a window whose frames are textures, drawn a moment before.
func TestWindow(t *testing.T) {
	root := labtest.Root(t)
	renderer, tier := "pixman", "shm"
	if root.InGuest() {
		renderer, tier = "gl", "dmabuf"
	}
	weston := labtest.Weston(t, lab.WestonOptions{Renderer: renderer, W: outW, H: outH})
	binary := os.Getenv(brokerEnv)
	if binary == "" {
		binary = filepath.Join(t.TempDir(), "gpubroker")
		if err := brokerproc.Build(t.Context(), binary); err != nil {
			t.Fatal(err)
		}
	}
	// A short name: paths of sockets are short.
	dir, err := os.MkdirTemp("", "appwindow-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "apps")
	b, err := brokerproc.Start(t.Context(), root, brokerproc.Options{Binary: binary, Args: []string{
		"--display", "headless", "--virgl=on", "--apps", "--apps-display", weston.Socket(), "--apps-socket", socket,
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if _, err := b.Stop(); err != nil || t.Failed() {
			t.Errorf("gpubroker: %v\n%s", err, b.Log())
		}
	}()
	token := link.NewToken()
	g, err := openGPU(b.Socket, token)
	if err != nil {
		t.Fatal(err)
	}
	defer g.guest.Quit()
	camera, err := westoncap.Open(weston.Socket())
	if err != nil {
		t.Fatal(err)
	}
	defer camera.Close()

	c := proxytest.New(t, overLink{socket}, proxytest.Options{Owner: proxy.Owner{Token: token}})
	w := c.NewWindow()
	dm := c.Bind("zwp_linux_dmabuf_v1", 3)
	var textures [3]uint32
	var buffers [3]proto.WlBuffer
	for i := range textures {
		if textures[i], err = g.newTexture(winW, winH); err != nil {
			t.Fatal(err)
		}
		buffers[i] = buffer(c, proto.ZwpLinuxDmabufV1(dm), textures[i])
	}
	for n := range frames {
		i := n % len(textures)
		rgb := uint32(0x102030 + 0x0a0503*n)
		if err := g.clear(textures[i], rgb); err != nil {
			t.Fatal(err)
		}
		before := c.Count(proto.IWlCallback, proto.EvWlCallbackDone)
		w.Surface.Frame(&c.Out, proto.WlCallback(c.NewID(proto.IWlCallback, 1)))
		w.Show(buffers[i])
		c.Flush()
		c.Eventually("a frame callback", func() bool { return c.Count(proto.IWlCallback, proto.EvWlCallbackDone) > before })
		if err := shows(camera, rgb); err != nil {
			t.Fatalf("frame %d: %v", n, err)
		}
	}
	st, err := b.Status()
	if err != nil {
		t.Fatal(err)
	}
	if len(st.Windows) != 1 {
		t.Fatalf("windows: %+v", st.Windows)
	}
	got := st.Windows[0]
	t.Logf("frames by tier %v, %d bytes copied %s", got.Frames, got.BytesCopied, got.Why)
	if got.Frames[tier] != frames || len(got.Frames) > 1 && got.Frames[tier] != sum(got.Frames) {
		t.Errorf("frames by tier: %v, want %d of %s", got.Frames, frames, tier)
	}
	if want := uint64(0); tier == "dmabuf" && (got.BytesCopied != want || st.BytesCopied != want) {
		t.Errorf("%d bytes of the window copied, %d in all, want none", got.BytesCopied, st.BytesCopied)
	}
	if want := uint64(frames * winW * winH * 4); tier == "shm" && got.BytesCopied != want {
		t.Errorf("%d bytes copied, want %d", got.BytesCopied, want)
	}
	if st.Errors > 0 {
		t.Errorf("%d commands failed", st.Errors)
	}
}

func sum(frames map[string]uint64) (n uint64) {
	for _, v := range frames {
		n += v
	}
	return n
}

// buffer makes a wl_buffer of a texture, as Mesa does.
func buffer(c *proxytest.Client, dm proto.ZwpLinuxDmabufV1, texture uint32) proto.WlBuffer {
	p := proto.ZwpLinuxBufferParamsV1(c.NewID(proto.IZwpLinuxBufferParamsV1, 3))
	dm.CreateParams(&c.Out, p)
	c.ParamsAdd(p, proxy.Item{Kind: proxy.ItemResource, Resource: texture}, 0, 0, winW*4, uint64(dmabuf.ModInvalid))
	b := proto.WlBuffer(c.NewID(proto.IWlBuffer, 1))
	p.CreateImmed(&c.Out, b, winW, winH, uint32(dmabuf.XRGB8888), 0)
	p.Destroy(&c.Out)
	return b
}

// shows waits for a picture with the window, in the middle, in one colour.
func shows(camera *westoncap.Camera, rgb uint32) error {
	const x0, y0 = (outW - winW) / 2, (outH - winH) / 2
	end := time.Now().Add(20 * time.Second)
	for {
		p, err := camera.Shoot()
		if err != nil {
			return err
		}
		wrong, first := 0, uint32(0)
		for y := range winH {
			for x := range winW {
				if c := p.Pix[(y0+y)*p.W+x0+x]; c != rgb {
					wrong, first = wrong+1, c
				}
			}
		}
		if wrong == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d of %d pixels are not %06x but for example %06x", wrong, winW*winH, rgb, first)
		}
	}
}

// TestHostWithDMABufs runs TestWindow in a machine that has dma-bufs.
func TestHostWithDMABufs(t *testing.T) {
	if labtest.Root(t).InGuest() {
		t.Skip("this is the machine already")
	}
	dir := t.TempDir()
	binary, tests := filepath.Join(dir, "gpubroker"), filepath.Join(dir, "appwindow.test")
	if err := brokerproc.Build(t.Context(), binary); err != nil {
		t.Fatal(err)
	}
	if err := lab.BuildTest(t.Context(), ".", tests); err != nil {
		t.Fatal(err)
	}
	vm := labtest.HostVM(t, lab.VMConfig{})
	path, err := vm.PutFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	out, code, err := vm.RunBinary(t.Context(), tests, []string{labtest.Env + "=1", brokerEnv + "=" + path},
		"-test.v", "-test.run", "^TestWindow$", "-test.timeout", "4m")
	if err != nil || code != 0 {
		t.Errorf("in the machine: code %d, %v", code, err)
	}
	t.Logf("in the machine:\n%s", out)
}
