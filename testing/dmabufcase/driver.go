package dmabufcase

import (
	"fmt"
	"image"

	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

// The guest's own numbers.
const (
	guestContext   = 1
	vertexResource = 1
	firstResource  = 2
	firstObject    = 100 // below are the objects that live as long as the context
)

// vertexBytes is the room for one draw's vertices.
const vertexBytes = 256 << 10

// guestRAM holds the backing of the largest 2D resource several times.
const guestRAM = 96 << 20

// driver is the fake guest's GPU driver: one context with a pipeline that draws
// coloured triangles.
type driver struct {
	g        *fakeguest.Guest
	b        virglcmd.Builder
	cmd      []byte
	resp     []byte
	vertices []byte
	resource uint32
	object   uint32
	fence    uint64
}

func newDriver(socket string) (*driver, error) {
	g, err := fakeguest.Dial(socket, fakeguest.Config{Profile: vhostusertest.QEMU11A, RAMSize: guestRAM})
	if err != nil {
		return nil, err
	}
	d := &driver{g: g, resp: make([]byte, virtiogpu.SizeCtrlHdr), resource: firstResource, object: firstObject}
	if err := d.boot(); err != nil {
		g.Quit()
		return nil, err
	}
	return d, nil
}

func (d *driver) boot() error {
	if err := d.g.Boot(); err != nil {
		return err
	}
	create := virtiogpu.CtxCreate{CtrlHdr: ctxHdr(virtiogpu.CmdCtxCreate)}
	create.NLen = uint32(copy(create.Name[:], "dmabufcase"))
	if err := d.do(create.Append); err != nil {
		return err
	}
	err := d.create3D(virtiogpu.ResourceCreate3D{
		ResourceID: vertexResource, Target: virglcmd.TargetBuffer, Format: virglcmd.FormatR8, Bind: virglcmd.BindVertexBuffer,
		Width: vertexBytes, Height: 1, Depth: 1, ArraySize: 1,
	})
	if err != nil {
		return err
	}
	b := &d.b
	b.CreateSubCtx(1)
	b.SetSubCtx(1)
	b.CreateBlend(1)
	b.BindObject(virglcmd.ObjectBlend, 1)
	b.CreateRasterizer(2, false)
	b.BindObject(virglcmd.ObjectRasterizer, 2)
	b.CreateDSA(3)
	b.BindObject(virglcmd.ObjectDSA, 3)
	b.CreateVertexElements(4, virglcmd.VertexElement{Format: virglcmd.FormatR32G32B32A32Float},
		virglcmd.VertexElement{Offset: 16, Format: virglcmd.FormatR32G32B32A32Float})
	b.BindObject(virglcmd.ObjectVertexElements, 4)
	b.CreateShader(5, virglcmd.StageVertex, virglcmd.VertexShader)
	b.BindShader(5, virglcmd.StageVertex)
	b.CreateShader(6, virglcmd.StageFragment, virglcmd.FragmentShader)
	b.BindShader(6, virglcmd.StageFragment)
	b.SetVertexBuffers(virglcmd.VertexBuffer{Stride: virglcmd.VertexSize, Resource: vertexResource})
	return d.submit()
}

func ctxHdr(t virtiogpu.Type) virtiogpu.CtrlHdr {
	return virtiogpu.CtrlHdr{Type: t, CtxID: guestContext}
}

// fenced is the header of a command whose answer comes when the work is done.
func (d *driver) fenced(t virtiogpu.Type, ctx uint32) virtiogpu.CtrlHdr {
	d.fence++
	return virtiogpu.CtrlHdr{Type: t, CtxID: ctx, Flags: virtiogpu.FlagFence, FenceID: d.fence}
}

// do sends a command on the control queue and wants RESP_OK_NODATA.
func (d *driver) do(appendTo func([]byte) []byte) error { return d.doOn(d.g.Ctrl, appendTo) }

func (d *driver) doOn(q *fakeguest.Queue, appendTo func([]byte) []byte) error {
	d.cmd = appendTo(d.cmd[:0])
	n, err := q.Do(d.cmd, d.resp)
	if err != nil {
		return err
	}
	return d.checkOK(d.resp[:n])
}

func (d *driver) checkOK(resp []byte) error {
	var cmd, answer virtiogpu.CtrlHdr
	if err := cmd.Decode(d.cmd); err != nil {
		return err
	}
	if err := answer.Decode(resp); err != nil {
		return fmt.Errorf("%v: %w", cmd.Type, err)
	}
	if answer.Type != virtiogpu.RespOKNoData {
		return fmt.Errorf("%v: answered with %v", cmd.Type, answer.Type)
	}
	if answer.FenceID != cmd.FenceID {
		return fmt.Errorf("%v: fence %d came back as %d", cmd.Type, cmd.FenceID, answer.FenceID)
	}
	return nil
}

// later sends a command without waiting for its answer, which await wants.
func (d *driver) later(ops []*fakeguest.Op, appendTo func([]byte) []byte) ([]*fakeguest.Op, error) {
	d.cmd = appendTo(d.cmd[:0])
	op, err := d.g.Ctrl.Submit(d.cmd, virtiogpu.SizeCtrlHdr)
	if err != nil {
		return ops, err
	}
	return append(ops, op), nil
}

func (d *driver) await(ops []*fakeguest.Op) error {
	for i, op := range ops {
		n, err := d.g.Ctrl.Wait(op, d.resp, fakeguest.Timeout)
		if err != nil {
			return err
		}
		var answer virtiogpu.CtrlHdr
		if err := answer.Decode(d.resp[:n]); err != nil {
			return err
		}
		if answer.Type != virtiogpu.RespOKNoData {
			return fmt.Errorf("command %d of %d in flight: answered with %v", i+1, len(ops), answer.Type)
		}
	}
	return nil
}

func (d *driver) create3D(c virtiogpu.ResourceCreate3D) error {
	if err := d.do(c.Append); err != nil {
		return err
	}
	a := virtiogpu.CtxResource{CtrlHdr: ctxHdr(virtiogpu.CmdCtxAttachResource), ResourceID: c.ResourceID}
	return d.do(a.Append)
}

// submit sends what the builder holds, fenced, and empties it.
func (d *driver) submit() error {
	return d.do(d.appendSubmit)
}

func (d *driver) appendSubmit(dst []byte) []byte {
	s := virtiogpu.Submit3D{CtrlHdr: d.fenced(virtiogpu.CmdSubmit3D, guestContext), Size: uint32(len(d.b.Bytes()))}
	dst = append(s.Append(dst), d.b.Bytes()...)
	d.b.Reset()
	return dst
}

func virtioRect(r image.Rectangle) virtiogpu.Rect {
	return virtiogpu.Rect{X: uint32(r.Min.X), Y: uint32(r.Min.Y), Width: uint32(r.Dx()), Height: uint32(r.Dy())}
}

// setScanout shows a part of a resource on head 0; resource 0 turns it off.
func (d *driver) setScanout(resource uint32, r image.Rectangle) error {
	c := virtiogpu.SetScanout{R: virtioRect(r), ResourceID: resource}
	return d.do(c.Append)
}

// flush says that a part of a resource has changed; fenced, as the kernel does.
func (d *driver) flush(resource uint32, r image.Rectangle) error {
	c := virtiogpu.ResourceFlush{CtrlHdr: d.fenced(virtiogpu.CmdResourceFlush, 0), R: virtioRect(r), ResourceID: resource}
	return d.do(c.Append)
}

func (d *driver) unref(resource uint32) error {
	c := virtiogpu.ResourceUnref{ResourceID: resource}
	return d.do(c.Append)
}

// quit ends the virtual machine as a kill does.
func (d *driver) quit() { d.g.Quit() }
