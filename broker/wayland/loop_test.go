package wayland

import (
	"encoding/binary"
	"testing"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
)

// byHand is a loop without its goroutine: the test turns it, and plays the
// compositor at the other end with nothing that allocates.
type byHand struct {
	t    testing.TB
	s    *Sink
	l    *loop
	peer *wire.Conn
}

func newByHand(t testing.TB) *byHand {
	t.Helper()
	raw, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*wire.Conn
	for i := range ends {
		if ends[i], err = wire.NewConn(dmabuf.NewFD(raw[i], "end"), 0); err != nil {
			t.Fatal(err)
		}
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	s := &Sink{cfg: Config{Title: "test", Events: &counter{}, Input: &counter{}}, log: zap.NewNop(), wake: dmabuf.NewFD(wake, "wake"), first: make(chan error, 1),
		modes: []display.Mode{{Enabled: true, W: 64, H: 64}}}
	s.resizable.Store(true)
	h := &byHand{t: t, s: s, l: newLoop(s), peer: ends[1]}
	h.l.sess = newSession(h.l, ends[0])
	return h
}

func (h *byHand) close() {
	if h.l.sess != nil {
		h.l.disconnect()
	}
	h.l.letGo()
	_ = h.peer.Close()
	_ = h.s.wake.Close()
}

// turn runs the loop once after something may have arrived.
func (h *byHand) turn() error {
	h.l.take()
	h.l.polls[1].Revents = unix.POLLIN
	return h.l.turn()
}

func (h *byHand) mustTurn() {
	h.t.Helper()
	if err := h.turn(); err != nil {
		h.t.Fatal(err)
	}
}

// swallow reads the requests without looking at them.
func (h *byHand) swallow() {
	if _, err := h.peer.Receive(); err != nil {
		h.t.Fatal(err)
	}
	for {
		m, ok, err := h.peer.Next()
		if err != nil {
			h.t.Fatal(err)
		}
		if !ok {
			return
		}
		for m.FDs.Len() > 0 {
			_ = m.FDs.Take().Close()
		}
	}
}

func (h *byHand) send() {
	if err := h.peer.Flush(); err != nil {
		h.t.Fatal(err)
	}
}

func (h *byHand) done(id wire.ID) {
	proto.WlCallback(id).SendDone(&h.peer.Out, 1)
	proto.WlDisplay(wire.DisplayID).SendDeleteId(&h.peer.Out, uint32(id))
}

// ready brings the session to where windows can be made.
func (h *byHand) ready() {
	h.t.Helper()
	out, se := &h.peer.Out, h.l.sess
	h.mustTurn()
	for i, name := range []string{"wl_compositor", "wl_shm", "xdg_wm_base", "wl_subcompositor", "wp_viewporter", "zwp_linux_dmabuf_v1", "wl_seat", "wp_fractional_scale_manager_v1"} {
		version := uint32(4)
		if name == "wl_seat" {
			version = seatMaximum
		}
		se.registry.SendGlobal(out, uint32(i+1), name, version)
	}
	h.done(se.sync)
	h.send()
	h.mustTurn()
	se.shm.SendFormat(out, proto.WlShmFormatXrgb8888)
	se.shm.SendFormat(out, proto.WlShmFormatArgb8888)
	h.done(se.sync)
	for _, st := range se.seats {
		st.wl.SendCapabilities(out, proto.WlSeatCapabilityPointer|proto.WlSeatCapabilityKeyboard|proto.WlSeatCapabilityTouch)
	}
	h.send()
	h.mustTurn()
	h.swallow()
	if !se.ready {
		h.t.Fatal("the session is not ready")
	}
}

// window presents b and configures the window.
func (h *byHand) window(f *display.Frame) *window {
	h.t.Helper()
	h.s.Present(f)
	h.mustTurn()
	win := h.l.heads[f.Head].win
	win.xdg.SendConfigure(&h.peer.Out, 1)
	h.send()
	h.mustTurn()
	h.swallow()
	if win.current == nil {
		h.t.Fatal("the frame was not committed")
	}
	return win
}

func testBuffers(t testing.TB) [2]*dmabuf.Buffer {
	t.Helper()
	var bufs [2]*dmabuf.Buffer
	for i := range bufs {
		b, err := shmfallback.Alloc(64, 64, dmabuf.XRGB8888, "test")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Release)
		bufs[i] = b
	}
	return bufs
}

// TestSteadyStateAllocatesNothing flips two buffers and moves the cursor: the
// render thread's calls and the loop's turns allocate nothing.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	h := newByHand(t)
	defer h.close()
	h.ready()
	bufs := testBuffers(t)
	f := display.Frame{Buffer: bufs[0], Source: whole(bufs[0]), Damage: whole(bufs[0]), Opaque: true, FlushedAt: 1}
	win := h.window(&f)
	cur := display.Cursor{W: 16, H: 16, Pixels: make([]byte, 16*16*4)}
	n := uint32(0)
	cycle := func() {
		n++
		f.Serial++
		old := win.current
		f.Buffer = bufs[n%2]
		h.s.Present(&f)
		if n%8 == 0 {
			h.s.ShowCursor(&cur)
		}
		h.s.MoveCursor(0, int32(n%64), int32(n%64))
		h.done(win.callback)
		h.userDoes(win, n)
		h.send()
		h.mustTurn()
		h.swallow()
		if old != nil && old != win.current {
			old.wl.SendRelease(&h.peer.Out)
		}
		if c := win.cursor; c != nil {
			for i := range c.slots {
				if s := &c.slots[i]; s.busy && s != c.shown {
					s.wl.SendRelease(&h.peer.Out)
				}
			}
		}
		h.send()
		h.mustTurn()
	}
	for range 64 {
		cycle()
	}
	frames := h.s.stats.FramesShm.Load()
	if allocs := testing.AllocsPerRun(500, cycle); allocs != 0 {
		t.Errorf("%v allocations per frame, want 0", allocs)
	}
	if got := h.s.stats.FramesShm.Load() - frames; got != 501 {
		t.Errorf("%d frames committed, want 501", got)
	}
	heard := h.s.cfg.Input.(*counter)
	if heard.pointers < 500 || heard.keys < 500 || heard.buttons < 500 || heard.scrolls < 500 || heard.touches < 500 || heard.frames < 1500 {
		t.Errorf("the guest heard %+v", *heard)
	}
	if n := h.s.cfg.Events.(*counter).shown; n < 500 || !h.s.Paces(0) {
		t.Errorf("%d frames reported", n)
	}
	if h.s.stats.Latency.Count() == 0 {
		t.Error("no latency was counted")
	}
}

// userDoes moves and presses everything, and drags the window to and fro.
func (h *byHand) userDoes(win *window, n uint32) {
	out := &h.peer.Out
	for _, st := range h.l.sess.seats {
		if n == 1 {
			st.pointer.wl.SendEnter(out, 1, win.surface, 0, 0)
			st.keyboard.wl.SendEnter(out, 1, win.surface, nil)
		}
		at := wire.FixedInt(int32(n % 64))
		st.pointer.wl.SendMotion(out, 1, at, at)
		st.pointer.wl.SendButton(out, 1, 1, 0x110, proto.WlPointerButtonState(n%2))
		st.pointer.wl.SendAxisValue120(out, 0, 120)
		st.pointer.wl.SendFrame(out)
		st.keyboard.wl.SendKey(out, 1, 1, 30, proto.WlKeyboardKeyState(n%2))
		if n%2 == 1 {
			st.touch.wl.SendDown(out, 1, 1, win.surface, 5, at, at)
		} else {
			st.touch.wl.SendUp(out, 1, 1, 5)
		}
		st.touch.wl.SendFrame(out)
	}
	win.toplevel.SendConfigure(out, int32(100+n%8), 100, nil)
	win.xdg.SendConfigure(out, n)
}

// counter counts what it is told.
type counter struct{ keys, pointers, buttons, scrolls, touches, frames, shown int }

func (c *counter) Key(int, uint16, bool)                  { c.keys++ }
func (c *counter) Pointer(int, uint16, uint16)            { c.pointers++ }
func (c *counter) Button(int, uint16, bool)               { c.buttons++ }
func (c *counter) Scroll(int, int32, int32)               { c.scrolls++ }
func (c *counter) Touch(int, uint8, uint16, uint16, bool) { c.touches++ }
func (c *counter) Frame(int)                              { c.frames++ }
func (c *counter) Shown(int, uint64)                      { c.shown++ }
func (c *counter) ModeChanged(int)                        {}
func (c *counter) Closed(int)                             {}
func (c *counter) Refresh()                               {}

func BenchmarkPresent(b *testing.B) {
	h := newByHand(b)
	defer h.close()
	h.ready()
	bufs := testBuffers(b)
	f := display.Frame{Buffer: bufs[0], Source: whole(bufs[0]), Damage: whole(bufs[0]), Opaque: true, FlushedAt: 1}
	win := h.window(&f)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		old := win.current
		f.Buffer = bufs[n%2]
		h.s.Present(&f)
		h.done(win.callback)
		h.send()
		h.mustTurn()
		h.swallow()
		old.wl.SendRelease(&h.peer.Out)
	}
}

// FuzzEvents sends bytes to a session with a window, a cursor, a pending import
// and a seat: whatever they are, nothing panics and nothing leaks.
func FuzzEvents(f *testing.F) {
	event := func(id uint32, opcode uint16, words ...uint32) []byte {
		b := binary.LittleEndian.AppendUint32(nil, id)
		b = binary.LittleEndian.AppendUint32(b, uint32(8+4*len(words))<<16|uint32(opcode))
		for _, w := range words {
			b = binary.LittleEndian.AppendUint32(b, w)
		}
		return b
	}
	f.Add(event(1, 1, 3))
	f.Add(event(1, 0, 3, 0, 4, 0x00636261))
	f.Add(append(event(2, 0, 50, 8, 0x735f6c77, 0x00746165, 5), event(2, 1, 50)...)) // another wl_seat comes and goes
	for id := range uint32(32) {
		f.Add(event(id, 0))
		f.Add(event(id, 0, 1))
		f.Add(event(id, 1, 1, 2))
		f.Add(event(id, 0, 0xff000001))
		f.Add(event(id, 2, 1, 2, 3, 4))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		h := newByHand(t)
		defer h.close()
		h.ready()
		// Ready reports the formats of version 4 later; offer one by hand.
		l := layout{dmabuf.XRGB8888, dmabuf.ModLinear}
		h.l.sess.formats.offered[l] = struct{}{}
		h.l.sess.publishFormats()
		bufs := testBuffers(t)
		frame := display.Frame{Buffer: bufs[0], Source: whole(bufs[0]), Opaque: true}
		h.window(&frame)
		h.s.ShowCursor(&display.Cursor{W: 4, H: 4, Pixels: make([]byte, 64)})
		plane, err := bufs[1].Planes[0].FD.Dup()
		if err != nil {
			t.Fatal(err)
		}
		d, err := dmabuf.New(dmabuf.Desc{Kind: dmabuf.KindDMABuf, Width: 8, Height: 8, Fourcc: l.fourcc, Planes: []dmabuf.Plane{{FD: plane, Stride: 32}}})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Release()
		frame.Buffer, frame.Source = d, whole(d)
		h.s.Present(&frame)
		h.mustTurn()
		for len(raw) > 0 {
			n, err := unix.Write(h.peer.FD(), raw)
			if err != nil {
				return // too much for the socket
			}
			raw = raw[n:]
			if h.turn() != nil {
				return
			}
		}
		h.s.Disable(0)
		h.s.Drop(d)
		_ = h.turn()
	})
}
