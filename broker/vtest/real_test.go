package vtest_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/vtest"
	"github.com/gpubroker/gpubroker/broker/vtest/vtesttest"
	"github.com/gpubroker/gpubroker/virgl"
	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

// serveReal serves clients with libvirglrenderer until the test's end.
func serveReal(t testing.TB) (path string, srv *broker.Vtest) {
	t.Helper()
	t.Setenv("LIBGL_ALWAYS_SOFTWARE", "1")
	loop, err := broker.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	relay := &broker.FenceRelay{}
	var rend virgl.Renderer
	loop.Call(func() { rend, err = virgl.New(virgl.Config{OnFence: relay.Signal, Log: zap.NewNop()}) })
	if err != nil {
		_ = loop.Close()
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "vtest")
	srv, err = broker.ListenVtest(broker.VtestConfig{Path: path, Loop: loop, Renderer: rend, Fences: relay, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		err := errors.Join(<-done, srv.Close())
		loop.Call(func() {
			if st := rend.Stats(); st.Contexts+st.Resources > 0 {
				t.Errorf("left in the renderer: %+v", st)
			}
			err = errors.Join(err, rend.Close())
		})
		if err = errors.Join(err, loop.Close()); err != nil {
			t.Error(err)
		}
	})
	return path, srv
}

// TestReal: with libvirglrenderer, clients of all versions draw at once, and each sees
// what it drew.
func TestReal(t *testing.T) {
	path, srv := serveReal(t)
	var wg sync.WaitGroup
	for i, version := range []uint32{0, 2, 2, 3} {
		wg.Go(func() {
			if err := drawAndLook(path, version, byte(40*i+20)); err != nil {
				t.Errorf("client %d, version %d: %v", i, version, err)
			}
		})
	}
	wg.Wait()
	if st := srv.Status(); st.Ended > 0 {
		t.Errorf("status %+v", st)
	}
}

// drawAndLook draws a square of one colour from vertices that an inline write brings, and
// copies it to another texture, so that a stream names resources in several places.
func drawAndLook(path string, version uint32, shade byte) error {
	c, err := vtesttest.Dial(path, fmt.Sprintf("draw %d", shade), version)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if caps, err := c.Caps(2); err != nil || len(caps) < 308 {
		return fmt.Errorf("%d bytes of capabilities: %w", len(caps), err)
	}
	const w, h = 64, 48
	target, err := c.Texture(w, h)
	if err != nil {
		return err
	}
	defer target.Close()
	second, err := c.Texture(w, h)
	if err != nil {
		return err
	}
	defer second.Close()
	color := [4]float32{float32(shade) / 255, 0.5, 0, 1}
	vertices := virglcmd.AppendVertices(nil, virglcmd.Quad(color, color)...)
	buffer, err := c.Create(vtest.Create{Target: 0, Format: virglcmd.FormatR8, Bind: 1 << 4, Width: uint32(len(vertices)), Height: 1, Depth: 1, ArraySize: 1})
	if err != nil {
		return err
	}
	var b virglcmd.Builder
	b.CreateSubCtx(1)
	b.SetSubCtx(1)
	b.InlineWrite(buffer.Handle, 0, virglcmd.Box{W: uint32(len(vertices)), H: 1, D: 1}, 0, vertices)
	b.Pipeline(virglcmd.HandlesFrom(10), target.Handle, virglcmd.FormatB8G8R8A8, w, h, buffer.Handle, virglcmd.FragmentShader)
	b.Draw(virglcmd.TriangleStrip, 0, 4)
	b.CopyRegion(second.Handle, 0, 0, target.Handle, virglcmd.Box{W: w, H: h, D: 1})
	if err := c.Submit(b.Bytes()); err != nil {
		return err
	}
	for _, r := range []*vtesttest.Resource{target, second} {
		px, err := c.Read(r, 0, 0, w, h)
		if err != nil {
			return err
		}
		for i := 0; i < len(px); i += 4 {
			if px[i+2]-shade+1 > 2 || px[i+1] < 126 || px[i+1] > 129 || px[i] != 0 || px[i+3] != 255 {
				return fmt.Errorf("texel %d is % x, want red %d", i/4, px[i:i+4], shade)
			}
		}
	}
	return c.Unref(second.Handle)
}

// TestRealThief: in version 3 ids are the table's own, and a stream may name any of them;
// libvirglrenderer lets a context use what is its own.
func TestRealThief(t *testing.T) {
	path, srv := serveReal(t)
	const w, h = 16, 16
	paint := func(b *virglcmd.Builder, res uint32, color [4]float32) []byte {
		b.CreateSubCtx(1)
		b.SetSubCtx(1)
		b.CreateSurface(10, res, virglcmd.FormatB8G8R8A8, 0, 0)
		b.SetFramebuffer(10)
		b.Clear(virglcmd.ClearColor0, color, 0, 0)
		return b.Bytes()
	}
	owner := must(vtesttest.Dial(path, "owner", 3))(t)
	defer func() { _ = owner.Close() }()
	theirs := must(owner.Texture(w, h))(t)
	defer theirs.Close()
	var b virglcmd.Builder
	if err := owner.Submit(paint(&b, theirs.Handle, [4]float32{1, 0, 0, 1})); err != nil {
		t.Fatal(err)
	}
	look := func(c *vtesttest.Client, r *vtesttest.Resource, want [4]byte) {
		t.Helper()
		px := must(c.Read(r, 0, 0, w, h))(t)
		for i := 0; i < len(px); i += 4 {
			if [4]byte(px[i:]) != want {
				t.Fatalf("texel %d is %v, want %v", i/4, px[i:i+4], want)
			}
		}
	}
	red, green := [4]byte{0, 0, 255, 255}, [4]byte{0, 255, 0, 255}
	look(owner, theirs, red)
	for name, steal := range map[string]func(b *virglcmd.Builder, own uint32){
		"draw": func(b *virglcmd.Builder, _ uint32) { paint(b, theirs.Handle, [4]float32{0, 0, 1, 1}) },
		"copy": func(b *virglcmd.Builder, own uint32) {
			b.CopyRegion(own, 0, 0, theirs.Handle, virglcmd.Box{W: w, H: h, D: 1})
		},
		"write": func(b *virglcmd.Builder, _ uint32) {
			b.InlineWrite(theirs.Handle, 0, virglcmd.Box{W: 4, H: 1, D: 1}, 0, make([]byte, 16))
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := must(vtesttest.Dial(path, "thief", 3))(t)
			defer func() { _ = c.Close() }()
			own := must(c.Texture(w, h))(t)
			defer own.Close()
			var b virglcmd.Builder
			if err := c.Submit(paint(&b, own.Handle, [4]float32{0, 1, 0, 1})); err != nil {
				t.Fatal(err)
			}
			look(c, own, green)
			b.Reset()
			steal(&b, own.Handle)
			_ = c.Submit(b.Bytes())
			if _, err := c.Read(own, 0, 0, w, h); err == nil { // ended, or nothing happened
				look(c, own, green)
			}
			look(owner, theirs, red)
		})
	}
	t.Logf("%d of %d clients were ended", srv.Status().Ended, srv.Status().Total)
}
