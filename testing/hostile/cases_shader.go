package hostile

import (
	"strings"

	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

// upstreamCrash is why some cases may end the broker: seen in virglrenderer 1.1.0 with
// Mesa 26.1, the newest that Debian stable has.
const upstreamCrash = "SIGSEGV inside virglrenderer or Mesa, which run in the broker's process: see docs/security.md"

func shaderCases() []Case {
	text := func(name string, stage virglcmd.Stage, tgsi string) Case {
		c := built(name, func(s *virglcmd.Builder) {
			s.CreateShader(70, stage, tgsi)
			s.BindShader(70, stage)
			s.Draw(virglcmd.TriangleStrip, 0, 4)
		})
		c.Group = "shader"
		return c
	}
	raw := func(name string, v ...uint32) Case {
		c := words(name, v...)
		c.Group = "shader"
		return c
	}
	crash := func(c Case) Case {
		c.Known = upstreamCrash
		return c
	}
	frag := func(body string) string {
		return "FRAG\nDCL IN[0], GENERIC[0], PERSPECTIVE\nDCL OUT[0], COLOR\n" + body
	}
	return []Case{
		text("empty text", virglcmd.StageFragment, ""),
		text("text that is none", virglcmd.StageFragment, strings.Repeat("\xff\x00\x01", 1000)),
		crash(text("a vertex shader as a fragment shader", virglcmd.StageFragment, virglcmd.VertexShader)),
		text("a fragment shader as a vertex shader", virglcmd.StageVertex, virglcmd.FragmentShader),
		text("stage 77", 77, virglcmd.FragmentShader),
		text("no END", virglcmd.StageFragment, frag("  0: MOV OUT[0], IN[0]\n")),
		text("a register beyond all", virglcmd.StageFragment, frag("  0: MOV OUT[0], TEMP[4000000000]\n  1: END\n")),
		text("an output beyond all", virglcmd.StageFragment, frag("  0: MOV OUT[99], IN[99]\n  1: END\n")),
		text("a million temporaries", virglcmd.StageFragment, frag("DCL TEMP[0..1000000]\n  0: MOV OUT[0], TEMP[999999]\n  1: END\n")),
		text("a range that runs backwards", virglcmd.StageFragment, frag("DCL TEMP[5..1]\n  0: MOV OUT[0], TEMP[3]\n  1: END\n")),
		text("IF without ENDIF", virglcmd.StageFragment, frag("  0: IF IN[0].xxxx\n  1: MOV OUT[0], IN[0]\n  2: END\n")),
		text("ENDLOOP without BGNLOOP", virglcmd.StageFragment, frag("  0: ENDLOOP\n  1: ENDIF\n  2: END\n")),
		text("2000 nested loops", virglcmd.StageFragment, frag(nested(2000))),
		text("a label of all ones", virglcmd.StageFragment, frag("  0: CAL :4294967295\n  1: END\n")),
		text("an unknown opcode", virglcmd.StageFragment, frag("  0: FROB OUT[0], IN[0]\n  1: END\n")),
		text("a sampler that is not bound", virglcmd.StageFragment, frag("DCL SAMP[31]\nDCL SVIEW[31], 2D, FLOAT\nDCL TEMP[0]\n  0: TEX TEMP[0], IN[0], SAMP[31], 2D\n  1: MOV OUT[0], TEMP[0]\n  2: END\n")),
		text("a sampler beyond all", virglcmd.StageFragment, frag("DCL SAMP[999]\n  0: TEX OUT[0], IN[0], SAMP[999], 2D\n  1: END\n")),
		text("an image beyond all", virglcmd.StageFragment, frag("DCL IMAGE[999], 2D, 1, WR\n  0: LOAD OUT[0], IMAGE[999], IN[0], 2D\n  1: END\n")),
		text("a buffer beyond all", virglcmd.StageFragment, frag("DCL BUFFER[999]\n  0: LOAD OUT[0], BUFFER[999], IN[0]\n  1: END\n")),
		text("a constant buffer beyond all", virglcmd.StageFragment, frag("DCL CONST[99][0..4095]\n  0: MOV OUT[0], CONST[99][4095]\n  1: END\n")),
		text("an indirect constant", virglcmd.StageFragment, frag("DCL CONST[0..4095]\nDCL ADDR[0]\n  0: ARL ADDR[0].x, IN[0].xxxx\n  1: MOV OUT[0], CONST[ADDR[0].x+4000]\n  2: END\n")),
		text("1000 outputs", virglcmd.StageVertex, "VERT\nDCL IN[0]\nDCL OUT[0], POSITION\nDCL OUT[1..1000], GENERIC[0]\n  0: MOV OUT[0], IN[0]\n  1: END\n"),
		text("a semantic beyond all", virglcmd.StageVertex, "VERT\nDCL IN[0]\nDCL OUT[0], GENERIC[4000000000]\n  0: MOV OUT[0], IN[0]\n  1: END\n"),
		text("a property beyond all", virglcmd.StageFragment, "FRAG\nPROPERTY FS_COLOR0_WRITES_ALL_CBUFS 4294967295\nDCL OUT[0], COLOR\n  0: END\n"),
		text("an immediate of no numbers", virglcmd.StageFragment, frag("IMM[0] FLT32 { nan, inf, -inf, 1e999}\n  0: MOV OUT[0], IMM[0]\n  1: END\n")),
		text("60 KiB of instructions", virglcmd.StageFragment, frag(strings.Repeat("  0: MOV OUT[0], IN[0]\n", 2500)+"  1: END\n")),
		text("a line without end", virglcmd.StageFragment, frag("  0: MOV "+strings.Repeat("(", 60000))),
		raw("a length of all ones", head(cmdCreate, 4, 5), 70, 1, huge, 1024, 0),
		raw("a length of 2 GiB less one", head(cmdCreate, 4, 6), 70, 1, 0x7fff_ffff, 1024, 0, 0x4741_5246),
		raw("a continuation of nothing", head(cmdCreate, 4, 6), 70, 1, 0x8000_0000|64, 1024, 0, 0x4741_5246),
		raw("a continuation past the end", head(cmdCreate, 4, 6), 70, 1, 4096, 1024, 0, 0x4741_5246, head(cmdCreate, 4, 6), 70, 1, 0x8000_0000|0x7fff_fff0, 1024, 0, 0x4741_5246),
		raw("a continuation of another", head(cmdCreate, 4, 6), 70, 1, 4096, 1024, 0, 0x4741_5246, head(cmdCreate, 4, 6), 71, 1, 0x8000_0000|4, 1024, 0, 0x4741_5246),
		raw("long text begun and destroyed", head(cmdCreate, 4, 6), 70, 1, 4096, 1024, 0, 0x4741_5246, head(cmdDestroy, 4, 1), 70, head(cmdBind, 4, 1), 70),
		raw("tokens of all ones", head(cmdCreate, 4, 7), 70, 1, 8, huge, 0, 0x4741_5246, 0x0a),
		raw("stream outputs of all ones", head(cmdCreate, 4, 7), 70, 0, 8, 64, huge, 0x5452_4556, 0x0a),
		raw("64 stream outputs of ones", append(append([]uint32{head(cmdCreate, 4, 5+4+128+2), 70, 0, 8, 64, 64, huge, huge, huge, huge}, repeat(huge, 128)...), 0x5452_4556, 0x0a)...),
		raw("bind what is not there", head(31, 0, 2), 77, 1, head(31, 0, 2), 1, 77, head(31, 0, 2), huge, huge),
		raw("bind a blend state as a shader", head(31, 0, 2), 2, 1, head(cmdDraw, 0, 12), 0, 4, 5, 0, 1, 0, 0, 0, 0, 0, 3, 0),
		raw("destroy the shader in use and draw", head(cmdDestroy, 4, 1), 7, head(cmdDestroy, 4, 1), 6, head(cmdDraw, 0, 12), 0, 4, 5, 0, 1, 0, 0, 0, 0, 0, 3, 0),
		raw("destroy everything in use and draw", head(cmdDestroy, 8, 1), 1, head(cmdDestroy, 1, 1), 2, head(cmdDestroy, 2, 1), 3, head(cmdDestroy, 3, 1), 4, head(cmdDestroy, 5, 1), 5,
			head(cmdDraw, 0, 12), 0, 4, 5, 0, 1, 0, 0, 0, 0, 0, 3, 0),
	}
}

func repeat(v uint32, n int) []uint32 {
	out := make([]uint32, n)
	for i := range out {
		out[i] = v
	}
	return out
}

func nested(n int) string {
	var b strings.Builder
	for range n {
		b.WriteString("  0: BGNLOOP\n")
	}
	b.WriteString("  0: BRK\n")
	for range n {
		b.WriteString("  0: ENDLOOP\n")
	}
	return b.String() + "  1: END\n"
}
