package broker_test

import (
	"image/color"
	"slices"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker/edid"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
	"github.com/gpubroker/gpubroker/virgl/virgltest"
)

func (m *machine) scanout(head, res uint32, r virtiogpu.Rect) {
	m.t.Helper()
	m.ok((&virtiogpu.SetScanout{ScanoutID: head, ResourceID: res, R: r}).Append(nil))
}

func (m *machine) flush(res uint32, r virtiogpu.Rect) {
	m.t.Helper()
	m.ok((&virtiogpu.ResourceFlush{ResourceID: res, R: r}).Append(nil))
}

// fill writes a colour (B, G, R, X in memory) to a whole block of guest pages.
func fill(b *fakeguest.Block, c [4]byte) {
	row := make([]byte, b.Size)
	for i := range row {
		row[i] = c[i%4]
	}
	b.WriteAt(row, 0)
}

func pixel(t testing.TB, m *machine, head, x, y int) color.NRGBA {
	t.Helper()
	img, err := m.sink.Screenshot(head)
	if err != nil {
		t.Fatal(err)
	}
	return img.NRGBAAt(x, y)
}

// Test2D: pixels in scattered guest pages reach the display with one copy of the
// damaged rectangle and no other.
func Test2D(t *testing.T) {
	m := newMachine(t, machineConfig{})
	const w, h = 61, 33
	m.create2D(1, w, h)
	mem := m.attach(1, w*h*4)
	fill(mem, [4]byte{10, 20, 30, 0})
	m.scanout(0, 1, rect(0, 0, w, h))
	m.ok((&virtiogpu.TransferToHost2D{ResourceID: 1, R: rect(0, 0, w, h)}).Append(nil))
	m.flush(1, rect(0, 0, w, h))
	if got := pixel(t, m, 0, w-1, h-1); got != (color.NRGBA{30, 20, 10, 255}) {
		t.Errorf("last pixel %v", got)
	}
	fill(mem, [4]byte{40, 50, 60, 0})
	m.ok((&virtiogpu.TransferToHost2D{ResourceID: 1, R: rect(5, 7, 3, 2), Offset: (7*w + 5) * 4}).Append(nil))
	m.flush(1, rect(5, 7, 3, 2))
	for _, c := range []struct {
		x, y int
		want color.NRGBA
	}{{4, 7, color.NRGBA{30, 20, 10, 255}}, {5, 7, color.NRGBA{60, 50, 40, 255}}, {7, 8, color.NRGBA{60, 50, 40, 255}}, {8, 8, color.NRGBA{30, 20, 10, 255}}} {
		if got := pixel(t, m, 0, c.x, c.y); got != c.want {
			t.Errorf("pixel %d,%d is %v, want %v", c.x, c.y, got, c.want)
		}
	}
	st := m.dev.Status(true)
	if want := uint64(w*h*4 + 3*2*4); st.BytesCopied != want {
		t.Errorf("%d bytes copied, want %d", st.BytesCopied, want)
	}
	if st.Frames.Shm != 2 || st.Frames.DMABuf != 0 {
		t.Errorf("frames %+v, want 2 of shared memory", st.Frames)
	}
}

// TestExportOnce: frames of a 3D resource are its own memory, exported once and
// never copied.
func TestExportOnce(t *testing.T) {
	m := newMachine(t, machineConfig{fake: virgltest.Config{Kind: dmabuf.KindDMABuf}})
	m.createCtx(1)
	for id := uint32(1); id <= 2; id++ {
		m.create3D(id, 64, 64)
		m.attachCtx(1, id)
	}
	for i := range 200 {
		id := uint32(1 + i%2)
		m.ok(submit(fenced(1, uint64(i)), make([]byte, 16)))
		m.scanout(0, id, rect(0, 0, 64, 64))
		m.flush(id, rect(0, 0, 64, 64))
	}
	m.settle()
	st := m.dev.Status(true)
	if st.Exports != 2 || m.fake.Calls(virgltest.OpExport) != 2 {
		t.Errorf("%d exports counted, %d made; want one a resource", st.Exports, m.fake.Calls(virgltest.OpExport))
	}
	if st.Frames.DMABuf != 200 || st.Frames.Shm != 0 || st.BytesCopied != 0 {
		t.Errorf("frames %+v, %d bytes copied", st.Frames, st.BytesCopied)
	}
	if n := m.fake.Calls(virgltest.OpReadPixels); n != 0 {
		t.Errorf("%d read-backs", n)
	}
}

// settle waits until what was posted to the render thread has run.
func (m *machine) settle() {
	for range 3 {
		m.loop.Call(func() {})
		time.Sleep(2 * time.Millisecond)
	}
}

var manualFences = virgltest.Config{ManualFences: true}

// TestFenceOrder: fenced commands complete in order and with their ids whole;
// unfenced ones do not wait; a command without GPU work waits for those before.
func TestFenceOrder(t *testing.T) {
	m := newMachine(t, machineConfig{fake: virgltest.Config{ManualFences: true}})
	m.createCtx(1)
	m.createCtx(2)
	const base = uint64(0xfedcba9800000000)
	var ops []*fakeguest.Op
	add := func(cmd []byte) {
		t.Helper()
		op, err := m.Ctrl.Submit(cmd, 64)
		if err != nil {
			t.Fatal(err)
		}
		ops = append(ops, op)
	}
	add(submit(fenced(1, base+0), make([]byte, 8)))
	add(submit(fenced(2, base+1), make([]byte, 8)))
	add((&virtiogpu.ResourceUnref{CtrlHdr: fenced(0, base+2), ResourceID: 99}).Append(nil)) // an error keeps its place too
	add((&virtiogpu.CtrlHdr{Type: virtiogpu.CmdGetDisplayInfo, Flags: virtiogpu.FlagFence, FenceID: base + 3}).Append(nil))
	m.ok((&virtiogpu.CtrlHdr{Type: virtiogpu.CmdGetDisplayInfo}).Append(nil)) // unfenced: answered now
	for i, op := range ops {
		if done, _ := m.Ctrl.Done(op); done {
			t.Fatalf("command %d completed before its fence", i)
		}
	}
	if p := m.fake.Pending(); len(p) != 2 {
		t.Fatalf("%d renderer fences, want 2", len(p))
	}
	m.fake.Signal(1)
	check := func(i int, want virtiogpu.Type) {
		t.Helper()
		n, err := m.Ctrl.Wait(ops[i], m.resp, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		var h virtiogpu.CtrlHdr
		if err := h.Decode(m.resp[:n]); err != nil {
			t.Fatal(err)
		}
		if h.Type != want || h.FenceID != base+uint64(i) || !h.Fenced() {
			t.Errorf("command %d: %v with fence %#x", i, h.Type, h.FenceID)
		}
	}
	check(0, virtiogpu.RespOKNoData)
	m.settle()
	if done, _ := m.Ctrl.Done(ops[3]); done {
		t.Fatal("a later command overtook a fence")
	}
	m.fake.Signal(1)
	check(1, virtiogpu.RespOKNoData)
	check(2, virtiogpu.RespErrInvalidResourceID)
	check(3, virtiogpu.RespOKDisplayInfo)
}

// TestPresentWaitsForDrawing: a frame goes out when its drawing is finished, and
// the control queue does not wait for that.
func TestPresentWaitsForDrawing(t *testing.T) {
	m := newMachine(t, machineConfig{fake: virgltest.Config{ManualFences: true, Kind: dmabuf.KindDMABuf}})
	m.createCtx(1)
	m.create3D(1, 64, 64)
	m.attachCtx(1, 1)
	m.scanout(0, 1, rect(0, 0, 64, 64))
	m.ok(submit(ctxHdr(1), make([]byte, 8)))
	m.flush(1, rect(0, 0, 64, 64)) // answered although nothing is drawn yet
	m.settle()
	if n := m.sink.Stats().FramesDMABuf.Load(); n != 0 {
		t.Fatalf("%d frames before the fence", n)
	}
	m.fake.Signal(1)
	if err := m.sink.WaitFrames(1, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	// Nothing new was drawn: no fence is needed.
	fences := m.fake.Calls(virgltest.OpCreateFence)
	m.flush(1, rect(0, 0, 64, 64))
	if err := m.sink.WaitFrames(2, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if n := m.fake.Calls(virgltest.OpCreateFence); n != fences {
		t.Errorf("%d fences for an idle context", n-fences)
	}
	// A context that goes away with its fence pending holds no frame back.
	m.ok(submit(ctxHdr(1), make([]byte, 8)))
	m.flush(1, rect(0, 0, 64, 64))
	m.ok((&virtiogpu.CtrlHdr{Type: virtiogpu.CmdCtxDestroy, CtxID: 1}).Append(nil))
	if err := m.sink.WaitFrames(3, 5*time.Second); err != nil {
		t.Fatal(err)
	}
}

// TestFlushFlood: more flushes than may wait for fences neither block nor get lost.
func TestFlushFlood(t *testing.T) {
	m := newMachine(t, machineConfig{fake: virgltest.Config{ManualFences: true, Kind: dmabuf.KindDMABuf}})
	m.createCtx(1)
	for id := uint32(1); id <= 2; id++ {
		m.create3D(id, 16, 16)
		m.attachCtx(1, id)
	}
	for i := range 50 {
		id := uint32(1 + i%2)
		m.scanout(0, id, rect(0, 0, 16, 16))
		m.ok(submit(ctxHdr(1), make([]byte, 8)))
		m.flush(id, rect(0, 0, 16, 16))
	}
	m.fake.Signal(len(m.fake.Pending()))
	if err := m.sink.WaitFrames(1, 5*time.Second); err != nil {
		t.Fatal(err)
	}
}

// TestUnrefWhileShown: the scanout goes dark, the buffer lives while the display
// holds it.
func TestUnrefWhileShown(t *testing.T) {
	sink := newHoldingSink()
	m := newMachine(t, machineConfig{sink: sink, fake: virgltest.Config{Kind: dmabuf.KindDMABuf}})
	m.createCtx(1)
	m.create3D(1, 16, 16)
	m.scanout(0, 1, rect(0, 0, 16, 16))
	m.flush(1, rect(0, 0, 16, 16))
	m.ok((&virtiogpu.ResourceUnref{ResourceID: 1}).Append(nil))
	buf := sink.last(t)
	if !buf.Planes[0].FD.Valid() {
		t.Error("the buffer was freed while the display holds it")
	}
	if got := sink.names(); !slices.Equal(got, []string{"present", "disable", "drop"}) {
		t.Errorf("the sink heard %v", got)
	}
	sink.release()
	if buf.Planes[0].FD.Valid() {
		t.Error("the buffer outlived its last holder")
	}
}

// TestCopyTier: where nothing can be exported, frames are read back into shared
// buffers that the display does not hold, each brought up to date with what it
// missed; while the display holds all of them the newest frame waits.
func TestCopyTier(t *testing.T) {
	sink := newHoldingSink()
	m := newMachine(t, machineConfig{sink: sink, fake: virgltest.Config{
		OnSubmit: func(f *virgltest.Fake, _ uint32, cmds []byte) error {
			return f.Paint(1, func(p []byte) {
				for i := range p {
					p[i] = cmds[i%4]
				}
			})
		},
	}})
	m.createCtx(1)
	m.create3D(1, 32, 8)
	m.attachCtx(1, 1)
	m.scanout(0, 1, rect(0, 0, 32, 8))
	draw := func(c byte, r virtiogpu.Rect) {
		m.ok(submit(ctxHdr(1), []byte{c, c, c, c}))
		m.flush(1, r)
		m.settle()
	}
	whole := rect(0, 0, 32, 8)
	draw(1, whole)
	draw(2, whole)
	draw(3, whole)
	draw(4, whole) // the display holds three buffers
	if n := len(sink.names()); n != 3 {
		t.Fatalf("%d frames for three buffers: %v", n, sink.names())
	}
	if m.dev.Status(false).CopyWaits == 0 {
		t.Error("no wait was counted")
	}
	sink.releaseOldest()
	m.settle()
	if n := len(sink.names()); n != 4 {
		t.Fatalf("%d frames after a buffer came free, want 4", n)
	}
	buf := sink.last(t)
	if buf.Kind != dmabuf.KindShm || buf.Mem[0] != 4 || buf.Mem[7*buf.Planes[0].Stride+31*4] != 4 {
		t.Errorf("%v shows %d", buf, buf.Mem[0])
	}
	copied := m.dev.Status(false).BytesCopied
	if want := uint64(4 * 32 * 8 * 4); copied != want {
		t.Errorf("%d bytes copied, want %d", copied, want)
	}
	sink.release()
	draw(5, rect(3, 2, 4, 1)) // only the damage, and what the buffer missed
	if got := m.dev.Status(false).BytesCopied - copied; got > 32*8*4 {
		t.Errorf("%d bytes copied for a small damage", got)
	}
	sink.release()
}

// TestRefresh: a display that asks for it gets every head again.
func TestRefresh(t *testing.T) {
	m := newMachine(t, machineConfig{})
	m.create2D(1, 8, 8)
	m.attach(1, 8*8*4)
	m.scanout(0, 1, rect(0, 0, 8, 8))
	m.scanout(1, 1, rect(4, 4, 4, 4))
	m.flush(1, rect(0, 0, 8, 8))
	ev := newEvents(m)
	ev.Refresh()
	if err := m.sink.WaitFrames(4, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	ev.ModeChanged(0)
	m.settle()
	var p [virtiogpu.SizeConfig]byte
	m.dev.ReadConfig(p[:])
	var c virtiogpu.Config
	if err := c.Decode(p[:]); err != nil {
		t.Fatal(err)
	}
	if c.EventsRead != virtiogpu.EventDisplay || c.NumScanouts != 2 || c.NumCapsets != 2 {
		t.Errorf("config %+v", c)
	}
	clear := virtiogpu.Config{EventsClear: virtiogpu.EventDisplay}
	if err := m.dev.WriteConfig(0, clear.Append(nil)); err != nil {
		t.Fatal(err)
	}
	m.dev.ReadConfig(p[:])
	if err := c.Decode(p[:]); err != nil || c.EventsRead != 0 {
		t.Errorf("events %#x after clearing, %v", c.EventsRead, err)
	}
}

// TestPromote: a dumb buffer that a context uses gets a twin in the renderer and
// is still shown.
func TestPromote(t *testing.T) {
	m := newMachine(t, machineConfig{})
	m.createCtx(1)
	m.create2D(1, 16, 16)
	mem := m.attach(1, 16*16*4)
	fill(mem, [4]byte{1, 2, 3, 0})
	m.attachCtx(1, 1)
	m.scanout(0, 1, rect(0, 0, 16, 16))
	m.flush(1, rect(0, 0, 16, 16))
	if got := pixel(t, m, 0, 3, 3); got != (color.NRGBA{3, 2, 1, 255}) {
		t.Errorf("pixel %v after the promotion", got)
	}
	fill(mem, [4]byte{4, 5, 6, 0})
	m.ok((&virtiogpu.TransferToHost2D{ResourceID: 1, R: rect(0, 0, 16, 16)}).Append(nil))
	m.flush(1, rect(0, 0, 16, 16))
	if got := pixel(t, m, 0, 3, 3); got != (color.NRGBA{6, 5, 4, 255}) {
		t.Errorf("pixel %v after a 2D transfer to the twin", got)
	}
}

func TestAnswers(t *testing.T) {
	m := newMachine(t, machineConfig{})
	var info virtiogpu.DisplayInfo
	if err := info.Decode(m.ok((&virtiogpu.CtrlHdr{Type: virtiogpu.CmdGetDisplayInfo}).Append(nil))); err != nil {
		t.Fatal(err)
	}
	if o := info.Modes[0]; o.Enabled != 1 || o.R != rect(0, 0, 1280, 800) || info.Modes[1].Enabled != 0 {
		t.Errorf("display info %+v", info.Modes[:2])
	}
	var e virtiogpu.EDID
	if err := e.Decode(m.ok((&virtiogpu.GetEDID{}).Append(nil))); err != nil {
		t.Fatal(err)
	}
	if err := edid.Check(e.Bytes()); err != nil {
		t.Error(err)
	}
	m.create2D(1, 8, 8)
	var u, v virtiogpu.ResourceUUID
	for _, x := range []*virtiogpu.ResourceUUID{&u, &v} {
		if err := x.Decode(m.ok((&virtiogpu.ResourceAssignUUID{ResourceID: 1}).Append(nil))); err != nil {
			t.Fatal(err)
		}
	}
	if u.UUID != v.UUID || u.UUID == [16]byte{} || u.UUID[6]>>4 != 4 {
		t.Errorf("UUIDs %x and %x", u.UUID, v.UUID)
	}
	for i, want := range []uint32{308, 1376} {
		var c virtiogpu.CapsetInfo
		if err := c.Decode(m.ok((&virtiogpu.GetCapsetInfo{CapsetIndex: uint32(i)}).Append(nil))); err != nil {
			t.Fatal(err)
		}
		if c.CapsetMaxSize != want {
			t.Errorf("capset %d: %+v", i, c)
		}
		caps := m.ok((&virtiogpu.GetCapset{CapsetID: c.CapsetID, CapsetVersion: c.CapsetMaxVersion}).Append(nil))
		if len(caps) != virtiogpu.SizeCtrlHdr+int(want) {
			t.Errorf("capset %d: %d bytes", i, len(caps))
		}
	}
}

// TestLife: resources survive stop and cont, and not a reset.
func TestLife(t *testing.T) {
	m := newMachine(t, machineConfig{})
	for range 10 {
		m.createCtx(1)
		m.create3D(1, 8, 8)
		m.attach(1, 8*8*4)
		m.create2D(2, 8, 8)
		m.attach(2, 8*8*4)
		m.scanout(0, 2, rect(0, 0, 8, 8))
		m.flush(2, rect(0, 0, 8, 8))
		if err := m.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := m.Cont(); err != nil {
			t.Fatal(err)
		}
		m.flush(2, rect(0, 0, 8, 8))
		if st := m.dev.Status(true); len(st.Resources) != 2 || len(st.Contexts) != 1 {
			t.Fatalf("after stop and cont: %d resources, %d contexts", len(st.Resources), len(st.Contexts))
		}
		if err := m.Reset(); err != nil {
			t.Fatal(err)
		}
		if err := m.Boot(); err != nil {
			t.Fatal(err)
		}
		if st := m.dev.Status(true); len(st.Resources) != 0 || len(st.Contexts) != 0 || len(st.Scanouts) != 0 {
			t.Fatalf("after a reset: %+v", st)
		}
	}
}
