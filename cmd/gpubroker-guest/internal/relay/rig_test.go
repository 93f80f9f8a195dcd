package relay_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/link"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/relay"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/shm"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
)

func TestMain(m *testing.M) { fdtest.Main(m) }

const patience = 10 * time.Second

// rig is a relay between a client and a host that the test plays.
type rig struct {
	t      testing.TB
	client *wire.Conn // the client's end
	host   *link.Conn // the host's end
	stats  *relay.Stats
	ended  chan error
	cancel context.CancelFunc

	frames chan any // what the host received: message or link.Update

	items []link.Item // that came with the messages that were wanted
}

// message is a request as the host got it.
type message struct {
	object wire.ID
	opcode uint16
	body   []byte
	items  []link.Item // of the frame that it came in
}

func pair(t testing.TB) (a, b *dmabuf.FD) {
	t.Helper()
	raw, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return dmabuf.NewFD(raw[0], "test client"), dmabuf.NewFD(raw[1], "test relay")
}

// streams are two ends of a connection of this machine.
func streams(t testing.TB) (a, b net.Conn) {
	t.Helper()
	x, y := pair(t)
	conn := func(fd *dmabuf.FD) net.Conn {
		f := os.NewFile(uintptr(fd.Disown()), "stream")
		defer func() { _ = f.Close() }()
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	return conn(x), conn(y)
}

func newRig(t testing.TB, change func(*relay.Config)) *rig {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	hostEnd, guestEnd := streams(t)
	r := &rig{t: t, stats: &relay.Stats{}, ended: make(chan error, 1), cancel: cancel, frames: make(chan any, 4096)}
	ready := make(chan error, 1)
	go func() {
		var err error
		r.host, _, err = link.ServerHandshake(ctx, hostEnd, link.Limits{}, func(*link.Hello) (uint16, error) {
			return link.FlagGPUResources | link.FlagImportResources, nil
		})
		ready <- err
	}()
	conn, _, err := link.ClientHandshake(ctx, guestEnd, link.Hello{Flags: link.FlagCompressed, Name: "test"}, link.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	go r.receive()
	mine, its := pair(t)
	if r.client, err = wire.NewConn(mine, 1<<16); err != nil {
		t.Fatal(err)
	}
	cfg := relay.Config{Name: "test", Log: slog.New(slog.DiscardHandler),
		Store: &shm.Store{Shared: &shm.Totals{}, NoImport: errors.New("none in this test")}}
	if change != nil {
		change(&cfg)
	}
	c, err := relay.NewClient(cfg, its, conn, r.stats)
	if err != nil {
		t.Fatal(err)
	}
	go func() { r.ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		_ = r.client.Close()
		select {
		case <-r.ended:
		case <-time.After(patience):
			t.Error("the relay does not end when its client does")
			cancel()
			<-r.ended
		}
		cancel()
		_ = r.host.Close()
	})
	return r
}

// receive takes apart what comes to the host.
func (r *rig) receive() {
	defer close(r.frames)
	for {
		f, err := r.host.Recv()
		if err != nil {
			return
		}
		if f.Type == link.TypeUpdate {
			var u link.Update
			if err := u.Decode(f.Payload); err != nil {
				r.t.Errorf("update: %v", err)
				return
			}
			pixels, err := u.Unpack(nil)
			if err != nil {
				r.t.Errorf("update: %v", err)
				return
			}
			u.Pixels = bytes.Clone(pixels)
			r.frames <- u
			continue
		}
		items, data, err := link.DecodeWayland(f.Payload, link.Guest, nil)
		if err != nil {
			r.t.Errorf("Wayland frame: %v", err)
			return
		}
		for i := range items {
			items[i].Bytes = bytes.Clone(items[i].Bytes)
		}
		for len(data) > 0 {
			m, n, err := wire.Frame(data, 1<<16-4)
			if err != nil || n == 0 {
				r.t.Errorf("the host got half a message: %v", err)
				return
			}
			r.frames <- message{m.Object, m.Opcode, bytes.Clone(m.Body), items}
			items = nil
			data = data[n:]
		}
	}
}

// send writes requests of the client.
func (r *rig) send(f func(w *wire.Writer)) {
	r.t.Helper()
	f(&r.client.Out)
	for {
		if err := r.client.Flush(); errors.Is(err, wire.ErrClosed) {
			return // the relay has ended the client; the test reads why
		} else if err != nil {
			r.t.Fatal(err)
		}
		if r.client.Out.Pending() == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// next returns what the host gets next.
func (r *rig) next() any {
	r.t.Helper()
	select {
	case f, ok := <-r.frames:
		if !ok {
			r.t.Fatal("the connection to the host has ended")
		}
		return f
	case <-time.After(patience):
		r.t.Fatal("the host gets nothing")
		return nil
	}
}

// want returns the host's next message, which must be this one.
func (r *rig) want(object wire.ID, opcode uint16) message {
	r.t.Helper()
	f := r.next()
	m, ok := f.(message)
	if !ok || m.object != object || m.opcode != opcode {
		r.t.Fatalf("the host got %+v, want request %d of object %d", f, opcode, object)
	}
	r.items = append(r.items, m.items...)
	return m
}

// nothing checks that the host has got nothing more: a message sent now comes first.
func (r *rig) nothing() {
	r.t.Helper()
	r.send(func(w *wire.Writer) { proto.WlDisplay(1).Sync(w, 4000) })
	m := r.want(1, proto.OpWlDisplaySync)
	if got := binary.LittleEndian.Uint32(m.body); got != 4000 {
		r.t.Fatalf("sync of %d, want 4000", got)
	}
	r.event(func(w *wire.Writer) { proto.WlCallback(4000).SendDone(w, 0) })
	r.event(func(w *wire.Writer) { proto.WlDisplay(1).SendDeleteId(w, 4000) })
	r.wantEvent(4000, proto.EvWlCallbackDone)
	r.wantEvent(1, proto.EvWlDisplayDeleteId)
}

// event sends events of the host, with items.
func (r *rig) event(f func(w *wire.Writer), items ...link.Item) {
	r.t.Helper()
	if err := r.host.WriteWayland(items, encode(r.t, f)); err != nil {
		r.t.Fatal(err)
	}
}

// encode returns the bytes of messages without descriptors.
func encode(t testing.TB, f func(w *wire.Writer)) []byte {
	t.Helper()
	x, y := pair(t)
	defer func() { _ = y.Close() }()
	c, err := wire.NewConn(x, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	f(&c.Out)
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<16)
	n, err := unix.Read(y.Int(), buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

// nextEvent returns the client's next event.
func (r *rig) nextEvent() (wire.Message, bool) {
	r.t.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		m, ok, err := r.client.Next()
		if err != nil {
			r.t.Fatal(err)
		}
		if ok {
			return m, true
		}
		n, err := r.client.Receive()
		if errors.Is(err, wire.ErrClosed) {
			return wire.Message{}, false
		}
		if err != nil {
			r.t.Fatal(err)
		}
		if n == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	r.t.Fatal("the client gets nothing")
	return wire.Message{}, false
}

// wantEvent returns the client's next event, which must be this one.
func (r *rig) wantEvent(object wire.ID, opcode uint16) wire.Message {
	r.t.Helper()
	m, ok := r.nextEvent()
	if !ok {
		r.t.Fatalf("the client's connection has ended, want event %d of object %d", opcode, object)
	}
	if m.Object != object || m.Opcode != opcode {
		r.t.Fatalf("the client got event %d of object %d, %q, want event %d of object %d", m.Opcode, m.Object, m.Body, opcode, object)
	}
	return m
}

// wantError waits for the client's end with a protocol error.
func (r *rig) wantError(object wire.ID, code uint32) string {
	r.t.Helper()
	for {
		m, ok := r.nextEvent()
		if !ok {
			r.t.Fatal("the connection ended without an error")
		}
		if m.Object != wire.DisplayID || m.Opcode != proto.EvWlDisplayError {
			continue
		}
		var ev proto.WlDisplayErrorEvent
		if err := ev.Decode(m); err != nil {
			r.t.Fatal(err)
		}
		if ev.ObjectId != object || ev.Code != code {
			r.t.Fatalf("error %d of object %d (%s), want %d of %d", ev.Code, ev.ObjectId, ev.Message, code, object)
		}
		if _, ok := r.nextEvent(); ok {
			r.t.Fatal("events after the error")
		}
		return ev.Message
	}
}

// memfd makes a client's memory.
func memfd(t testing.TB, size int64) *dmabuf.FD {
	t.Helper()
	raw, err := unix.MemfdCreate("test pool", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(raw, size); err != nil {
		t.Fatal(err)
	}
	return dmabuf.NewFD(raw, "test pool")
}

// The ids that setup gives.
const (
	idRegistry   = 2
	idCompositor = 3
	idShm        = 4
	idSurface    = 5
	idPool       = 6
	idBuffer     = 7
	idParams     = 8
	idDmabuf     = 9
)

// setup binds what most tests need and makes a surface. The host has got it all.
func (r *rig) setup() {
	r.t.Helper()
	r.send(func(w *wire.Writer) {
		proto.WlDisplay(1).GetRegistry(w, idRegistry)
		proto.WlRegistry(idRegistry).Bind(w, 1, "wl_compositor", 5, idCompositor)
		proto.WlRegistry(idRegistry).Bind(w, 2, "wl_shm", 1, idShm)
		proto.WlRegistry(idRegistry).Bind(w, 3, "zwp_linux_dmabuf_v1", 4, idDmabuf)
		proto.WlCompositor(idCompositor).CreateSurface(w, idSurface)
	})
	r.want(1, proto.OpWlDisplayGetRegistry)
	for range 3 {
		r.want(idRegistry, proto.OpWlRegistryBind)
	}
	r.want(idCompositor, proto.OpWlCompositorCreateSurface)
}
