package waylandtest

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

func createPool(cl *client, _ *object, m wire.Message) error {
	var a proto.WlShmCreatePoolRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(a.Fd.Int(), &st); err != nil || a.Size <= 0 || st.Size < int64(a.Size) {
		_ = a.Fd.Close()
		return fmt.Errorf("pool of %d bytes in a file of %d (%v)", a.Size, st.Size, err)
	}
	cl.objects[wire.ID(a.Id)].data = &pool{a.Fd, a.Size}
	return nil
}

func poolCreateBuffer(cl *client, o *object, m wire.Message) error {
	var a proto.WlShmPoolCreateBufferRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	p := o.data.(*pool)
	end := int64(a.Offset) + int64(a.Stride)*int64(a.Height-1) + int64(a.Width)*4
	if a.Width <= 0 || a.Height <= 0 || a.Offset < 0 || a.Stride < a.Width*4 || end > int64(p.size) {
		return fmt.Errorf("buffer %dx%d stride %d at %d ends at %d in a pool of %d", a.Width, a.Height, a.Stride, a.Offset, end, p.size)
	}
	fourcc := dmabuf.Fourcc(a.Format)
	switch a.Format {
	case proto.WlShmFormatArgb8888:
		fourcc = dmabuf.ARGB8888
	case proto.WlShmFormatXrgb8888:
		fourcc = dmabuf.XRGB8888
	}
	mem, err := p.fd.Dup()
	if err != nil {
		return err
	}
	cl.objects[wire.ID(a.Id)].data = &Buffer{ID: uint32(a.Id), Shm: true, Layout: Layout{Fourcc: fourcc}, W: a.Width, H: a.Height,
		Offset: a.Offset, Stride: a.Stride, Planes: 1, mem: mem}
	return nil
}

func resizePool(_ *client, o *object, m wire.Message) error {
	var a proto.WlShmPoolResizeRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	p := o.data.(*pool)
	var st unix.Stat_t
	if err := unix.Fstat(p.fd.Int(), &st); err != nil || a.Size < p.size || st.Size < int64(a.Size) {
		return fmt.Errorf("pool of %d bytes resized to %d in a file of %d (%v)", p.size, a.Size, st.Size, err)
	}
	p.size = a.Size
	return nil
}

func destroyPool(_ *client, o *object, _ wire.Message) error { return o.data.(*pool).fd.Close() }

func destroyBuffer(cl *client, o *object, _ wire.Message) error {
	b := o.data.(*Buffer)
	b.destroyed = true
	for _, s := range cl.surfaces() {
		if s.now.Buffer == b && b.Released == 0 && !b.Shm {
			cl.c.violation("buffer %d was destroyed while it was shown", b.ID)
		}
	}
	return b.mem.Close()
}

// firstPixel reads what a client drew, as a compositor would at commit.
func (b *Buffer) firstPixel() uint32 {
	var px [4]byte
	if b == nil || !b.Shm {
		return 0
	}
	_, _ = unix.Pread(b.mem.Int(), px[:], int64(b.Offset))
	return binary.LittleEndian.Uint32(px[:])
}

// params is a zwp_linux_buffer_params_v1.
type params struct {
	fds      []*dmabuf.FD
	modifier dmabuf.Modifier
	offset   uint32
	stride   uint32
	used     bool
}

func (p *params) close() {
	for _, fd := range p.fds {
		_ = fd.Close()
	}
	p.fds = nil
}

func createParams(cl *client, _ *object, m wire.Message) error {
	var a proto.ZwpLinuxDmabufV1CreateParamsRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	cl.objects[wire.ID(a.ParamsId)].data = &params{}
	return nil
}

func paramsAdd(_ *client, o *object, m wire.Message) error {
	var a proto.ZwpLinuxBufferParamsV1AddRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	p := o.data.(*params)
	modifier := dmabuf.Modifier(uint64(a.ModifierHi)<<32 | uint64(a.ModifierLo))
	if int(a.PlaneIdx) != len(p.fds) || (a.PlaneIdx > 0 && modifier != p.modifier) {
		_ = a.Fd.Close()
		return fmt.Errorf("plane %d with modifier %v", a.PlaneIdx, modifier)
	}
	if a.PlaneIdx == 0 {
		p.offset, p.stride = a.Offset, a.Stride
	}
	p.fds, p.modifier = append(p.fds, a.Fd), modifier
	return nil
}

func paramsCreate(cl *client, o *object, m wire.Message) error {
	var a proto.ZwpLinuxBufferParamsV1CreateRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	p := o.data.(*params)
	l := Layout{dmabuf.Fourcc(a.Format), p.modifier}
	if p.used || len(p.fds) == 0 || !cl.offered(l) {
		return fmt.Errorf("%d planes of %v %v (used before: %v)", len(p.fds), l.Fourcc, l.Modifier, p.used)
	}
	p.used = true
	answer := Created
	if cl.c.cfg.OnImport != nil {
		answer = cl.c.cfg.OnImport(l)
	}
	id := proto.ZwpLinuxBufferParamsV1(o.id)
	switch answer {
	case Failed:
		id.SendFailed(cl.out())
	case KillsConn:
		cl.displayError(o.id, uint32(proto.ZwpLinuxBufferParamsV1ErrorInvalidWlBuffer), "import refused by the test")
	case Created:
		n := len(p.fds)
		b := cl.createServer(proto.IWlBuffer, 1)
		b.data = &Buffer{ID: uint32(b.id), Layout: l, W: a.Width, H: a.Height, Offset: int32(p.offset), Stride: int32(p.stride), Planes: n, Flags: uint32(a.Flags), mem: p.fds[0]}
		p.fds = p.fds[1:]
		id.SendCreated(cl.out(), proto.WlBuffer(b.id))
	}
	return nil
}

func paramsDestroy(_ *client, o *object, _ wire.Message) error {
	o.data.(*params).close()
	return nil
}

func (cl *client) offered(l Layout) bool {
	for _, x := range cl.c.cfg.Layouts {
		if x == l {
			return true
		}
	}
	return false
}

// sendModifiers announces the layouts as versions 1 to 3 do.
func (cl *client) sendModifiers(version uint32) {
	if version >= 4 {
		return
	}
	d := proto.ZwpLinuxDmabufV1(cl.dmabuf)
	for _, l := range cl.c.cfg.Layouts {
		d.SendFormat(cl.out(), uint32(l.Fourcc))
		if version == 3 {
			d.SendModifier(cl.out(), uint32(l.Fourcc), uint32(l.Modifier>>32), uint32(l.Modifier))
		}
	}
}

func defaultFeedback(cl *client, _ *object, m wire.Message) error {
	var a proto.ZwpLinuxDmabufV1GetDefaultFeedbackRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	cl.feedback = wire.ID(a.Id)
	cl.sendFeedback()
	return nil
}

// sendFeedback announces the layouts as version 4 does: a table, and a tranche
// for each entry.
func (cl *client) sendFeedback() {
	if cl.feedback == 0 {
		return
	}
	var table []byte
	for _, l := range cl.c.cfg.Layouts {
		table = binary.LittleEndian.AppendUint32(table, uint32(l.Fourcc))
		table = append(table, 0, 0, 0, 0)
		table = binary.LittleEndian.AppendUint64(table, uint64(l.Modifier))
	}
	raw, err := unix.MemfdCreate("format table", unix.MFD_CLOEXEC)
	if err != nil {
		panic(err)
	}
	fd := dmabuf.NewFD(raw, "format table")
	if _, err := unix.Pwrite(raw, table, 0); err != nil {
		panic(err)
	}
	f, out := proto.ZwpLinuxDmabufFeedbackV1(cl.feedback), cl.out()
	device := make([]byte, 8)
	f.SendFormatTable(out, fd, uint32(len(table)))
	f.SendMainDevice(out, device)
	for i := range cl.c.cfg.Layouts {
		f.SendTrancheTargetDevice(out, device)
		f.SendTrancheFormats(out, binary.LittleEndian.AppendUint16(nil, uint16(i)))
		f.SendTrancheFlags(out, 0)
		f.SendTrancheDone(out)
	}
	f.SendDone(out)
}
