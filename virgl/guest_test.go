package virgl

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

// guest is a context with a vertex buffer, as a guest's driver would make them.
type guest struct {
	t        testing.TB
	r        *renderer
	ctx      uint32
	vertices uint32
	b        virglcmd.Builder
	objects  uint32
	loops    float32 // of the slow shader
}

const vertexBufferSize = 4096

func newGuest(t testing.TB, r *renderer, ctx uint32) *guest {
	t.Helper()
	g := &guest{t: t, r: r, ctx: ctx, vertices: ctx*1000 + 999, objects: 1}
	if err := r.CreateContext(ctx, 0, "test"); err != nil {
		t.Fatal(err)
	}
	g.create(&ResourceArgs{
		ID: g.vertices, Target: virglcmd.TargetBuffer, Format: virglcmd.FormatR8, Bind: virglcmd.BindVertexBuffer,
		Width: vertexBufferSize, Height: 1, Depth: 1, ArraySize: 1,
	})
	g.b.CreateSubCtx(1)
	g.b.SetSubCtx(1)
	g.submit()
	return g
}

func (g *guest) create(a *ResourceArgs) {
	g.t.Helper()
	if err := g.r.CreateResource(a); err != nil {
		g.t.Fatal(err)
	}
	g.r.AttachResource(g.ctx, a.ID)
}

// target makes a texture to draw on.
func (g *guest) target(id, format, w, h, flags uint32) {
	g.t.Helper()
	g.create(&ResourceArgs{
		ID: id, Target: virglcmd.TargetTexture2D, Format: format,
		Bind:  virglcmd.BindRenderTarget | virglcmd.BindSamplerView,
		Width: w, Height: h, Depth: 1, ArraySize: 1, Flags: flags,
	})
}

func (g *guest) submit() {
	g.t.Helper()
	if err := g.r.Submit(g.ctx, g.b.Bytes()); err != nil {
		g.t.Fatal(err)
	}
	g.b.Reset()
}

// handles returns unused object handles.
func (g *guest) handles() virglcmd.Handles {
	h := virglcmd.HandlesFrom(g.objects)
	g.objects += 100
	return h
}

// clear fills a target.
func (g *guest) clear(id, format uint32, rgba [4]float32) {
	g.t.Helper()
	h := g.handles()
	g.b.CreateSurface(h.Surface, id, format, 0, 0)
	g.b.SetFramebuffer(h.Surface)
	g.b.Clear(virglcmd.ClearColor0, rgba, 0, 0)
	g.b.DestroyObject(virglcmd.ObjectSurface, h.Surface) // the framebuffer holds it until the next
	g.submit()
}

// draw draws vertices with a fragment shader on a target.
func (g *guest) draw(id, format, w, h uint32, fragment string, mode virglcmd.Primitive, vs []virglcmd.Vertex, constants ...float32) {
	g.t.Helper()
	data := virglcmd.AppendVertices(nil, vs...)
	g.b.InlineWrite(g.vertices, 0, virglcmd.Box{W: uint32(len(data)), H: 1, D: 1}, 0, data)
	g.b.Pipeline(g.handles(), id, format, w, h, g.vertices, fragment)
	if len(constants) > 0 {
		g.b.SetConstants(virglcmd.StageFragment, constants...)
	}
	g.b.Draw(mode, 0, uint32(len(vs)))
	g.submit()
}

func (g *guest) read(id, w, h, bpp uint32) []byte {
	g.t.Helper()
	p := make([]byte, w*h*bpp)
	if err := g.r.ReadPixels(id, 0, 0, w, h, w*bpp, p); err != nil {
		g.t.Fatal(err)
	}
	return p
}

// waitFence polls until the flag that the fence handler sets is set.
func waitFence(t testing.TB, r *renderer, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatal("fence did not signal within 30 s")
		}
		fds := []unix.PollFd{{Fd: int32(r.PollFD()), Events: unix.POLLIN}}
		_, _ = unix.Poll(fds, 1000)
		r.Poll()
	}
}
