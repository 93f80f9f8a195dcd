package appwindow

import (
	"fmt"

	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

// gpu is the GPU driver of a fake guest's program: one context that clears textures.
type gpu struct {
	guest   *fakeguest.Guest
	b       virglcmd.Builder
	ctx     uint32
	object  uint32
	texture uint32
}

// openGPU connects to the broker and makes a context of a name.
func openGPU(socket, name string) (*gpu, error) {
	guest, err := fakeguest.Dial(socket, fakeguest.Config{Profile: vhostusertest.QEMU11A})
	if err != nil {
		return nil, err
	}
	g := &gpu{guest: guest, ctx: 1}
	create := virtiogpu.CtxCreate{CtrlHdr: g.header(virtiogpu.CmdCtxCreate)}
	create.NLen = uint32(copy(create.Name[:], name))
	if err = guest.Boot(); err == nil {
		err = g.do(create.Append)
	}
	if err == nil {
		g.b.CreateSubCtx(1)
		g.b.SetSubCtx(1)
		err = g.submit()
	}
	if err != nil {
		guest.Quit()
		return nil, err
	}
	return g, nil
}

func (g *gpu) header(t virtiogpu.Type) virtiogpu.CtrlHdr {
	return virtiogpu.CtrlHdr{Type: t, CtxID: g.ctx}
}

func (g *gpu) do(appendTo func([]byte) []byte) error {
	resp := make([]byte, virtiogpu.SizeCtrlHdr)
	n, err := g.guest.Do(appendTo(nil), resp)
	if err != nil {
		return err
	}
	var answer virtiogpu.CtrlHdr
	if err := answer.Decode(resp[:n]); err != nil {
		return err
	}
	if answer.Type != virtiogpu.RespOKNoData {
		return fmt.Errorf("answered with %v", answer.Type)
	}
	return nil
}

// submit runs what was built; the answer comes when it is queued, as for a program
// that does not wait for its GPU.
func (g *gpu) submit() error {
	s := virtiogpu.Submit3D{CtrlHdr: g.header(virtiogpu.CmdSubmit3D), Size: uint32(len(g.b.Bytes()))}
	body := append(s.Append(nil), g.b.Bytes()...)
	g.b.Reset()
	return g.do(func(dst []byte) []byte { return append(dst, body...) })
}

// newTexture makes a BGRX texture and returns its resource id.
func (g *gpu) newTexture(w, h int) (uint32, error) {
	g.texture++
	c := virtiogpu.ResourceCreate3D{
		ResourceID: g.texture, Target: virglcmd.TargetTexture2D, Format: virglcmd.FormatB8G8R8X8,
		Bind:  virglcmd.BindRenderTarget | virglcmd.BindSamplerView | virglcmd.BindScanout,
		Width: uint32(w), Height: uint32(h), Depth: 1, ArraySize: 1, Flags: virtiogpu.ResourceFlagY0Top,
	}
	if err := g.do(c.Append); err != nil {
		return 0, err
	}
	a := virtiogpu.CtxResource{CtrlHdr: g.header(virtiogpu.CmdCtxAttachResource), ResourceID: c.ResourceID}
	return c.ResourceID, g.do(a.Append)
}

// clear fills a texture with a colour, 0x00RRGGBB.
func (g *gpu) clear(texture, rgb uint32) error {
	g.object++
	g.b.CreateSurface(g.object, texture, virglcmd.FormatB8G8R8X8, 0, 0)
	g.b.SetFramebuffer(g.object)
	part := func(shift int) float32 { return float32(rgb>>shift&0xff) / 255 }
	g.b.Clear(virglcmd.ClearColor0, [4]float32{part(16), part(8), part(0), 1}, 0, 0)
	g.b.SetFramebuffer(0) // or it would keep the texture beyond its unref
	g.b.DestroyObject(virglcmd.ObjectSurface, g.object)
	return g.submit()
}
