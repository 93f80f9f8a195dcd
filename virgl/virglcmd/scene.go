package virglcmd

import (
	"encoding/binary"
	"math"
)

// VertexShader passes a position (attribute 0) and a colour (attribute 1) on.
const VertexShader = `VERT
DCL IN[0]
DCL IN[1]
DCL OUT[0], POSITION
DCL OUT[1], GENERIC[0]
  0: MOV OUT[0], IN[0]
  1: MOV OUT[1], IN[1]
  2: END
`

// FragmentShader writes the interpolated colour.
const FragmentShader = `FRAG
DCL IN[0], GENERIC[0], PERSPECTIVE
DCL OUT[0], COLOR
  0: MOV OUT[0], IN[0]
  1: END
`

// SlowFragmentShader writes the interpolated colour after counting to CONST[0].x in
// a loop, so that a picture takes as long as a test wants. The count goes into the
// result, too small to be seen, because a compiler drops a loop without effect.
const SlowFragmentShader = `FRAG
DCL IN[0], GENERIC[0], PERSPECTIVE
DCL OUT[0], COLOR
DCL CONST[0]
DCL TEMP[0..1]
IMM[0] FLT32 { 0.0, 1.0, 0.000000000001, 0.0}
  0: MOV TEMP[0].x, IMM[0].xxxx
  1: BGNLOOP
  2: SGE TEMP[1].x, TEMP[0].xxxx, CONST[0].xxxx
  3: IF TEMP[1].xxxx
  4: BRK
  5: ENDIF
  6: ADD TEMP[0].x, TEMP[0].xxxx, IMM[0].yyyy
  7: ENDLOOP
  8: MUL TEMP[1].x, TEMP[0].xxxx, IMM[0].zzzz
  9: ADD OUT[0], IN[0], TEMP[1].xxxx
  10: END
`

// VertexSize is the size of one Vertex in a vertex buffer, in bytes.
const VertexSize = 32

// Vertex is what [VertexShader] reads: four floats each.
type Vertex struct {
	Position [4]float32 // clip space
	Color    [4]float32 // red, green, blue, alpha from 0 to 1
}

// AppendVertices appends vertices as a vertex buffer holds them.
func AppendVertices(dst []byte, vs ...Vertex) []byte {
	for _, v := range vs {
		for _, f := range v.Position {
			dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(f))
		}
		for _, f := range v.Color {
			dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(f))
		}
	}
	return dst
}

// Handles names the objects of a Pipeline. Handles are per sub-context.
type Handles struct {
	Surface, Blend, Rasterizer, DSA, Elements, VertexShader, FragmentShader uint32
}

// HandlesFrom numbers the objects from first on.
func HandlesFrom(first uint32) Handles {
	return Handles{first, first + 1, first + 2, first + 3, first + 4, first + 5, first + 6}
}

// Pipeline appends everything that a draw needs: a surface on level 0 of a w × h
// target, a viewport over all of it, the states, and shaders that colour vertices
// from vertex buffer vertices. fragment is TGSI text, such as [FragmentShader].
func (b *Builder) Pipeline(h Handles, target, format, w, hgt, vertices uint32, fragment string) {
	b.CreateSurface(h.Surface, target, format, 0, 0)
	b.SetFramebuffer(h.Surface)
	b.SetViewport(w, hgt)
	b.CreateBlend(h.Blend)
	b.BindObject(ObjectBlend, h.Blend)
	b.CreateRasterizer(h.Rasterizer, false)
	b.BindObject(ObjectRasterizer, h.Rasterizer)
	b.CreateDSA(h.DSA)
	b.BindObject(ObjectDSA, h.DSA)
	b.CreateVertexElements(h.Elements,
		VertexElement{Offset: 0, Format: FormatR32G32B32A32Float},
		VertexElement{Offset: 16, Format: FormatR32G32B32A32Float})
	b.BindObject(ObjectVertexElements, h.Elements)
	b.CreateShader(h.VertexShader, StageVertex, VertexShader)
	b.BindShader(h.VertexShader, StageVertex)
	b.CreateShader(h.FragmentShader, StageFragment, fragment)
	b.BindShader(h.FragmentShader, StageFragment)
	b.SetVertexBuffers(VertexBuffer{Stride: VertexSize, Resource: vertices})
}

// Quad returns a strip that covers the clip space square, with one colour at its
// left edge and another at its right.
func Quad(left, right [4]float32) []Vertex {
	return []Vertex{
		{Position: [4]float32{-1, -1, 0, 1}, Color: left},
		{Position: [4]float32{1, -1, 0, 1}, Color: right},
		{Position: [4]float32{-1, 1, 0, 1}, Color: left},
		{Position: [4]float32{1, 1, 0, 1}, Color: right},
	}
}
