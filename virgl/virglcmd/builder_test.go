package virglcmd

import (
	"encoding/binary"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func words(p []byte) []uint32 {
	var out []uint32
	for i := 0; i+4 <= len(p); i += 4 {
		out = append(out, binary.LittleEndian.Uint32(p[i:]))
	}
	return out
}

func f(v float32) uint32 { return math.Float32bits(v) }

// TestEncoding compares every command with its layout in virgl_protocol.h.
func TestEncoding(t *testing.T) {
	half := math.Float64bits(0.5)
	for _, c := range []struct {
		name string
		do   func(b *Builder)
		want []uint32
	}{
		{"create sub-context", func(b *Builder) { b.CreateSubCtx(7) }, []uint32{1<<16 | 29, 7}},
		{"set sub-context", func(b *Builder) { b.SetSubCtx(7) }, []uint32{1<<16 | 28, 7}},
		{"destroy sub-context", func(b *Builder) { b.DestroySubCtx(7) }, []uint32{1<<16 | 30, 7}},
		{"surface", func(b *Builder) { b.CreateSurface(1, 2, 3, 4, 5) }, []uint32{5<<16 | 8<<8 | 1, 1, 2, 3, 4, 5 | 5<<16}},
		{"bind", func(b *Builder) { b.BindObject(ObjectDSA, 9) }, []uint32{1<<16 | 3<<8 | 2, 9}},
		{"destroy", func(b *Builder) { b.DestroyObject(ObjectSurface, 9) }, []uint32{1<<16 | 8<<8 | 3, 9}},
		{"framebuffer", func(b *Builder) { b.SetFramebuffer(9) }, []uint32{3<<16 | 5, 1, 0, 9}},
		{"clear", func(b *Builder) { b.Clear(ClearColor0|ClearDepth, [4]float32{1, 2, 3, 4}, 0.5, 6) },
			[]uint32{8<<16 | 7, 5, f(1), f(2), f(3), f(4), uint32(half), uint32(half >> 32), 6}},
		{"blend", func(b *Builder) { b.CreateBlend(1) },
			[]uint32{11<<16 | 1<<8 | 1, 1, 0, 0, 15 << 27, 15 << 27, 15 << 27, 15 << 27, 15 << 27, 15 << 27, 15 << 27, 15 << 27}},
		{"rasterizer", func(b *Builder) { b.CreateRasterizer(1, true) },
			[]uint32{9<<16 | 2<<8 | 1, 1, 1<<1 | 1<<14 | 1<<29, f(1), 0, 0, f(1), 0, 0, 0}},
		{"depth, stencil, alpha", func(b *Builder) { b.CreateDSA(1) }, []uint32{5<<16 | 3<<8 | 1, 1, 0, 0, 0, 0}},
		{"vertex elements", func(b *Builder) {
			b.CreateVertexElements(1, VertexElement{Offset: 2, Buffer: 3, Format: 4}, VertexElement{Offset: 5})
		}, []uint32{9<<16 | 5<<8 | 1, 1, 2, 0, 3, 4, 5, 0, 0, 0}},
		{"shader", func(b *Builder) { b.CreateShader(1, StageFragment, "ABCDE") },
			[]uint32{7<<16 | 4<<8 | 1, 1, 1, 6, shaderTokens, 0, 0x44434241, 0x45}},
		{"bind shader", func(b *Builder) { b.BindShader(1, StageFragment) }, []uint32{2<<16 | 31, 1, 1}},
		{"viewport", func(b *Builder) { b.SetViewport(20, 10) }, []uint32{7<<16 | 4, 0, f(10), f(5), f(0.5), f(10), f(5), f(0.5)}},
		{"scissor", func(b *Builder) { b.SetScissor(1, 2, 3, 4) }, []uint32{3<<16 | 15, 0, 1 | 2<<16, 4 | 6<<16}},
		{"vertex buffers", func(b *Builder) { b.SetVertexBuffers(VertexBuffer{1, 2, 3}, VertexBuffer{4, 5, 6}) },
			[]uint32{6<<16 | 6, 1, 2, 3, 4, 5, 6}},
		{"constants", func(b *Builder) { b.SetConstants(StageFragment, 1, 2, 3, 4, 5) },
			[]uint32{10<<16 | 12, 1, 0, f(1), f(2), f(3), f(4), f(5), 0, 0, 0}},
		{"inline write", func(b *Builder) { b.InlineWrite(1, 2, Box{3, 4, 5, 6, 7, 8}, 9, []byte{1, 2, 3, 4, 5}) },
			[]uint32{13<<16 | 9, 1, 2, 0, 9, 0, 3, 4, 5, 6, 7, 8, 0x04030201, 5}},
		{"copy", func(b *Builder) { b.CopyRegion(1, 2, 3, 4, Box{5, 6, 7, 8, 9, 10}) },
			[]uint32{13<<16 | 17, 1, 0, 2, 3, 0, 4, 0, 5, 6, 7, 8, 9, 10}},
		{"draw", func(b *Builder) { b.Draw(TriangleStrip, 2, 4) }, []uint32{12<<16 | 8, 2, 4, 5, 0, 1, 0, 0, 0, 0, 0, 5, 0}},
	} {
		var b Builder
		c.do(&b)
		if d := cmp.Diff(c.want, words(b.Bytes())); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
	}
}

// TestLengths walks a long stream by its length fields and must end at its end.
func TestLengths(t *testing.T) {
	var b Builder
	b.Pipeline(HandlesFrom(1), 1, FormatB8G8R8A8, 64, 64, 2, SlowFragmentShader)
	data := AppendVertices(nil, Quad([4]float32{}, [4]float32{})...)
	if len(data) != 4*VertexSize {
		t.Errorf("4 vertices take %d bytes, want %d", len(data), 4*VertexSize)
	}
	b.InlineWrite(2, 0, Box{W: uint32(len(data)), H: 1, D: 1}, 0, data)
	b.Draw(TriangleStrip, 0, 4)
	w := words(b.Bytes())
	if len(b.Bytes())%4 != 0 {
		t.Fatalf("stream of %d bytes", len(b.Bytes()))
	}
	at, count := 0, 0
	for at < len(w) {
		at += int(w[at]>>16) + 1
		count++
	}
	if at != len(w) || count < 15 {
		t.Errorf("%d commands end at dword %d of %d", count, at, len(w))
	}
}

func TestTooLong(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a command of more than 65535 dwords did not panic")
		}
	}()
	var b Builder
	b.CreateShader(1, StageVertex, strings.Repeat("x", 4*maxLength))
}

// TestReuse builds the same stream again and again: no allocation, same bytes.
func TestReuse(t *testing.T) {
	var b Builder
	quad := AppendVertices(nil, Quad([4]float32{1}, [4]float32{2})...)
	frame := func() {
		b.Reset()
		b.SetSubCtx(1)
		b.Clear(ClearColor0, [4]float32{1, 0, 0, 1}, 0, 0)
		b.InlineWrite(2, 0, Box{W: uint32(len(quad)), H: 1, D: 1}, 0, quad)
		b.Pipeline(HandlesFrom(1), 1, FormatB8G8R8A8, 64, 64, 2, FragmentShader)
		b.SetConstants(StageFragment, 1, 2)
		b.Draw(TriangleStrip, 0, 4)
	}
	frame()
	first := words(b.Bytes())
	if n := testing.AllocsPerRun(100, frame); n != 0 {
		t.Errorf("%v allocations a frame, want 0", n)
	}
	if d := cmp.Diff(first, words(b.Bytes())); d != "" {
		t.Errorf("second stream differs:\n%s", d)
	}
}
