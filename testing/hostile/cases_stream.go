package hostile

import (
	"bytes"
	"fmt"
	"math/rand/v2"

	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

// stream is a SUBMIT_3D in a context that has drawn a picture. The renderer may
// take garbage for good, so any answer will do; the next good picture must come.
func stream(name string, make func() []byte) Case {
	return Case{Group: "stream", Name: name, On: OnGL, Do: func(v *VM) error {
		if err := state3D(v); err != nil {
			return err
		}
		data := make()
		if err := v.Try(submit(ctxA, data)); err != nil {
			return err
		}
		// Once more, now that it has left its marks, and a read of what it drew.
		return v.Try(submit(ctxA, data), transfer3D(virtiogpu.CmdTransferFromHost3D, virtiogpu.TransferHost3D{
			CtrlHdr: ctxHdr(ctxA), ResourceID: res3D, Box: virtiogpu.Box{W: resW, H: resH, D: 1}}))
	}}
}

func words(name string, v ...uint32) Case { return stream(name, func() []byte { return dwords(v...) }) }

func built(name string, f func(s *virglcmd.Builder)) Case {
	return stream(name, func() []byte {
		var s virglcmd.Builder
		f(&s)
		return bytes.Clone(s.Bytes())
	})
}

// head is a virgl command's first dword.
func head(cmd, object, length uint32) uint32 { return cmd | object<<8 | length<<16 }

// lastCommand is beyond the newest command that any virglrenderer knows.
const lastCommand = 64

// The commands that cases below name (enum virgl_context_cmd).
const (
	cmdCreate       = 1
	cmdBind         = 2
	cmdDestroy      = 3
	cmdViewport     = 4
	cmdFramebuffer  = 5
	cmdVertexBufs   = 6
	cmdClear        = 7
	cmdDraw         = 8
	cmdInlineWrite  = 9
	cmdSamplerViews = 10
	cmdIndexBuffer  = 11
	cmdConstants    = 12
	cmdScissor      = 15
	cmdBlit         = 16
	cmdCopyRegion   = 17
	cmdBindSamplers = 18
	cmdBeginQuery   = 19
	cmdEndQuery     = 20
	cmdQueryResult  = 21
	cmdStreamOut    = 25
	cmdUniformBuf   = 27
	cmdSetSub       = 28
	cmdCreateSub    = 29
	cmdDestroySub   = 30
	cmdShaderBufs   = 34
	cmdShaderImages = 35
	cmdLaunchGrid   = 37
	cmdAtomics      = 40
	cmdQueryBuffer  = 42
	cmdTransfer     = 43
	cmdCopyTransfer = 45
	cmdClearTexture = 47
	cmdPipeResource = 48
)

func streamCases() []Case {
	var out []Case
	for c := uint32(0); c < lastCommand; c++ {
		out = append(out, garbage(c))
	}
	for o := uint32(0); o < 16; o++ {
		out = append(out, objects(o))
	}
	out = append(out,
		words("a length beyond the stream", head(cmdClear, 0, 0xffff)),
		words("a length one beyond the stream", head(cmdViewport, 0, 8), 0, 0, 0, 0, 0, 0, 0),
		words("a command that is not there", 0xff, 0xffff_ffff, 0),
		stream("random dwords", func() []byte { return randomWords(1, 4096) }),
		stream("1 MiB of random dwords", func() []byte { return randomWords(2, 1<<18) }),
		stream("random headers with good lengths", func() []byte { return randomCommands(3, 4000) }),
		stream("1 MiB of ones", func() []byte { return bytes.Repeat([]byte{0xff}, 1<<20) }),
		stream("a scene, cut at every dword", cutScenes),
		stream("65536 empty commands", func() []byte { return make([]byte, 4*65536) }),
	)
	endless := Case{Group: "stream", Name: "a thousand draws with a shader that counts", On: OnGL, Do: endlessDraw}
	endless.Known = "honest work without end: the render thread waits in the driver until it is done; only a watchdog over a worker process can end it"
	out = append(out, endless)
	out = append(out, viewCases()...)
	out = append(out, drawCases()...)
	return append(out, subContextCases()...)
}

// endlessDraw fills a large picture again and again, counting to what a loop allows
// for each texel, and asks for the result.
func endlessDraw(v *VM) error {
	const size = 1024
	b, err := v.Block(size * size * 4)
	if err != nil {
		return err
	}
	var s virglcmd.Builder
	data := virglcmd.AppendVertices(nil, virglcmd.Quad([4]float32{1, 0, 0, 1}, [4]float32{0, 1, 0, 1})...)
	s.InlineWrite(resBuf, 0, virglcmd.Box{W: uint32(len(data)), H: 1, D: 1}, 0, data)
	s.Pipeline(virglcmd.HandlesFrom(1), res3D, virglcmd.FormatB8G8R8A8, size, size, resBuf, virglcmd.SlowFragmentShader)
	s.SetConstants(virglcmd.StageFragment, 1e9)
	for range 1000 {
		s.Draw(virglcmd.TriangleStrip, 0, 4)
	}
	return v.OK(createCtx(ctxA), create3D(texture(res3D, size, size)), attachBlock(res3D, b), ctxRes(virtiogpu.CmdCtxAttachResource, ctxA, res3D),
		create3D(buffer(resBuf, 4096)), ctxRes(virtiogpu.CmdCtxAttachResource, ctxA, resBuf), submit(ctxA, s.Bytes()),
		transfer3D(virtiogpu.CmdTransferFromHost3D, virtiogpu.TransferHost3D{CtrlHdr: ctxHdr(ctxA), ResourceID: res3D,
			Box: virtiogpu.Box{W: size, H: size, D: 1}}))
}

// garbage sends one command with every kind of wrong payload.
func garbage(c uint32) Case {
	return Case{Group: "stream", Name: fmt.Sprintf("command %d with garbage", c), On: OnGL, Do: func(v *VM) error {
		if err := state3D(v); err != nil {
			return err
		}
		for _, n := range []uint32{0, 1, 2, 3, 4, 5, 8, 12, 16, 33, 200} {
			for _, fill := range []uint32{0, 1, huge, 0x7fff_ffff, 0x8000_0000} {
				if c == cmdDraw && n == 12 && fill > 1 {
					continue // a draw of 2^31 vertices: a case of its own
				}
				s := []uint32{head(c, 0, n)}
				for range n {
					s = append(s, fill)
				}
				if err := v.Try(submit(ctxA, dwords(s...))); err != nil {
					return fmt.Errorf("%d dwords of %#x: %w", n, fill, err)
				}
			}
		}
		// An error makes a context deaf; start anew and send small numbers, which
		// are ids of real objects.
		for seed := range uint64(8) {
			rnd := rand.New(rand.NewPCG(seed, uint64(c)))
			var s []uint32
			for range 50 {
				n := rnd.Uint32N(20)
				s = append(s, head(c, rnd.Uint32N(13), n))
				for range n {
					s = append(s, rnd.Uint32N(12))
				}
			}
			if err := v.Try(bare(virtiogpu.CmdCtxDestroy, ctxA), createCtx(ctxA), ctxRes(virtiogpu.CmdCtxAttachResource, ctxA, res3D),
				ctxRes(virtiogpu.CmdCtxAttachResource, ctxA, resBuf), submit(ctxA, scene()), submit(ctxA, dwords(s...))); err != nil {
				return fmt.Errorf("small numbers, seed %d: %w", seed, err)
			}
		}
		return nil
	}}
}

func scene() []byte {
	var s virglcmd.Builder
	drawScene(&s)
	return bytes.Clone(s.Bytes())
}

// objects makes, binds and destroys objects of one type from wrong payloads.
func objects(o uint32) Case {
	return Case{Group: "stream", Name: fmt.Sprintf("objects of type %d", o), On: OnGL, Do: func(v *VM) error {
		if err := state3D(v); err != nil {
			return err
		}
		for _, n := range []uint32{0, 1, 2, 4, 5, 6, 9, 11, 30} {
			for _, fill := range []uint32{0, 1, 4, 7, huge} {
				s := []uint32{head(cmdCreate, o, n)}
				for i := range n {
					if i == 0 {
						s = append(s, 100+n)
						continue
					}
					s = append(s, fill)
				}
				s = append(s, head(cmdBind, o, 1), 100+n, head(cmdBind, o, 1), huge, head(cmdBind, o, 1), 0,
					head(cmdDestroy, o, 1), 100+n, head(cmdDestroy, o, 1), 100+n, head(cmdBind, o, 1), 100+n)
				if err := v.Try(submit(ctxA, dwords(s...)), submit(ctxA, scene())); err != nil {
					return fmt.Errorf("%d dwords of %#x: %w", n, fill, err)
				}
				if err := v.Try(bare(virtiogpu.CmdCtxDestroy, ctxA), createCtx(ctxA),
					ctxRes(virtiogpu.CmdCtxAttachResource, ctxA, res3D), ctxRes(virtiogpu.CmdCtxAttachResource, ctxA, resBuf)); err != nil {
					return err
				}
			}
		}
		return nil
	}}
}

func randomWords(seed uint64, n int) []byte {
	rnd := rand.New(rand.NewPCG(seed, seed))
	v := make([]uint32, n)
	for i := range v {
		v[i] = rnd.Uint32()
	}
	return dwords(v...)
}

func randomCommands(seed uint64, n int) []byte {
	rnd := rand.New(rand.NewPCG(seed, seed))
	var v []uint32
	for range n {
		l := rnd.Uint32N(24)
		c := rnd.Uint32N(lastCommand)
		if c == cmdDraw {
			l = min(l, 11) // see the draws
		}
		v = append(v, head(c, rnd.Uint32N(13), l))
		for range l {
			v = append(v, rnd.Uint32()>>(rnd.Uint32N(8)*4))
		}
	}
	return dwords(v...)
}

// cutScenes is many scenes, each with the last command shorter than it says.
func cutScenes() []byte {
	s := scene()
	var out []byte
	for n := 4; n < len(s); n += 4 {
		out = append(out, s[:n]...)
	}
	return out[:min(len(out), 1<<20)&^3]
}

func leaks(c Case) Case {
	c.Leaks = "virglrenderer (up to 1.3) forgets what PIPE_RESOURCE_CREATE made when the context ends before RESOURCE_CREATE_BLOB has taken it: vrend_destroy_context does not look at vrend_resources"
	return c
}

// viewCases use resources in ways that their size, kind or owner forbids.
func viewCases() []Case {
	const f = virglcmd.FormatB8G8R8A8
	view := func(name string, res, format, a, b uint32) Case {
		return words("sampler view "+name, head(cmdCreate, 6, 6), 50, res, format, a, b, 0o3210,
			head(cmdSamplerViews, 0, 3), 1, 0, 50)
	}
	surface := func(name string, res, format, a, b uint32) Case {
		return words("surface "+name, head(cmdCreate, 8, 5), 50, res, format, a, b, head(cmdFramebuffer, 0, 3), 1, 0, 50,
			head(cmdClear, 0, 8), 4, 0, 0, 0, 0, 0, 0, 0)
	}
	write := func(name string, res uint32, box virglcmd.Box, stride uint32, n int) Case {
		return built("inline write "+name, func(s *virglcmd.Builder) { s.InlineWrite(res, 0, box, stride, make([]byte, n)) })
	}
	cp := func(name string, dst, x, y, src uint32, box virglcmd.Box) Case {
		return built("copy "+name, func(s *virglcmd.Builder) { s.CopyRegion(dst, x, y, src, box) })
	}
	blit := func(name string, v ...uint32) Case {
		return words("blit "+name, append([]uint32{head(cmdBlit, 0, 21)}, v...)...)
	}
	transfer := func(name string, v ...uint32) Case {
		return words("stream transfer "+name, append([]uint32{head(cmdTransfer, 0, 13)}, v...)...)
	}
	w, h := uint32(resW), uint32(resH)
	return []Case{
		view("of what is not there", none, f, 0, 0), view("of another's resource", resAlien, f, 0, 0),
		view("of a buffer as a texture", resBuf, f, 0, huge), view("of levels all ones", res3D, f, huge, huge),
		view("of format all ones", res3D, huge, 0, 0), view("of format 0", res3D, 0, 0, 0),
		view("of target 15", res3D, f|15<<24, 0, 0), view("of a compressed format", res3D, 105, 0, 0),
		view("of layers beyond", res3D, f, 0xffff_0000, 0xff00),
		surface("of what is not there", none, f, 0, 0), surface("of another's resource", resAlien, f, 0, 0),
		surface("of a buffer", resBuf, f, 0, huge), surface("of level all ones", res3D, f, huge, 0),
		surface("of layer all ones", res3D, f, 0, huge), surface("of format all ones", res3D, huge, 0, 0),
		surface("of a depth format", res3D, 18, 0, 0),
		write("beyond the texture", res3D, virglcmd.Box{X: w, Y: h, W: 1, H: 1, D: 1}, 0, 4),
		write("of all ones", res3D, virglcmd.Box{X: huge, Y: huge, Z: huge, W: huge, H: huge, D: huge}, huge, 64),
		write("of more than its data", res3D, virglcmd.Box{W: w, H: h, D: 1}, 0, 64),
		write("with a stride of all ones", res3D, virglcmd.Box{W: w, H: h, D: 1}, huge, resBytes),
		write("whose stride wraps", res3D, virglcmd.Box{W: w, H: 32, D: 1}, 0x0800_0000, resBytes),
		write("at a negative place", resBuf, virglcmd.Box{X: 0xffff_fff0, W: 32, H: 1, D: 1}, 0, 32),
		write("beyond a buffer", resBuf, virglcmd.Box{X: 4092, W: 8, H: 1, D: 1}, 0, 8),
		write("to another's resource", resAlien, virglcmd.Box{W: 1, H: 1, D: 1}, 0, 4),
		write("to what is not there", none, virglcmd.Box{W: 1, H: 1, D: 1}, 0, 4),
		cp("beyond the source", res3D, 0, 0, res3D, virglcmd.Box{X: 60, Y: 30, W: w, H: h, D: 1}),
		cp("beyond the target", res3D, huge, huge, res3D, virglcmd.Box{W: w, H: h, D: 1}),
		cp("of all ones", res3D, 0, 0, res3D, virglcmd.Box{X: huge, Y: huge, Z: huge, W: huge, H: huge, D: huge}),
		cp("from a buffer to a texture", res3D, 0, 0, resBuf, virglcmd.Box{W: 64, H: 1, D: 1}),
		cp("from a texture to a buffer", resBuf, 0, 0, res3D, virglcmd.Box{W: w, H: h, D: 1}),
		cp("beyond a buffer", resBuf, 4000, 0, resBuf, virglcmd.Box{W: 4096, H: 1, D: 1}),
		cp("from another's resource", res3D, 0, 0, resAlien, virglcmd.Box{W: w, H: h, D: 1}),
		blit("of what is not there", 0xff, 0, 0, none, 0, f, 0, 0, 0, w, h, 1, none, 0, f, 0, 0, 0, w, h, 1),
		blit("of all ones", huge, huge, huge, res3D, huge, huge, huge, huge, huge, huge, huge, huge, res3D, huge, huge, huge, huge, huge, huge, huge, huge),
		blit("onto itself, turned over", 0xff, 0, 0, res3D, 0, f, w, h, 0, -w, -h, 1, res3D, 0, f, 0, 0, 0, w, h, 1),
		blit("from a buffer", 0xff, 0, 0, res3D, 0, f, 0, 0, 0, w, h, 1, resBuf, 0, f, 0, 0, 0, w, h, 1),
		blit("in a depth format", 0xff, 0, 0, res3D, 0, 18, 0, 0, 0, w, h, 1, res3D, 0, 18, 0, 0, 0, w, h, 1),
		blit("of the largest sizes", 0xff, 0, 0, res3D, 0, f, 0, 0, 0, 0x7fff_ffff, 0x7fff_ffff, 1, res3D, 0, f, 0, 0, 0, 0x7fff_ffff, 0x7fff_ffff, 1),
		transfer("of all ones", res3D, huge, huge, huge, huge, huge, huge, huge, huge, huge, huge, huge, huge),
		transfer("beyond the backing", res3D, 0, 0, 0, 0, 0, 0, 0, w, h, 1, 0x7fff_ffff, 1),
		transfer("in an unknown direction", res3D, 0, 0, 0, 0, 0, 0, 0, w, h, 1, 0, 3),
		transfer("of another's resource", resAlien, 0, 0, 0, 0, 0, 0, 0, w, h, 1, 0, 1),
		transfer("at a negative layer", res3D, 0, 0, 0, 0, 0, 0, 0x8000_0000, w, h, 1, 0, 1),
		transfer("whose stride wraps", res3D, 0, 0, 0x0800_0001, 0, 0, 0, 0, w, h, 1, 0, 2),
		words("copy transfer of all ones", head(cmdCopyTransfer, 0, 14), res3D, huge, huge, huge, huge, huge, huge, huge, huge, huge, huge, resBuf, huge, huge),
		words("copy transfer from another's buffer", head(cmdCopyTransfer, 0, 14), res3D, 0, 0, 0, 0, 0, 0, 0, w, h, 1, resAlien, 0, 0),
		words("copy transfer beyond the buffer", head(cmdCopyTransfer, 0, 14), res3D, 0, 0, 0, 0, 0, 0, 0, w, h, 1, resBuf, 4000, 0),
		words("clear texture of all ones", head(cmdClearTexture, 0, 12), res3D, huge, huge, huge, huge, huge, huge, huge, 1, 2, 3, 4),
		words("clear texture of a buffer", head(cmdClearTexture, 0, 12), resBuf, 0, 0, 0, 0, 64, 1, 1, 1, 2, 3, 4),
		words("pipe resource of all ones", head(cmdPipeResource, 0, 11), huge, huge, huge, huge, huge, huge, huge, huge, huge, huge, huge),
		leaks(words("pipe resource, a buffer of 128 MiB", head(cmdPipeResource, 0, 11), 0, 64, 1<<4, 128<<20, 1, 1, 1, 0, 0, 0, 5)),
		leaks(stream("10000 pipe resources that nobody takes", func() []byte {
			var v []uint32
			for i := range uint32(10000) {
				v = append(v, head(cmdPipeResource, 0, 11), 2, 1, 2, 8, 8, 1, 1, 0, 0, 0, i+1)
			}
			return dwords(v...)
		})),
	}
}

// drawCases bind too much, too little or the wrong thing, and draw.
func drawCases() []Case {
	draw := func(v ...uint32) []uint32 {
		d := []uint32{0, 3, 4, 0, 1, 0, 0, 0, 0, 0, 2, 0}
		copy(d, v)
		return append([]uint32{head(cmdDraw, 0, 12)}, d...)
	}
	then := func(name string, before []uint32, v ...uint32) Case {
		return words(name, append(before, draw(v...)...)...)
	}
	return []Case{
		then("draw with a mode of all ones", nil, 0, 3, huge),
		then("draw patches without tessellation", nil, 0, 3, 14),
		then("draw 10000 vertices from a buffer of 128", nil, 0, 10000, 4),
		then("draw from the far end", nil, 0x7fff_fff0, 3, 4),
		then("draw indexed without an index buffer", nil, 0, 3, 4, 1),
		then("draw indexed from what is not there", []uint32{head(cmdIndexBuffer, 0, 3), none, 4, 0}, 0, 3, 4, 1),
		then("draw indexed with an index size of 3", []uint32{head(cmdIndexBuffer, 0, 3), resBuf, 3, 0}, 0, 3, 4, 1),
		then("draw indexed with an index size of all ones", []uint32{head(cmdIndexBuffer, 0, 3), resBuf, huge, huge}, 0, 3, 4, 1),
		then("draw indexed beyond the buffer", []uint32{head(cmdIndexBuffer, 0, 3), resBuf, 4, 4092}, 0, 300, 4, 1),
		then("draw indexed from the far end", []uint32{head(cmdIndexBuffer, 0, 3), resBuf, 4, 0xffff_fffc}, 0, 30, 4, 1),
		then("draw indexed with a bias of all ones", []uint32{head(cmdIndexBuffer, 0, 3), resBuf, 1, 0}, 0, 30, 4, 1, 1, huge),
		then("draw indexed from a texture", []uint32{head(cmdIndexBuffer, 0, 3), res3D, 4, 0}, 0, 30, 4, 1),
		then("draw with a first instance of all ones", nil, 0, 3, 4, 0, 1, 0, huge),
		then("draw with a count from a stream out that is not there", nil, 0, 0, 4, 0, 1, 0, 0, 0, 0, 0, 0, 77),
		then("vertex stride of all ones", []uint32{head(cmdVertexBufs, 0, 3), huge, 0, resBuf}),
		then("vertex offset of all ones", []uint32{head(cmdVertexBufs, 0, 3), 32, huge, resBuf}),
		then("vertices from another's resource", []uint32{head(cmdVertexBufs, 0, 3), 32, 0, resAlien}),
		then("vertices from a texture", []uint32{head(cmdVertexBufs, 0, 3), 32, 0, res3D}),
		then("vertices from nothing", []uint32{head(cmdVertexBufs, 0, 3), 32, 0, 0}),
		then("no vertex buffers", []uint32{head(cmdVertexBufs, 0, 0)}),
		words("1000 vertex buffers", append([]uint32{head(cmdVertexBufs, 0, 3000)}, make([]uint32, 3000)...)...),
		words("1000 sampler views", append([]uint32{head(cmdSamplerViews, 0, 1002), 1, 0}, make([]uint32, 1000)...)...),
		words("sampler views from slot all ones", head(cmdSamplerViews, 0, 3), 1, huge, 0),
		words("sampler views of stage 77", head(cmdSamplerViews, 0, 3), 77, 0, 0),
		words("1000 samplers", append([]uint32{head(cmdBindSamplers, 0, 1002), 1, 0}, make([]uint32, 1000)...)...),
		words("samplers from slot all ones", head(cmdBindSamplers, 0, 3), 1, huge, 0),
		words("1000 colour buffers", append([]uint32{head(cmdFramebuffer, 0, 1002), 1000, 0}, make([]uint32, 1000)...)...),
		words("colour buffers of all ones", head(cmdFramebuffer, 0, 3), huge, 0, 1),
		words("17 viewports", append([]uint32{head(cmdViewport, 0, 1+6*17), 0}, make([]uint32, 6*17)...)...),
		words("viewport slot all ones", head(cmdViewport, 0, 7), huge, 0, 0, 0, 0, 0, 0),
		words("viewport of no numbers", head(cmdViewport, 0, 7), 0, 0x7fc0_0000, 0x7fc0_0000, 0x7f80_0000, 0xff80_0000, 0x7fc0_0000, 0x7f80_0000),
		words("scissor slot all ones", head(cmdScissor, 0, 3), huge, huge, huge),
		words("constants of 65535 dwords", append([]uint32{head(cmdConstants, 0, 0xffff), 1, 0}, make([]uint32, 0xffff-2)...)...),
		words("constants of stage 77", head(cmdConstants, 0, 6), 77, 0, 1, 2, 3, 4),
		words("uniform buffer slot all ones", head(cmdUniformBuf, 0, 5), 1, huge, 0, 64, resBuf),
		words("uniform buffer beyond its end", head(cmdUniformBuf, 0, 5), 1, 1, 0xffff_fff0, 0x100, resBuf),
		words("shader buffers from slot all ones", head(cmdShaderBufs, 0, 5), 1, huge, 0, 64, resBuf),
		words("shader buffers of 1000", append([]uint32{head(cmdShaderBufs, 0, 3002), 1, 0}, make([]uint32, 3000)...)...),
		words("shader images of all ones", head(cmdShaderImages, 0, 7), 1, huge, huge, huge, huge, huge, res3D),
		words("atomic buffers of all ones", head(cmdAtomics, 0, 4), huge, huge, huge, resBuf),
		words("stream out of what is not there", head(cmdStreamOut, 0, 3), huge, 77, 78),
		words("compute without a shader", head(cmdLaunchGrid, 0, 8), 1, 1, 1, 1, 1, 1, 0, 0),
		words("compute of all ones", head(cmdLaunchGrid, 0, 8), huge, huge, huge, huge, huge, huge, huge, huge),
		words("query of an unknown kind", head(cmdCreate, 9, 4), 60, huge, 0, resBuf, head(cmdBeginQuery, 0, 1), 60),
		words("query without end", head(cmdCreate, 9, 4), 60, 0, 0, resBuf, head(cmdBeginQuery, 0, 1), 60, head(cmdBeginQuery, 0, 1), 60, head(cmdQueryResult, 0, 2), 60, 1),
		words("query without begin", head(cmdCreate, 9, 4), 60, 0, 0, resBuf, head(cmdEndQuery, 0, 1), 60, head(cmdQueryResult, 0, 2), 60, 1),
		words("query into what is not there", head(cmdCreate, 9, 4), 60, 0, huge, none, head(cmdBeginQuery, 0, 1), 60, head(cmdEndQuery, 0, 1), 60),
		words("query into a texture", head(cmdCreate, 9, 4), 60, 0, huge, res3D, head(cmdBeginQuery, 0, 1), 60, head(cmdEndQuery, 0, 1), 60, head(cmdQueryResult, 0, 2), 60, 1),
		words("query destroyed while it waits", head(cmdCreate, 9, 4), 60, 0, 0, resBuf, head(cmdBeginQuery, 0, 1), 60, head(cmdEndQuery, 0, 1), 60, head(cmdQueryResult, 0, 2), 60, 0, head(cmdDestroy, 9, 1), 60),
		words("query result into a buffer's far end", head(cmdCreate, 9, 4), 60, 0, 0, resBuf, head(cmdBeginQuery, 0, 1), 60, head(cmdEndQuery, 0, 1), 60, head(cmdQueryBuffer, 0, 6), 60, resBuf, 1, 1, 0xffff_fff0, 0),
		stream("100000 objects", func() []byte {
			var s virglcmd.Builder
			for i := range uint32(20000) {
				s.CreateDSA(1000 + i)
			}
			return bytes.Clone(s.Bytes())
		}),
		stream("10000 surfaces on one texture", func() []byte {
			var s virglcmd.Builder
			for i := range uint32(10000) {
				s.CreateSurface(1000+i, res3D, virglcmd.FormatB8G8R8A8, 0, 0)
			}
			return bytes.Clone(s.Bytes())
		}),
	}
}

// subContextCases switch, destroy and forget sub-contexts.
func subContextCases() []Case {
	return []Case{
		words("set a sub-context that is not there", head(cmdSetSub, 0, 1), 77, head(cmdClear, 0, 8), 4, 0, 0, 0, 0, 0, 0, 0),
		words("destroy sub-context 0", head(cmdDestroySub, 0, 1), 0, head(cmdClear, 0, 8), 4, 0, 0, 0, 0, 0, 0, 0),
		words("destroy the sub-context in use", head(cmdCreateSub, 0, 1), 5, head(cmdSetSub, 0, 1), 5, head(cmdDestroySub, 0, 1), 5,
			head(cmdClear, 0, 8), 4, 0, 0, 0, 0, 0, 0, 0, head(cmdDestroySub, 0, 1), 5),
		words("make a sub-context twice", head(cmdCreateSub, 0, 1), 5, head(cmdCreateSub, 0, 1), 5, head(cmdDestroySub, 0, 1), 5),
		stream("20 sub-contexts, never destroyed", func() []byte {
			var v []uint32
			for i := range uint32(20) {
				v = append(v, head(cmdCreateSub, 0, 1), i+1)
			}
			return dwords(v...)
		}),
		built("objects of another sub-context", func(s *virglcmd.Builder) {
			s.CreateSubCtx(3)
			s.SetSubCtx(3)
			for o := virglcmd.ObjectBlend; o <= virglcmd.ObjectSurface; o++ {
				for handle := range uint32(8) {
					s.BindObject(o, handle)
				}
			}
			s.Draw(virglcmd.TriangleStrip, 0, 4)
		}),
	}
}
