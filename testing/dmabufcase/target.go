package dmabufcase

import (
	"image"

	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

// target is a resource that can be shown.
type target struct {
	d      *driver
	id     uint32
	f      *format
	bounds image.Rectangle
	// upside says that drawing has to be turned over: VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP
	// has the last row of the texture shown at the top. Transfers count rows from
	// the top all the same, because virglrenderer turns those over itself.
	upside bool
	block  *fakeguest.Block // backing of a 2D resource
}

// target3D makes a texture to draw on.
func (d *driver) target3D(f *format, w, h int, y0top bool) (*target, error) {
	t := d.newTarget(f, w, h, y0top)
	return t, d.create3D(t.create())
}

func (d *driver) newTarget(f *format, w, h int, y0top bool) *target {
	t := &target{d: d, id: d.resource, f: f, bounds: image.Rect(0, 0, w, h), upside: y0top}
	d.resource++
	return t
}

// create is the command that makes a texture of it.
func (t *target) create() virtiogpu.ResourceCreate3D {
	c := virtiogpu.ResourceCreate3D{
		ResourceID: t.id, Target: virglcmd.TargetTexture2D, Format: t.f.virgl,
		Bind:  virglcmd.BindRenderTarget | virglcmd.BindSamplerView | virglcmd.BindScanout,
		Width: uint32(t.bounds.Dx()), Height: uint32(t.bounds.Dy()), Depth: 1, ArraySize: 1,
	}
	if t.upside {
		c.Flags = virtiogpu.ResourceFlagY0Top
	}
	return c
}

// on appends what points the pipeline at the target for as long as f runs.
func (t *target) on(f func(b *virglcmd.Builder)) {
	b := &t.d.b
	surface := t.d.object
	t.d.object++
	b.CreateSurface(surface, t.id, t.f.virgl, 0, 0)
	b.SetFramebuffer(surface)
	b.SetViewport(uint32(t.bounds.Dx()), uint32(t.bounds.Dy()))
	f(b)
	b.SetFramebuffer(0) // or it would keep the texture beyond its unref
	b.DestroyObject(virglcmd.ObjectSurface, surface)
}

// clear fills the target with the GPU's clear.
func (t *target) clear(c rgba) {
	t.on(func(b *virglcmd.Builder) { b.Clear(virglcmd.ClearColor0, c.floats(), 0, 0) })
}

// draw draws a scene's triangles, once.
func (t *target) draw(s *scene) {
	if t.upside {
		for i := range s.vertices {
			s.vertices[i].Position[1] *= -1
		}
	}
	t.d.vertices = virglcmd.AppendVertices(t.d.vertices[:0], s.vertices...)
	t.on(func(b *virglcmd.Builder) {
		b.InlineWrite(vertexResource, 0, virglcmd.Box{W: uint32(len(t.d.vertices)), H: 1, D: 1}, 0, t.d.vertices)
		b.Draw(virglcmd.Triangles, 0, uint32(len(s.vertices)))
	})
}

// upload writes texels as the guest's CPU has them, carried in the stream.
func (t *target) upload(r image.Rectangle, ref *reference, at func(x, y int) rgba) {
	if r = r.Intersect(t.bounds); r.Empty() {
		return
	}
	var texels []byte
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			c := at(x, y)
			texels = t.f.texel(texels, c)
			ref.set(x, y, c)
		}
	}
	box := virglcmd.Box{X: uint32(r.Min.X), Y: uint32(r.Min.Y), W: uint32(r.Dx()), H: uint32(r.Dy()), D: 1}
	t.d.b.InlineWrite(t.id, 0, box, uint32(4*r.Dx()), texels)
}

func (t *target) unref() error {
	if t.block != nil {
		defer t.block.Free()
	}
	return t.d.unref(t.id)
}

// target2D makes a 2D resource with scattered backing that holds the picture.
func (d *driver) target2D(f *format, ref *reference) (*target, error) {
	t := d.newTarget(f, ref.W, ref.H, false)
	c := virtiogpu.ResourceCreate2D{ResourceID: t.id, Format: f.virtio(), Width: uint32(ref.W), Height: uint32(ref.H)}
	if err := d.do(c.Append); err != nil {
		return nil, err
	}
	var err error
	if t.block, err = d.g.Pages.Scattered(uint64(4 * ref.W * ref.H)); err != nil {
		return nil, err
	}
	if err := d.attach(t); err != nil {
		return nil, err
	}
	t.paint(ref, t.bounds)
	return t, t.transfer(t.bounds)
}

// touch uploads to a texture that is never shown, once through the guest's context
// and once through the renderer's own, so that neither stays bound to one that was.
func (d *driver) touch() error {
	t, err := d.target3D(&formats3D[0], 1, 1, false)
	if err != nil {
		return err
	}
	t.upload(t.bounds, newReference(1, 1), func(int, int) rgba { return rgba{} })
	t.clear(rgba{})
	if err := d.submit(); err != nil {
		return err
	}
	if t.block, err = d.g.Pages.Scattered(4); err != nil {
		return err
	}
	if err := d.attach(t); err != nil {
		return err
	}
	c := virtiogpu.TransferHost3D{CtrlHdr: virtiogpu.CtrlHdr{Type: virtiogpu.CmdTransferToHost3D},
		Box: virtiogpu.Box{W: 1, H: 1, D: 1}, ResourceID: t.id}
	if err := d.do(c.Append); err != nil {
		return err
	}
	return t.unref()
}

// attach gives the host the pages of the target's block.
func (d *driver) attach(t *target) error {
	c := virtiogpu.ResourceAttachBacking{ResourceID: t.id, NrEntries: uint32(len(t.block.Entries))}
	return d.do(func(dst []byte) []byte {
		dst = c.Append(dst)
		for _, e := range t.block.Entries {
			dst = virtiogpu.MemEntry{Addr: e.Addr, Length: e.Len}.Append(dst)
		}
		return dst
	})
}

// paint is the guest's CPU drawing into the backing.
func (t *target) paint(ref *reference, r image.Rectangle) {
	var row []byte
	for y := r.Min.Y; y < r.Max.Y; y++ {
		row = row[:0]
		for x := r.Min.X; x < r.Max.X; x++ {
			c := ref.Pix[y*ref.W+x]
			row = t.f.texel(row, rgba{uint8(c >> 16), uint8(c >> 8), uint8(c), 0x33})
		}
		t.block.WriteAt(row, t.offset(r.Min.X, y))
	}
}

func (t *target) offset(x, y int) uint64 { return uint64(4 * (y*t.bounds.Dx() + x)) }

func (t *target) transfer(r image.Rectangle) error {
	c := virtiogpu.TransferToHost2D{R: virtioRect(r), Offset: t.offset(r.Min.X, r.Min.Y), ResourceID: t.id}
	return t.d.do(c.Append)
}

// cursorTarget makes the 2D resource of a pointer.
func (d *driver) cursorTarget(cur *cursor) (*target, error) {
	f := &formats3D[0] // B8G8R8A8, the format of every guest's cursor
	t, err := d.target2D(f, newReference(cur.w, cur.h))
	if err != nil {
		return nil, err
	}
	t.block.WriteAt(cur.pix, 0)
	return t, t.transfer(t.bounds)
}

// showCursor sets picture and position; 2^32-n is -n. resource 0 hides it.
func (d *driver) showCursor(resource uint32, x, y, hotX, hotY int) error {
	c := virtiogpu.UpdateCursor{CtrlHdr: virtiogpu.CtrlHdr{Type: virtiogpu.CmdUpdateCursor},
		X: uint32(x), Y: uint32(y), ResourceID: resource, HotX: uint32(hotX), HotY: uint32(hotY)}
	return d.doOn(d.g.Cursor, c.Append)
}

func (d *driver) moveCursor(x, y int) error {
	c := virtiogpu.UpdateCursor{CtrlHdr: virtiogpu.CtrlHdr{Type: virtiogpu.CmdMoveCursor}, X: uint32(x), Y: uint32(y)}
	return d.doOn(d.g.Cursor, c.Append)
}
