package hostile

import (
	"fmt"

	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

// state3D is two contexts, of which ctxA has drawn a picture with a whole
// pipeline: garbage then meets real objects, handles 1 to 7.
func state3D(v *VM) error {
	if err := state2D(v); err != nil {
		return err
	}
	a, err := v.Block(resBytes)
	if err != nil {
		return err
	}
	b, err := v.Block(resBytes)
	if err != nil {
		return err
	}
	c, err := v.Block(4096)
	if err != nil {
		return err
	}
	var s virglcmd.Builder
	drawScene(&s)
	return v.OK(createCtx(ctxA), createCtx(ctxB),
		create3D(texture(res3D, resW, resH)), attachBlock(res3D, a), ctxRes(virtiogpu.CmdCtxAttachResource, ctxA, res3D),
		create3D(texture(resAlien, resW, resH)), attachBlock(resAlien, b),
		create3D(buffer(resBuf, 4096)), attachBlock(resBuf, c), ctxRes(virtiogpu.CmdCtxAttachResource, ctxA, resBuf),
		submit(ctxA, s.Bytes()))
}

// drawScene draws a gradient on res3D.
func drawScene(s *virglcmd.Builder) {
	data := virglcmd.AppendVertices(nil, virglcmd.Quad([4]float32{1, 0, 0, 1}, [4]float32{0, 1, 0, 1})...)
	s.InlineWrite(resBuf, 0, virglcmd.Box{W: uint32(len(data)), H: 1, D: 1}, 0, data)
	s.Pipeline(virglcmd.HandlesFrom(1), res3D, virglcmd.FormatB8G8R8A8, resW, resH, resBuf, virglcmd.FragmentShader)
	s.Clear(virglcmd.ClearColor0, [4]float32{0, 0, 0, 1}, 0, 0)
	s.Draw(virglcmd.TriangleStrip, 0, 4)
}

func contextCases() []Case {
	out := commands("context", OnGL, nil, state3D, tableContexts)
	out = append(out, commands("3d", OnGL, nil, state3D, tableCreate3D)...)
	out = append(out, commands("transfer", OnGL, nil, state3D, tableTransfers)...)
	out = append(out, commands("classic", OnGL, &vhostusertest.QEMU11A, state3D, tableClassic)...)
	return append(out, commands("no 3d", On2D, nil, state2D, tableNo3D)...)
}

func tableContexts(*VM) ([]Command, error) {
	named := virtiogpu.CtxCreate{CtrlHdr: ctxHdr(none), NLen: huge}
	for i := range named.Name {
		named.Name[i] = 0xff
	}
	return []Command{
		{"create context 0", createCtx(0), noContext, false},
		{"create one that exists", createCtx(ctxA), noContext, false},
		{"create the largest id", createCtx(huge), fine, false},
		{"create with a name that has no end", named.Append(nil), fine, false},
		{"create for venus", (&virtiogpu.CtxCreate{CtrlHdr: ctxHdr(none), ContextInit: 4}).Append(nil), bad, false},
		{"create for native DRM", (&virtiogpu.CtxCreate{CtrlHdr: ctxHdr(none), ContextInit: 6}).Append(nil), bad, false},
		{"create for capset 255", (&virtiogpu.CtxCreate{CtrlHdr: ctxHdr(none), ContextInit: 255}).Append(nil), bad, false},
		{"create with every init bit", (&virtiogpu.CtxCreate{CtrlHdr: ctxHdr(none), ContextInit: huge}).Append(nil), anError, false},
		{"destroy context 0", bare(virtiogpu.CmdCtxDestroy, 0), noContext, false},
		{"destroy what is not there", bare(virtiogpu.CmdCtxDestroy, none), noContext, false},
		{"attach to what is not there", ctxRes(virtiogpu.CmdCtxAttachResource, none, res3D), noContext, false},
		{"attach to context 0", ctxRes(virtiogpu.CmdCtxAttachResource, 0, res3D), noContext, false},
		{"attach what is not there", ctxRes(virtiogpu.CmdCtxAttachResource, ctxA, none), noResource, false},
		{"attach twice", ctxRes(virtiogpu.CmdCtxAttachResource, ctxA, res3D), fine, false},
		{"attach a 2D resource", ctxRes(virtiogpu.CmdCtxAttachResource, ctxA, res2D), fine, false},
		{"attach a 2D resource without backing", ctxRes(virtiogpu.CmdCtxAttachResource, ctxA, resBare), fine, false},
		{"detach from what is not there", ctxRes(virtiogpu.CmdCtxDetachResource, none, res3D), noContext, false},
		{"detach what is not attached", ctxRes(virtiogpu.CmdCtxDetachResource, ctxB, res3D), noResource, false},
		{"detach what is not there", ctxRes(virtiogpu.CmdCtxDetachResource, ctxA, none), noResource, false},
		{"capset info beyond the last", (&virtiogpu.GetCapsetInfo{CapsetIndex: 7}).Append(nil), bad, false},
		{"capset version too high", (&virtiogpu.GetCapset{CapsetID: 1, CapsetVersion: huge}).Append(nil), bad, false},
		{"submit to what is not there", submit(none, make([]byte, 8)), noContext, false},
		{"submit to context 0", submit(0, make([]byte, 8)), noContext, false},
		{"submit an odd size", submit(ctxA, make([]byte, 7)), bad, false},
		{"submit nothing", submit(ctxA, nil), anAnswer, false},
		{"submit more than there is", (&virtiogpu.Submit3D{CtrlHdr: ctxHdr(ctxA), Size: 64}).Append(nil), bad, false},
		{"submit a size of all ones", (&virtiogpu.Submit3D{CtrlHdr: ctxHdr(ctxA), Size: huge}).Append(nil), bad, false},
		{"submit above the limit", submit(ctxA, make([]byte, virtiogpu.MaxCommandSize)), outOfMemory, false},
		{"submit 1 MiB of zeros", submit(ctxA, make([]byte, 1<<20)), anAnswer, false},
	}, nil
}

func tableCreate3D(*VM) ([]Command, error) {
	t := func(name string, want Want, change func(c *virtiogpu.ResourceCreate3D)) Command {
		c := texture(none, resW, resH)
		change(&c)
		return Command{"create " + name, create3D(c), want, false}
	}
	out := []Command{
		t("with id 0", noResource, func(c *virtiogpu.ResourceCreate3D) { c.ResourceID = 0 }),
		t("with a taken id", noResource, func(c *virtiogpu.ResourceCreate3D) { c.ResourceID = res2D }),
		t("with target all ones", anError, func(c *virtiogpu.ResourceCreate3D) { c.Target = huge }),
		t("with format 0", anError, func(c *virtiogpu.ResourceCreate3D) { c.Format = 0 }),
		t("with format all ones", anError, func(c *virtiogpu.ResourceCreate3D) { c.Format = huge }),
		t("with format just beyond the last", anError, func(c *virtiogpu.ResourceCreate3D) { c.Format = 1000 }),
		t("with bind 0", anAnswer, func(c *virtiogpu.ResourceCreate3D) { c.Bind = 0 }),
		t("with bind all ones", anAnswer, func(c *virtiogpu.ResourceCreate3D) { c.Bind = huge }),
		t("for system memory with a target", anAnswer, func(c *virtiogpu.ResourceCreate3D) { c.Bind = 1 << 17 }),
		t("with width 0", anAnswer, func(c *virtiogpu.ResourceCreate3D) { c.Width = 0 }),
		t("with height 0", anAnswer, func(c *virtiogpu.ResourceCreate3D) { c.Height = 0 }),
		t("with size all ones", anError, func(c *virtiogpu.ResourceCreate3D) { c.Width, c.Height = huge, huge }),
		t("with size 65536", anError, func(c *virtiogpu.ResourceCreate3D) { c.Width, c.Height = 65536, 65536 }),
		t("with size 32768", anAnswer, func(c *virtiogpu.ResourceCreate3D) { c.Width, c.Height = 32768, 32768 }),
		t("with depth 0", anAnswer, func(c *virtiogpu.ResourceCreate3D) { c.Depth = 0 }),
		t("with depth all ones", anError, func(c *virtiogpu.ResourceCreate3D) { c.Depth = huge }),
		t("with array size 0", anAnswer, func(c *virtiogpu.ResourceCreate3D) { c.ArraySize = 0 }),
		t("with array size all ones", anError, func(c *virtiogpu.ResourceCreate3D) { c.ArraySize = huge }),
		t("with levels all ones", anError, func(c *virtiogpu.ResourceCreate3D) { c.LastLevel = huge }),
		t("with one level too many", anAnswer, func(c *virtiogpu.ResourceCreate3D) { c.LastLevel = 7 }),
		t("with 64 levels", anError, func(c *virtiogpu.ResourceCreate3D) { c.LastLevel = 64 }),
		t("with samples all ones", anError, func(c *virtiogpu.ResourceCreate3D) { c.NrSamples = huge }),
		t("with samples and levels", anError, func(c *virtiogpu.ResourceCreate3D) { c.NrSamples, c.LastLevel = 4, 2 }),
		t("with flags all ones", anAnswer, func(c *virtiogpu.ResourceCreate3D) { c.Flags = huge }),
		t("a buffer of all ones", anAnswer, func(c *virtiogpu.ResourceCreate3D) {
			*c = buffer(none, huge)
		}),
		t("a buffer of 2 GiB", anAnswer, func(c *virtiogpu.ResourceCreate3D) { *c = buffer(none, 1<<31) }),
		t("a buffer of 0 bytes", anAnswer, func(c *virtiogpu.ResourceCreate3D) { *c = buffer(none, 0) }),
		t("a buffer with a height", anAnswer, func(c *virtiogpu.ResourceCreate3D) { *c = buffer(none, 64); c.Height = 64 }),
		t("a buffer with samples", anAnswer, func(c *virtiogpu.ResourceCreate3D) { *c = buffer(none, 64); c.NrSamples = 4 }),
		t("a cube that is no square", anAnswer, func(c *virtiogpu.ResourceCreate3D) { c.Target, c.ArraySize = 4, 6 }),
		t("a cube with one face", anAnswer, func(c *virtiogpu.ResourceCreate3D) { c.Target, c.Height = 4, resW }),
		t("a 3D texture of 2048 cubed", anAnswer, func(c *virtiogpu.ResourceCreate3D) { c.Target, c.Width, c.Height, c.Depth = 3, 2048, 2048, 2048 }),
		t("depth and stencil as a colour", anAnswer, func(c *virtiogpu.ResourceCreate3D) { c.Format = 18 }),
		t("a compressed render target", anAnswer, func(c *virtiogpu.ResourceCreate3D) { c.Format = 105 }),
		t("planar video", anAnswer, func(c *virtiogpu.ResourceCreate3D) { c.Format = 166 }),
	}
	for target := uint32(1); target < 12; target++ {
		out = append(out, t(fmt.Sprintf("with target %d and everything set", target), anAnswer, func(c *virtiogpu.ResourceCreate3D) {
			c.Target, c.Depth, c.ArraySize, c.LastLevel, c.NrSamples, c.Flags = target, 5, 7, 3, 3, 3
		}))
	}
	return out, nil
}

func tableTransfers(*VM) ([]Command, error) {
	good := virtiogpu.TransferHost3D{CtrlHdr: ctxHdr(ctxA), ResourceID: res3D, Box: virtiogpu.Box{W: resW, H: resH, D: 1}}
	var out []Command
	for _, dir := range []struct {
		name string
		typ  virtiogpu.Type
	}{{"to host ", virtiogpu.CmdTransferToHost3D}, {"from host ", virtiogpu.CmdTransferFromHost3D}} {
		t := func(name string, want Want, change func(c *virtiogpu.TransferHost3D)) {
			c := good
			change(&c)
			out = append(out, Command{dir.name + name, transfer3D(dir.typ, c), want, false})
		}
		t("of what is not there", noResource, func(c *virtiogpu.TransferHost3D) { c.ResourceID = none })
		t("of a 2D resource", noResource, func(c *virtiogpu.TransferHost3D) { c.CtxID, c.ResourceID = 0, res2D })
		t("in a context that is not there", noContext, func(c *virtiogpu.TransferHost3D) { c.CtxID = none })
		t("in a foreign context", noResource, func(c *virtiogpu.TransferHost3D) { c.CtxID = ctxB })
		t("of another's resource", noResource, func(c *virtiogpu.TransferHost3D) { c.ResourceID = resAlien })
		t("one texel to the right", bad, func(c *virtiogpu.TransferHost3D) { c.Box.X = 1 })
		t("one texel below", bad, func(c *virtiogpu.TransferHost3D) { c.Box.Y = 1 })
		t("one layer behind", bad, func(c *virtiogpu.TransferHost3D) { c.Box.Z = 1 })
		t("two layers", bad, func(c *virtiogpu.TransferHost3D) { c.Box.D = 2 })
		t("whose edge wraps", bad, func(c *virtiogpu.TransferHost3D) { c.Box.X, c.Box.W = huge, 2 })
		t("at negative x", bad, func(c *virtiogpu.TransferHost3D) { c.Box.X, c.Box.W = 0x8000_0000, 1 })
		t("at negative z", bad, func(c *virtiogpu.TransferHost3D) { c.Box.Z = 0x8000_0000 })
		t("of a box of all ones", bad, func(c *virtiogpu.TransferHost3D) {
			c.Box = virtiogpu.Box{X: huge, Y: huge, Z: huge, W: huge, H: huge, D: huge}
		})
		t("of nothing", anAnswer, func(c *virtiogpu.TransferHost3D) { c.Box = virtiogpu.Box{} })
		t("of no depth", anAnswer, func(c *virtiogpu.TransferHost3D) { c.Box.D = 0 })
		t("of level 1", bad, func(c *virtiogpu.TransferHost3D) { c.Level = 1 })
		t("of level all ones", bad, func(c *virtiogpu.TransferHost3D) { c.Level = huge })
		t("with a stride of all ones", bad, func(c *virtiogpu.TransferHost3D) { c.Stride = huge })
		t("with a stride whose product wraps", bad, func(c *virtiogpu.TransferHost3D) { c.Stride = 0x0800_0001 })
		t("with a stride below a row", anAnswer, func(c *virtiogpu.TransferHost3D) { c.Stride = 4 })
		t("with a stride above a row", anError, func(c *virtiogpu.TransferHost3D) { c.Stride = resW*4 + 4 })
		t("with a layer stride of all ones", bad, func(c *virtiogpu.TransferHost3D) { c.LayerStride = huge })
		t("with a small layer stride", anAnswer, func(c *virtiogpu.TransferHost3D) { c.LayerStride = 4 })
		t("one byte beyond the backing", bad, func(c *virtiogpu.TransferHost3D) { c.Offset = 1 })
		t("far beyond the backing", bad, func(c *virtiogpu.TransferHost3D) { c.Offset = 1 << 40 })
		t("with an offset that wraps", bad, func(c *virtiogpu.TransferHost3D) { c.Offset = ^uint64(0) - 3 })
		t("with a negative offset", bad, func(c *virtiogpu.TransferHost3D) { c.Offset = 1 << 63 })
		t("of a buffer beyond its end", bad, func(c *virtiogpu.TransferHost3D) {
			c.ResourceID, c.Box = resBuf, virtiogpu.Box{X: 4000, W: 100, H: 1, D: 1}
		})
		t("of a buffer with a height", bad, func(c *virtiogpu.TransferHost3D) {
			c.ResourceID, c.Box = resBuf, virtiogpu.Box{W: 100, H: 2, D: 1}
		})
		t("of a buffer with strides", anAnswer, func(c *virtiogpu.TransferHost3D) {
			c.ResourceID, c.Box, c.Stride, c.LayerStride = resBuf, virtiogpu.Box{W: 4096, H: 1, D: 1}, 1, 1
		})
	}
	return out, nil
}

// tableClassic is what QEMU's own device did not agree on.
func tableClassic(*VM) ([]Command, error) {
	return []Command{
		{"blob without the feature", createBlob(0, virtiogpu.ResourceCreateBlob{ResourceID: none, BlobMem: 2, Size: 4096}, 0), unspec, false},
		{"map without the feature", mapBlob(res3D, 0), unspec, false},
		{"unmap without the feature", unmapBlob(res3D), unspec, false},
		{"blob scanout without the feature", (&virtiogpu.SetScanoutBlob{ResourceID: res3D, Width: 8, Height: 8}).Append(nil), unspec, false},
		{"context init without the feature", (&virtiogpu.CtxCreate{CtrlHdr: ctxHdr(none), ContextInit: huge}).Append(nil), fine, false},
	}, nil
}

// tableNo3D is 3D where the guest was not told of any.
func tableNo3D(*VM) ([]Command, error) {
	var out []Command
	for _, c := range []struct {
		name string
		cmd  []byte
	}{
		{"create a context", createCtx(1)},
		{"destroy a context", bare(virtiogpu.CmdCtxDestroy, 1)},
		{"create 3D", create3D(texture(none, 8, 8))},
		{"submit", submit(1, make([]byte, 64))},
		{"attach to a context", ctxRes(virtiogpu.CmdCtxAttachResource, 1, res2D)},
		{"transfer to host", transfer3D(virtiogpu.CmdTransferToHost3D, virtiogpu.TransferHost3D{ResourceID: res2D, Box: virtiogpu.Box{W: 1, H: 1, D: 1}})},
		{"transfer from host", transfer3D(virtiogpu.CmdTransferFromHost3D, virtiogpu.TransferHost3D{ResourceID: res2D, Box: virtiogpu.Box{W: 1, H: 1, D: 1}})},
		{"renderer's blob", createBlob(1, virtiogpu.ResourceCreateBlob{ResourceID: none, BlobMem: 2, BlobID: 1, Size: 4096}, 0)},
		{"capset info", (&virtiogpu.GetCapsetInfo{}).Append(nil)},
		{"capset", (&virtiogpu.GetCapset{CapsetID: 1}).Append(nil)},
	} {
		out = append(out, Command{c.name, c.cmd, anError, false})
	}
	return out, nil
}
