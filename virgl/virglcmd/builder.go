package virglcmd

import (
	"encoding/binary"
	"math"
)

// maxLength is the most dwords after the header that a command can have: its
// length field has 16 bits.
const maxLength = 1<<16 - 1

// Builder appends commands to one stream. The zero value is an empty stream. After
// Reset it uses the same memory again, so a steady user allocates nothing. It is
// not safe for concurrent use.
type Builder struct {
	buf []byte
}

// Reset empties the stream and keeps its memory.
func (b *Builder) Reset() { b.buf = b.buf[:0] }

// Bytes returns the stream: a multiple of 4 bytes, 8-byte aligned, valid until the
// next call of another method.
func (b *Builder) Bytes() []byte { return b.buf }

// grow makes room for a command, so that the memory is never so small that Go
// places it without alignment.
func (b *Builder) grow(dwords int) {
	if need := len(b.buf) + 4*dwords; need > cap(b.buf) {
		buf := make([]byte, len(b.buf), max(4096, 2*need))
		copy(buf, b.buf)
		b.buf = buf
	}
}

// header starts a command of length dwords. It panics if they do not fit into the
// length field: callers pass data that they made.
func (b *Builder) header(c command, obj Object, length int) {
	if length > maxLength {
		panic("virglcmd: command longer than 65535 dwords")
	}
	b.grow(length + 1)
	b.u32(uint32(c) | uint32(obj)<<8 | uint32(length)<<16)
}

func (b *Builder) u32(v uint32) { b.buf = binary.LittleEndian.AppendUint32(b.buf, v) }

func (b *Builder) f32(v float32) { b.u32(math.Float32bits(v)) }

// data appends bytes padded with zeros to a multiple of 4.
func (b *Builder) data(p []byte) {
	b.buf = append(b.buf, p...)
	b.pad()
}

func (b *Builder) pad() {
	for len(b.buf)%4 != 0 {
		b.buf = append(b.buf, 0)
	}
}

// CreateSubCtx makes sub-context id, a GL context of its own. 0 exists from the start.
func (b *Builder) CreateSubCtx(id uint32) {
	b.header(cmdCreateSubCtx, 0, 1)
	b.u32(id)
}

// SetSubCtx runs the following commands in sub-context id.
func (b *Builder) SetSubCtx(id uint32) {
	b.header(cmdSetSubCtx, 0, 1)
	b.u32(id)
}

// DestroySubCtx destroys sub-context id.
func (b *Builder) DestroySubCtx(id uint32) {
	b.header(cmdDestroySubCtx, 0, 1)
	b.u32(id)
}

// CreateSurface makes a view of one level and layer of a texture, to draw on.
func (b *Builder) CreateSurface(handle, resource, format, level, layer uint32) {
	b.header(cmdCreateObject, ObjectSurface, 5)
	b.u32(handle)
	b.u32(resource)
	b.u32(format)
	b.u32(level)
	b.u32(layer | layer<<16) // first and last
}

// BlobResource describes what PipeResourceCreate makes.
type BlobResource struct {
	Target, Format, Bind uint32
	Width, Height        uint32
	Flags                uint32
	BlobID               uint32
}

// PipeResourceCreate makes a resource that RESOURCE_CREATE_BLOB then turns into a
// blob by its BlobID.
func (b *Builder) PipeResourceCreate(r BlobResource) {
	b.header(cmdPipeResourceCreate, 0, 11)
	for _, v := range [...]uint32{r.Target, r.Format, r.Bind, r.Width, r.Height, 1, 1, 0, 0, r.Flags, r.BlobID} {
		b.u32(v)
	}
}

// BindObject makes an object current.
func (b *Builder) BindObject(t Object, handle uint32) {
	b.header(cmdBindObject, t, 1)
	b.u32(handle)
}

// DestroyObject destroys an object.
func (b *Builder) DestroyObject(t Object, handle uint32) {
	b.header(cmdDestroyObject, t, 1)
	b.u32(handle)
}

// SetFramebuffer draws on one colour surface, without depth. 0 is no surface: then
// the context holds on to none.
func (b *Builder) SetFramebuffer(color uint32) {
	if color == 0 {
		b.header(cmdSetFramebuffer, 0, 2)
		b.u32(0)
		b.u32(0)
		return
	}
	b.header(cmdSetFramebuffer, 0, 3)
	b.u32(1) // colour buffers
	b.u32(0) // depth surface
	b.u32(color)
}

// Clear fills the bound surfaces. buffers is a sum of Clear* values; rgba is in the
// range 0 to 1.
func (b *Builder) Clear(buffers uint32, rgba [4]float32, depth float64, stencil uint32) {
	b.header(cmdClear, 0, 8)
	b.u32(buffers)
	for _, c := range rgba {
		b.f32(c)
	}
	bits := math.Float64bits(depth)
	b.u32(uint32(bits))
	b.u32(uint32(bits >> 32))
	b.u32(stencil)
}

// CreateBlend makes a blend state that writes all components of every colour buffer
// unblended.
func (b *Builder) CreateBlend(handle uint32) {
	b.header(cmdCreateObject, ObjectBlend, 11)
	b.u32(handle)
	b.u32(0)
	b.u32(0)
	for range 8 {
		b.u32(0xf << 27) // colour mask
	}
}

// CreateRasterizer makes a rasterizer state: filled polygons, nothing culled, pixel
// centres at one half. With scissor it honours SetScissor.
func (b *Builder) CreateRasterizer(handle uint32, scissor bool) {
	const (
		depthClip       = 1 << 1
		scissorBit      = 1 << 14
		halfPixelCenter = 1 << 29
	)
	s0 := uint32(depthClip | halfPixelCenter)
	if scissor {
		s0 |= scissorBit
	}
	b.header(cmdCreateObject, ObjectRasterizer, 9)
	b.u32(handle)
	b.u32(s0)
	b.f32(1) // point size
	b.u32(0) // sprite coordinates
	b.u32(0) // line stipple, clip planes
	b.f32(1) // line width
	b.f32(0) // offsets
	b.f32(0)
	b.f32(0)
}

// CreateDSA makes a state without depth, stencil and alpha tests.
func (b *Builder) CreateDSA(handle uint32) {
	b.header(cmdCreateObject, ObjectDSA, 5)
	b.u32(handle)
	for range 4 {
		b.u32(0)
	}
}

// VertexElement is one attribute in a vertex.
type VertexElement struct {
	Offset uint32 // bytes from the start of the vertex
	Buffer uint32 // index in SetVertexBuffers
	Format uint32 // such as FormatR32G32B32A32Float
}

// CreateVertexElements describes a vertex.
func (b *Builder) CreateVertexElements(handle uint32, elements ...VertexElement) {
	b.header(cmdCreateObject, ObjectVertexElements, 1+4*len(elements))
	b.u32(handle)
	for _, e := range elements {
		b.u32(e.Offset)
		b.u32(0) // instance divisor
		b.u32(e.Buffer)
		b.u32(e.Format)
	}
}

// shaderTokens is the room that the host's TGSI parser makes; it is an upper bound.
const shaderTokens = 1024

// CreateShader makes a shader from TGSI text.
func (b *Builder) CreateShader(handle uint32, stage Stage, tgsi string) {
	size := len(tgsi) + 1 // with NUL
	b.header(cmdCreateObject, ObjectShader, 5+(size+3)/4)
	b.u32(handle)
	b.u32(uint32(stage))
	b.u32(uint32(size))
	b.u32(shaderTokens)
	b.u32(0) // stream outputs
	b.buf = append(b.buf, tgsi...)
	b.buf = append(b.buf, 0)
	b.pad()
}

// BindShader makes a shader current for its stage.
func (b *Builder) BindShader(handle uint32, stage Stage) {
	b.header(cmdBindShader, 0, 2)
	b.u32(handle)
	b.u32(uint32(stage))
}

// SetViewport maps the clip space square onto w × h texels: y = -1 is row 0.
func (b *Builder) SetViewport(w, h uint32) {
	b.header(cmdSetViewportState, 0, 7)
	b.u32(0) // first slot
	b.f32(float32(w) / 2)
	b.f32(float32(h) / 2)
	b.f32(0.5)
	b.f32(float32(w) / 2)
	b.f32(float32(h) / 2)
	b.f32(0.5)
}

// SetScissor limits drawing to a rectangle, in texels.
func (b *Builder) SetScissor(x, y, w, h uint16) {
	b.header(cmdSetScissorState, 0, 3)
	b.u32(0) // first slot
	b.u32(uint32(x) | uint32(y)<<16)
	b.u32(uint32(x+w) | uint32(y+h)<<16)
}

// VertexBuffer is where vertices come from.
type VertexBuffer struct {
	Stride, Offset, Resource uint32
}

// SetVertexBuffers binds vertex buffers from slot 0 on.
func (b *Builder) SetVertexBuffers(buffers ...VertexBuffer) {
	b.header(cmdSetVertexBuffers, 0, 3*len(buffers))
	for _, v := range buffers {
		b.u32(v.Stride)
		b.u32(v.Offset)
		b.u32(v.Resource)
	}
}

// SetConstants sets constant buffer 0 of a stage. The host reads whole vectors, so
// values are padded with zeros to a multiple of four.
func (b *Builder) SetConstants(stage Stage, values ...float32) {
	pad := -len(values) & 3
	b.header(cmdSetConstantBuffer, 0, 2+len(values)+pad)
	b.u32(uint32(stage))
	b.u32(0)
	for _, v := range values {
		b.f32(v)
	}
	for range pad {
		b.f32(0)
	}
}

// Box is a box of texels, or of bytes in a buffer.
type Box struct{ X, Y, Z, W, H, D uint32 }

// InlineWrite writes data, carried in the stream, to a box of a resource. stride is
// in bytes, 0 for a buffer.
func (b *Builder) InlineWrite(resource, level uint32, box Box, stride uint32, data []byte) {
	b.header(cmdInlineWrite, 0, 11+(len(data)+3)/4)
	b.u32(resource)
	b.u32(level)
	b.u32(0) // usage
	b.u32(stride)
	b.u32(0) // layer stride
	b.box(box)
	b.data(data)
}

func (b *Builder) box(x Box) {
	for _, v := range [...]uint32{x.X, x.Y, x.Z, x.W, x.H, x.D} {
		b.u32(v)
	}
}

// CopyRegion copies a box of one resource's level 0 to a place in another's.
func (b *Builder) CopyRegion(dst, dstX, dstY, src uint32, from Box) {
	b.header(cmdResourceCopyRegion, 0, 13)
	b.u32(dst)
	b.u32(0)
	b.u32(dstX)
	b.u32(dstY)
	b.u32(0)
	b.u32(src)
	b.u32(0)
	b.box(from)
}

// Draw draws count vertices from first on.
func (b *Builder) Draw(mode Primitive, first, count uint32) {
	b.header(cmdDrawVBO, 0, 12)
	b.u32(first)
	b.u32(count)
	b.u32(uint32(mode))
	b.u32(0) // indexed
	b.u32(1) // instances
	b.u32(0) // index bias
	b.u32(0) // first instance
	b.u32(0) // primitive restart
	b.u32(0) // restart index
	b.u32(0) // least index
	b.u32(first + count - 1)
	b.u32(0) // count from stream output
}
