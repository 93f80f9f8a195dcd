package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// nullGuest takes everything and says nothing.
type nullGuest struct{ dialect Dialect }

func (g *nullGuest) Dialect() Dialect { return g.dialect }
func (g *nullGuest) Recv(ctx context.Context) (Chunk, error) {
	<-ctx.Done()
	return Chunk{}, ctx.Err()
}
func (g *nullGuest) Send(_ context.Context, c Chunk) error {
	for i := range c.Items {
		c.Items[i].Close()
	}
	return nil
}
func (g *nullGuest) Fail(error)   {}
func (g *nullGuest) Close() error { return nil }

// noResources is a device that draws two formats and has nothing.
type noResources struct{}

func (noResources) Open(context.Context, Owner, DeviceID, uint32) (Resource, error) {
	return nil, ErrUnknownResource
}

func (noResources) Formats() []Format {
	return []Format{{dmabuf.ARGB8888, dmabuf.ModLinear}, {dmabuf.XRGB8888, dmabuf.ModInvalid}}
}

// bench is a client whose compositor is a socket that somebody else holds; the
// compositor has said that it has every global of the tables.
type bench struct {
	c    *client
	p    *Proxy
	host *wire.Conn
}

func newBench(t testing.TB) *bench {
	t.Helper()
	policy := DefaultPolicy()
	policy.Allow = map[string]uint32{"zwp_linux_dmabuf_v1": 6}
	p, err := New(Config{Display: "none", Policy: policy, Resources: noResources{}, Limits: Limits{HostBytes: 1 << 22, Objects: 2000, ParkTime: Duration(time.Microsecond)}})
	if err != nil {
		t.Fatal(err)
	}
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
	g := &nullGuest{Dialect{BufferItems: true, RenderDev: 1, HasClock: true}}
	b := &bench{c: newClient(context.Background(), p, g, Owner{}), p: p, host: ends[1]}
	c := b.c
	if c.wakeFD, err = eventfd("wake"); err != nil {
		t.Fatal(err)
	}
	c.conn = ends[0]
	h := &c.host
	h.shmFormats = map[proto.WlShmFormat]struct{}{0: {}, 1: {}}
	h.formats, h.tranche = map[Format]struct{}{}, map[Format]struct{}{}
	h.registry = c.objs.addOwn(proto.IWlRegistry, 1, registryEvent)
	for id := proto.InterfaceID(1); int(id) < len(proto.Interfaces); id++ {
		if _, ok := allowed[id]; ok {
			c.globals = append(c.globals, global{name: uint32(id), iface: id, host: proto.Interfaces[id].Version})
		}
	}
	for i := range c.globals {
		if g := &c.globals[i]; g.iface != proto.IZwpLinuxDmabufV1 {
			c.bindOwn(g)
		}
	}
	h.learned = true
	c.offerGlobals()
	return b
}

// drain reads and forgets what the client said to the compositor.
func (b *bench) drain() {
	buf := make([]byte, 1<<16)
	oob := make([]byte, 4096)
	for {
		n, oobn, _, _, err := unix.Recvmsg(b.host.FD(), buf, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if err != nil || n == 0 {
			return
		}
		msgs, _ := unix.ParseSocketControlMessage(oob[:oobn])
		for i := range msgs {
			raws, _ := unix.ParseUnixRights(&msgs[i])
			for _, raw := range raws {
				_ = unix.Close(raw)
			}
		}
	}
}

// close ends the client as serve does.
func (b *bench) close(err error) {
	b.c.stop()
	b.c.detach()
	b.c.sayGoodbye(err)
	b.drain()
	_ = b.c.wakeFD.Close()
	b.c.release()
	b.drain()
	_ = b.host.Close()
	b.p.Close()
}

// windowRequests are the requests that make a toplevel of surface 12.
func windowRequests(w *wire.Writer, c *client) {
	bind := func(id proto.InterfaceID, version uint32, as wire.ID) {
		for _, g := range c.globals {
			if g.iface == id && g.offer > 0 {
				proto.WlRegistry(2).Bind(w, g.name, id.String(), version, as)
			}
		}
	}
	proto.WlDisplay(1).GetRegistry(w, 2)
	bind(proto.IWlCompositor, 7, 3)
	bind(proto.IWlShm, 2, 4)
	bind(proto.IXdgWmBase, 6, 5)
	bind(proto.IZwpLinuxDmabufV1, 6, 6)
	bind(proto.IWlSeat, 9, 7)
	bind(proto.IWlDataDeviceManager, 3, 8)
	bind(proto.IWpPresentation, 1, 9)
	bind(proto.IWpViewporter, 1, 10)
	bind(proto.IWlSubcompositor, 1, 11)
	proto.WlCompositor(3).CreateSurface(w, 12)
	proto.XdgWmBase(5).GetXdgSurface(w, 13, 12)
	proto.XdgSurface(13).GetToplevel(w, 14)
	proto.WlSeat(7).GetKeyboard(w, 15)
	proto.WlSeat(7).GetPointer(w, 16)
	proto.WlDataDeviceManager(8).GetDataDevice(w, 17, 7)
	w.Begin(4, proto.OpWlShmCreatePool)
	w.Object(18)
	w.Int(1 << 16)
	w.End()
	proto.WlShmPool(18).CreateBuffer(w, 19, 0, 32, 32, 128, 1)
	proto.ZwpLinuxDmabufV1(6).CreateParams(w, 20)
	proto.WlCompositor(3).CreateSurface(w, 21)
	proto.WlDataDeviceManager(8).CreateDataSource(w, 22)
}

func (b *bench) setUp(t testing.TB) {
	t.Helper()
	var w wire.Writer
	windowRequests(&w, b.c)
	if err := b.c.take(Chunk{Data: w.Unsent(), Items: []Item{{Kind: ItemMemory}}}); err != nil {
		t.Fatal(err)
	}
	b.drain()
}

// itemsFrom makes items of bytes: each byte is one.
func itemsFrom(spec []byte) (items []Item) {
	for _, k := range spec[:min(len(spec), 16)] {
		it := Item{Kind: ItemKind(k % 6), Device: DeviceID(k >> 6), Resource: uint32(k & 3), Offset: uint64(k)}
		switch it.Kind {
		case ItemBytes:
			it.Bytes = make([]byte, k)
		case ItemPipe:
			raw, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
			if err != nil {
				continue
			}
			it.FD = dmabuf.NewFD(raw, "fuzz")
		}
		items = append(items, it)
	}
	return items
}

// FuzzGuestStream sends bytes, items and an update to a client that has a window.
// Whatever they are: no panic, nothing is left, and an error is one of the client's.
func FuzzGuestStream(f *testing.F) {
	seed := func(items []byte, write func(w *wire.Writer)) {
		var w wire.Writer
		write(&w)
		f.Add(append([]byte(nil), w.Unsent()...), items, uint32(19), uint32(1), uint32(1))
	}
	seed(nil, func(w *wire.Writer) {
		proto.WlSurface(12).Attach(w, 19, 0, 0)
		proto.WlSurface(12).Damage(w, 0, 0, 10, 10)
		proto.WlSurface(12).Frame(w, 30)
		proto.WlSurface(12).Commit(w)
	})
	seed([]byte{4, 1, 4}, func(w *wire.Writer) {
		proto.WlShmPool(18).CreateBuffer(w, 30, 0, 4, 4, 16, 0)
		proto.WlShmPool(18).CreateBuffer(w, 31, 64, 4, 4, 16, 1)
		proto.WlBuffer(30).Destroy(w)
		proto.WlShmPool(18).Destroy(w)
	})
	seed([]byte{1}, func(w *wire.Writer) {
		w.Begin(20, proto.OpZwpLinuxBufferParamsV1Add)
		for range 5 {
			w.Uint(0)
		}
		w.End()
		proto.ZwpLinuxBufferParamsV1(20).Create(w, 16, 16, uint32(dmabuf.ARGB8888), 0)
	})
	seed(nil, func(w *wire.Writer) {
		proto.XdgToplevel(14).SetTitle(w, "title")
		proto.XdgToplevel(14).SetAppId(w, "app")
		proto.XdgToplevel(14).Destroy(w)
		proto.XdgSurface(13).Destroy(w)
		proto.WlSurface(12).Destroy(w)
	})
	seed(nil, func(w *wire.Writer) {
		proto.WlSubcompositor(11).GetSubsurface(w, 30, 21, 12)
		proto.WpViewporter(10).GetViewport(w, 31, 21)
		proto.WlSurface(21).SetBufferScale(w, -1)
		proto.WlDataSource(22).Offer(w, "text/plain")
		proto.WlDataDevice(17).StartDrag(w, 22, 12, 21, 7)
		proto.ZwpLinuxDmabufV1(6).GetDefaultFeedback(w, 32)
		proto.WlDisplay(1).Sync(w, 33)
	})
	f.Fuzz(func(t *testing.T, data, items []byte, buffer, x, size uint32) {
		b := newBench(t)
		b.setUp(t)
		half := len(data) / 2
		err := b.c.take(Chunk{Data: data[:half], Items: itemsFrom(items)})
		if err == nil {
			err = b.c.take(Chunk{Update: &Update{Buffer: buffer, Rect: display.Rect{X: x, W: size % 64, H: 1}, Pixels: make([]byte, size%64*4)}})
		}
		if err == nil {
			err = b.c.take(Chunk{Data: data[half:]})
		}
		var bad *clientError
		if err != nil && !errors.As(err, &bad) {
			t.Errorf("error %v", err)
		}
		n := b.c.objs.len()
		if n > b.c.limits.Objects {
			t.Errorf("%d objects", n)
		}
		for id, o := range b.c.objs.guest {
			if o.guest != id {
				t.Errorf("object %d calls itself %d", id, o.guest)
			}
		}
		for id, o := range b.c.objs.host {
			if o != nil && o.host != wire.ID(id) {
				t.Errorf("host object %d calls itself %d", id, o.host)
			}
		}
		b.close(err)
		if b.c.nBuffers != 0 || b.c.hostBytes != 0 || b.c.nPools != 0 {
			t.Errorf("%d buffers, %d bytes, %d pools are left", b.c.nBuffers, b.c.hostBytes, b.c.nPools)
		}
	})
}

// FuzzHostStream sends bytes and descriptors as the compositor of a client that has a
// window. Whatever they are: no panic, and nothing is left.
func FuzzHostStream(f *testing.F) {
	// The host's ids of the window's objects, from the same requests.
	b := newBench(f)
	b.setUp(f)
	host := map[proto.InterfaceID]wire.ID{}
	for _, o := range b.c.objs.guest {
		host[o.iface] = o.host
	}
	b.close(io.EOF)
	seed := func(fds uint8, write func(w *wire.Writer)) {
		var w wire.Writer
		write(&w)
		f.Add(append([]byte(nil), w.Unsent()...), fds)
	}
	kb, pt, dd, top := proto.WlKeyboard(host[proto.IWlKeyboard]), proto.WlPointer(host[proto.IWlPointer]), proto.WlDataDevice(host[proto.IWlDataDevice]), proto.XdgToplevel(host[proto.IXdgToplevel])
	surface := proto.WlSurface(host[proto.IWlSurface])
	seed(1, func(w *wire.Writer) { // keymap
		w.Begin(wire.ID(kb), proto.EvWlKeyboardKeymap)
		w.Uint(1)
		w.Uint(16)
		w.End()
		kb.SendEnter(w, 1, surface, []byte{1, 0, 0, 0})
	})
	seed(1, func(w *wire.Writer) {
		w.Begin(host[proto.IWlDataSource], proto.EvWlDataSourceSend)
		w.String("text/plain")
		w.End()
		dd.SendDataOffer(w, proto.WlDataOffer(wire.ServerIDs))
		proto.WlDataOffer(wire.ServerIDs).SendOffer(w, "text/html")
		dd.SendSelection(w, proto.WlDataOffer(wire.ServerIDs))
	})
	seed(0, func(w *wire.Writer) {
		top.SendConfigure(w, 1, 2, []byte{1, 0, 0, 0})
		top.SendClose(w)
		pt.SendEnter(w, 1, surface, 3, 4)
		pt.SendFrame(w)
		proto.WlBuffer(host[proto.IWlBuffer]).SendRelease(w)
		proto.WlDisplay(1).SendDeleteId(w, uint32(surface))
		proto.WlDisplay(1).SendError(w, wire.ID(surface), 3, "no")
	})
	seed(0, func(w *wire.Writer) {
		proto.WlRegistry(2).SendGlobal(w, 999, "wl_output", 4)
		proto.WlRegistry(2).SendGlobalRemove(w, 999)
	})
	f.Fuzz(func(t *testing.T, data []byte, fds uint8) {
		b := newBench(t)
		b.setUp(t)
		var oob []byte
		var files []*dmabuf.FD
		var raws []int
		for range fds % 4 {
			fd, err := dmabuf.NewMemfd("fuzz", 4096)
			if err != nil {
				t.Fatal(err)
			}
			files, raws = append(files, fd), append(raws, fd.Int())
		}
		if len(raws) > 0 {
			oob = unix.UnixRights(raws...)
		}
		data = data[:min(len(data), 1<<14)]
		if len(data) > 0 {
			if err := unix.Sendmsg(b.host.FD(), data, oob, nil, unix.MSG_DONTWAIT); err != nil {
				t.Fatal(err)
			}
		}
		for _, fd := range files {
			_ = fd.Close()
		}
		c := b.c
		c.mu.Lock()
		_, err := c.conn.Receive()
		for more := true; more && err == nil; {
			if more, err = c.dispatch(); more {
				c.out.Reset()
				for i := range c.items {
					c.items[i].Close()
				}
				c.items = nil
			}
		}
		c.mu.Unlock()
		b.close(err)
		if c.nBuffers != 0 || c.hostBytes != 0 || c.nPools != 0 {
			t.Errorf("%d buffers, %d bytes, %d pools are left", c.nBuffers, c.hostBytes, c.nPools)
		}
	})
}

var frameRequests = func() []byte {
	var w wire.Writer
	proto.WlSurface(12).Attach(&w, 19, 0, 0)
	proto.WlSurface(12).Damage(&w, 0, 0, 10, 10)
	proto.WlSurface(12).Frame(&w, 30)
	proto.WlSurface(12).Commit(&w)
	return append([]byte(nil), w.Unsent()...)
}()

// frame sends the requests of a frame and the compositor's answer: release, callback,
// delete_id.
func (b *bench) frame(t testing.TB, answer []byte, buf []byte) {
	c := b.c
	if err := c.take(Chunk{Data: frameRequests}); err != nil {
		t.Fatal(err)
	}
	for {
		if n, _ := unix.Read(b.host.FD(), buf); n <= 0 {
			break
		}
	}
	if _, err := unix.Write(b.host.FD(), answer); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.conn.Receive(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.dispatch(); err != nil {
		t.Fatal(err)
	}
	c.out.Reset()
}

// answerTo returns the compositor's answer to a frame.
func (b *bench) answerTo(t testing.TB) []byte {
	if err := b.c.take(Chunk{Data: frameRequests}); err != nil {
		t.Fatal(err)
	}
	cb, buf := b.c.objs.guest[30].host, b.c.objs.guest[19].host
	var w wire.Writer
	proto.WlBuffer(buf).SendRelease(&w)
	proto.WlCallback(cb).SendDone(&w, 1)
	proto.WlDisplay(1).SendDeleteId(&w, uint32(cb))
	answer := append([]byte(nil), w.Unsent()...)
	b.drain()
	if _, err := unix.Write(b.host.FD(), answer); err != nil {
		t.Fatal(err)
	}
	b.c.mu.Lock()
	defer b.c.mu.Unlock()
	_, _ = b.c.conn.Receive()
	if _, err := b.c.dispatch(); err != nil {
		t.Fatal(err)
	}
	b.c.out.Reset()
	return answer
}

// TestSteadyState: a frame allocates nothing.
func TestSteadyState(t *testing.T) {
	b := newBench(t)
	defer b.close(io.EOF)
	b.setUp(t)
	answer, buf := b.answerTo(t), make([]byte, 4096)
	if n := testing.AllocsPerRun(200, func() { b.frame(t, answer, buf) }); n > 0 {
		t.Errorf("%v allocations for a frame", n)
	}
}

// BenchmarkFrame is a whole frame: attach, damage, frame, commit, and the
// compositor's release, done and delete_id, over a real socket.
func BenchmarkFrame(b *testing.B) {
	x := newBench(b)
	defer x.close(io.EOF)
	x.setUp(b)
	answer, buf := x.answerTo(b), make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		x.frame(b, answer, buf)
	}
}

// BenchmarkRequest is the forwarding of one request, without the socket.
func BenchmarkRequest(b *testing.B) {
	x := newBench(b)
	defer x.close(io.EOF)
	x.setUp(b)
	msg := make([]byte, 24)
	binary.LittleEndian.PutUint32(msg, 12)
	binary.LittleEndian.PutUint32(msg[4:], 24<<16|proto.OpWlSurfaceDamage)
	raw, _, err := wire.Frame(msg, wire.MaxMessage)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := x.c.request(raw); err != nil {
			b.Fatal(err)
		}
		x.c.conn.Out.Reset()
	}
}

// BenchmarkEvent is the forwarding of one event, without the socket.
func BenchmarkEvent(b *testing.B) {
	x := newBench(b)
	defer x.close(io.EOF)
	x.setUp(b)
	msg := make([]byte, 20)
	binary.LittleEndian.PutUint32(msg, uint32(x.c.objs.guest[16].host))
	binary.LittleEndian.PutUint32(msg[4:], 20<<16|proto.EvWlPointerMotion)
	raw, _, err := wire.Frame(msg, wire.MaxMessage)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := x.c.event(raw); err != nil {
			b.Fatal(err)
		}
		x.c.out.Reset()
	}
}
