package relay_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/link"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

const (
	idSeat, idKeyboard, idManager, idDevice, idSource = 20, 21, 22, 23, 24
	idOffer                                           = wire.ServerIDs
)

func TestKeymap(t *testing.T) {
	r := newRig(t, nil)
	r.setup()
	r.send(func(w *wire.Writer) {
		proto.WlRegistry(idRegistry).Bind(w, 9, "wl_seat", 7, idSeat)
		proto.WlSeat(idSeat).GetKeyboard(w, idKeyboard)
	})
	r.want(idRegistry, proto.OpWlRegistryBind)
	r.want(idSeat, proto.OpWlSeatGetKeyboard)
	text := []byte(strings.Repeat("xkb_keymap {};\n", 4000))
	r.event(func(w *wire.Writer) { keymapEvent(w, uint32(len(text))) }, link.Item{Kind: link.ItemBytes, Bytes: text})
	m := r.wantEvent(idKeyboard, proto.EvWlKeyboardKeymap)
	var ev proto.WlKeyboardKeymapEvent
	if err := ev.Decode(m); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ev.Fd.Close() }()
	for _, flags := range []int{unix.MAP_PRIVATE, unix.MAP_SHARED} { // clients before version 7 share
		mem, err := unix.Mmap(ev.Fd.Int(), 0, int(ev.Size), unix.PROT_READ, flags)
		if err != nil {
			t.Fatalf("map the keymap: %v", err)
		}
		if !bytes.Equal(mem, text) {
			t.Error("the keymap is another")
		}
		_ = unix.Munmap(mem)
	}
	if _, err := unix.Pwrite(ev.Fd.Int(), []byte("x"), 0); err == nil {
		t.Error("the client can write into the keymap")
	}
}

// keymapEvent writes wl_keyboard.keymap without its descriptor.
func keymapEvent(w *wire.Writer, size uint32) {
	w.Begin(idKeyboard, proto.EvWlKeyboardKeymap)
	w.Uint(1)
	w.Uint(size)
	w.End()
}

// selection binds what a clipboard needs.
func (r *rig) selection() {
	r.t.Helper()
	r.send(func(w *wire.Writer) {
		proto.WlRegistry(idRegistry).Bind(w, 9, "wl_seat", 7, idSeat)
		proto.WlRegistry(idRegistry).Bind(w, 10, "wl_data_device_manager", 3, idManager)
		proto.WlDataDeviceManager(idManager).GetDataDevice(w, idDevice, idSeat)
		proto.WlDataDeviceManager(idManager).CreateDataSource(w, idSource)
	})
	r.want(idRegistry, proto.OpWlRegistryBind)
	r.want(idRegistry, proto.OpWlRegistryBind)
	r.want(idManager, proto.OpWlDataDeviceManagerGetDataDevice)
	r.want(idManager, proto.OpWlDataDeviceManagerCreateDataSource)
}

// TestPaste has the client read what the host's program gives, in pieces with pauses:
// the end comes only with the end.
func TestPaste(t *testing.T) {
	r := newRig(t, nil)
	r.setup()
	r.selection()
	r.event(func(w *wire.Writer) { proto.WlDataDevice(idDevice).SendDataOffer(w, proto.WlDataOffer(idOffer)) })
	r.wantEvent(idDevice, proto.EvWlDataDeviceDataOffer)
	p := pipe(t)
	r.send(func(w *wire.Writer) { proto.WlDataOffer(idOffer).Receive(w, "text/plain", p.w) })
	m := r.want(idOffer, proto.OpWlDataOfferReceive)
	if len(m.items) != 1 || m.items[0].Kind != link.ItemPipe {
		t.Fatalf("items %+v, want a pipe", m.items)
	}
	end, err := r.host.AcceptPipe(m.items[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(end.Disown()), "host's program")
	want := bytes.Repeat([]byte("pieces "), 50000)
	go func() {
		for _, part := range [][]byte{want[:1], want[1:100], want[100:]} {
			_, _ = f.Write(part)
			time.Sleep(5 * time.Millisecond)
		}
		_ = f.Close()
	}()
	got, err := io.ReadAll(p.file)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes (%v), want %d", len(got), err, len(want))
	}
	_ = p.file.Close()
}

// TestCopyAndLeave has the client give data to the host and end at once: all of it
// arrives.
func TestCopyAndLeave(t *testing.T) {
	r := newRig(t, nil)
	r.setup()
	r.selection()
	p := pipe(t)
	id, err := r.host.NamePipe(p.w)
	if err != nil {
		t.Fatal(err)
	}
	r.event(func(w *wire.Writer) {
		w.Begin(idSource, proto.EvWlDataSourceSend)
		w.String("text/plain")
		w.End()
	}, link.Item{Kind: link.ItemPipe, ID: id})
	m := r.wantEvent(idSource, proto.EvWlDataSourceSend)
	var ev proto.WlDataSourceSendEvent
	if err := ev.Decode(m); err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(ev.Fd.Disown()), "client's data")
	want := bytes.Repeat([]byte("data"), 1<<18)
	left := make(chan struct{})
	go func() {
		defer close(left)
		_, _ = f.Write(want)
		_ = f.Close()
		_ = r.client.Close()
	}()
	got, err := io.ReadAll(p.file)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes (%v), want %d", len(got), err, len(want))
	}
	_ = p.file.Close()
	<-left
}

type testPipe struct {
	file *os.File // the read end
	w    *dmabuf.FD
}

func pipe(t testing.TB) testPipe {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(p[0], true); err != nil {
		t.Fatal(err)
	}
	return testPipe{os.NewFile(uintptr(p[0]), "read end"), dmabuf.NewFD(p[1], "write end")}
}

// TestForeignDMABuf has a buffer that no device of ours knows.
func TestForeignDMABuf(t *testing.T) {
	r := newRig(t, nil)
	r.setup()
	params := proto.ZwpLinuxBufferParamsV1(idParams)
	r.send(func(w *wire.Writer) {
		proto.ZwpLinuxDmabufV1(idDmabuf).CreateParams(w, idParams)
		params.Add(w, memfd(t, 4096), 0, 0, 128, 0, 0)
		params.Create(w, 32, 32, uint32(dmabuf.XRGB8888), 0)
		params.Destroy(w)
		proto.ZwpLinuxDmabufV1(idDmabuf).CreateParams(w, idParams+100)
		proto.ZwpLinuxBufferParamsV1(idParams+100).Add(w, memfd(t, 4096), 0, 0, 128, 0, 0)
		proto.ZwpLinuxBufferParamsV1(idParams+100).CreateImmed(w, idBuffer, 32, 32, uint32(dmabuf.XRGB8888), 0)
	})
	r.want(idDmabuf, proto.OpZwpLinuxDmabufV1CreateParams)
	r.want(idParams, proto.OpZwpLinuxBufferParamsV1Destroy)
	r.wantEvent(idParams, proto.EvZwpLinuxBufferParamsV1Failed)
	t.Log(r.wantError(idParams+100, uint32(proto.ZwpLinuxBufferParamsV1ErrorInvalidWlBuffer)))
}

func TestGlobals(t *testing.T) {
	r := newRig(t, nil)
	r.send(func(w *wire.Writer) { proto.WlDisplay(1).GetRegistry(w, idRegistry) })
	r.want(1, proto.OpWlDisplayGetRegistry)
	reg := proto.WlRegistry(idRegistry)
	r.event(func(w *wire.Writer) {
		reg.SendGlobal(w, 1, "wl_compositor", 99)
		reg.SendGlobal(w, 2, "zwlr_screencopy_manager_v1", 3)
		reg.SendGlobal(w, 3, "wp_linux_drm_syncobj_manager_v1", 1)
		reg.SendGlobal(w, 4, "wp_security_context_manager_v1", 1)
		reg.SendGlobal(w, 5, "wl_shm", 1)
	})
	for _, want := range []proto.WlRegistryGlobalEvent{
		{Name: 1, Interface: "wl_compositor", Version: proto.Interfaces[proto.IWlCompositor].Version},
		{Name: 5, Interface: "wl_shm", Version: 1},
	} {
		var ev proto.WlRegistryGlobalEvent
		if err := ev.Decode(r.wantEvent(idRegistry, proto.EvWlRegistryGlobal)); err != nil {
			t.Fatal(err)
		}
		if ev != want {
			t.Errorf("global %+v, want %+v", ev, want)
		}
	}
}

// TestIDs has the client use an id again as soon as it may.
func TestIDs(t *testing.T) {
	r := newRig(t, nil)
	for range 300 {
		r.nothing()
	}
}

// TestHostLeaves has the host end a client, in both ways.
func TestHostLeaves(t *testing.T) {
	t.Run("error", func(t *testing.T) {
		r := newRig(t, nil)
		r.setup()
		r.event(func(w *wire.Writer) { proto.WlDisplay(1).SendError(w, idSurface, 3, "told by the host") })
		_ = r.host.Close()
		if text := r.wantError(idSurface, 3); text != "told by the host" {
			t.Errorf("error %q", text)
		}
	})
	t.Run("frame", func(t *testing.T) {
		r := newRig(t, nil)
		r.setup()
		r.host.Fail(errors.New("too much of it"))
		_ = r.host.Close()
		if text := r.wantError(1, 3); !strings.Contains(text, "too much of it") {
			t.Errorf("error %q", text)
		}
	})
	t.Run("gone", func(t *testing.T) {
		r := newRig(t, nil)
		r.setup()
		_ = r.host.Close()
		r.wantError(1, 3)
	})
}

// TestHostileHost has a host that sends what makes no sense: the client ends, and
// nothing is left.
func TestHostileHost(t *testing.T) {
	for name, send := range map[string]func(r *rig){
		"unknown object": func(r *rig) { r.event(func(w *wire.Writer) { proto.WlBuffer(777).SendRelease(w) }) },
		"unknown event":  func(r *rig) { r.event(func(w *wire.Writer) { w.Begin(idSurface, 99); w.End() }) },
		"no item": func(r *rig) {
			r.send(func(w *wire.Writer) {
				proto.WlRegistry(idRegistry).Bind(w, 9, "wl_seat", 7, idSeat)
				proto.WlSeat(idSeat).GetKeyboard(w, idKeyboard)
			})
			r.want(idRegistry, proto.OpWlRegistryBind)
			r.want(idSeat, proto.OpWlSeatGetKeyboard)
			r.event(func(w *wire.Writer) { keymapEvent(w, 5) })
		},
		"too many items": func(r *rig) {
			r.event(func(w *wire.Writer) { proto.WlDisplay(1).SendDeleteId(w, idShm) }, link.Item{Kind: link.ItemBytes, Bytes: []byte("x")})
		},
		"half a message": func(r *rig) {
			if err := r.host.WriteWayland(nil, []byte{1, 0, 0, 0, 1, 0, 12, 0}); err != nil {
				r.t.Fatal(err)
			}
		},
		"client's id":  func(r *rig) { r.event(func(w *wire.Writer) { proto.WlDisplay(1).SendDeleteId(w, 4711) }) },
		"bad argument": func(r *rig) { r.event(func(w *wire.Writer) { w.Begin(1, proto.EvWlDisplayDeleteId); w.End() }) },
		"bad server id": func(r *rig) {
			r.selection()
			r.event(func(w *wire.Writer) { proto.WlDataDevice(idDevice).SendDataOffer(w, 500) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.setup()
			send(r)
			t.Log(r.wantError(1, 3))
		})
	}
}

// TestBadClients has clients that break the protocol: each ends with an error, and the
// host has got what came before.
func TestBadClients(t *testing.T) {
	for name, c := range map[string]struct {
		object wire.ID
		code   uint32
		do     func(r *rig, w *wire.Writer)
	}{
		"unknown object":  {1, 0, func(_ *rig, w *wire.Writer) { proto.WlSurface(999).Commit(w) }},
		"unknown request": {1, 1, func(_ *rig, w *wire.Writer) { w.Begin(idSurface, 77); w.End() }},
		"too new":         {1, 1, func(_ *rig, w *wire.Writer) { proto.WlSurface(idSurface).GetRelease(w, 50) }},
		"short":           {1, 1, func(_ *rig, w *wire.Writer) { w.Begin(idSurface, proto.OpWlSurfaceAttach); w.Uint(0); w.End() }},
		"long":            {1, 1, func(_ *rig, w *wire.Writer) { w.Begin(idSurface, proto.OpWlSurfaceCommit); w.Uint(0); w.End() }},
		"id in use":       {1, 0, func(_ *rig, w *wire.Writer) { proto.WlCompositor(idCompositor).CreateSurface(w, idShm) }},
		"server's id": {1, 0, func(_ *rig, w *wire.Writer) {
			proto.WlCompositor(idCompositor).CreateSurface(w, proto.WlSurface(wire.ServerIDs))
		}},
		"null id":           {1, 1, func(_ *rig, w *wire.Writer) { proto.WlCompositor(idCompositor).CreateSurface(w, 0) }},
		"unknown interface": {1, 0, func(_ *rig, w *wire.Writer) { proto.WlRegistry(idRegistry).Bind(w, 7, "zwlr_layer_shell_v1", 1, 50) }},
		"version 0":         {1, 0, func(_ *rig, w *wire.Writer) { proto.WlRegistry(idRegistry).Bind(w, 7, "wl_seat", 0, 50) }},
		"version 99":        {1, 0, func(_ *rig, w *wire.Writer) { proto.WlRegistry(idRegistry).Bind(w, 7, "wl_seat", 99, 50) }},
		"security context": {1, 0, func(_ *rig, w *wire.Writer) {
			proto.WlRegistry(idRegistry).Bind(w, 7, "wp_security_context_manager_v1", 1, 50)
		}},
		"timelines": {1, 0, func(_ *rig, w *wire.Writer) {
			proto.WlRegistry(idRegistry).Bind(w, 0xfffffff0, "wp_linux_drm_syncobj_manager_v1", 1, 50)
		}},
		"used after destroy": {1, 0, func(_ *rig, w *wire.Writer) {
			proto.WlSurface(idSurface).Destroy(w)
			proto.WlSurface(idSurface).Commit(w)
		}},
		"not a buffer": {1, 0, func(_ *rig, w *wire.Writer) { proto.WlSurface(idSurface).Attach(w, idShm, 0, 0) }},
		"no descriptor": {1, 1, func(_ *rig, w *wire.Writer) {
			w.Begin(idShm, proto.OpWlShmCreatePool)
			w.Uint(50)
			w.Int(4096)
			w.End()
		}},
		"descriptors that nobody asked for": {1, 1, func(r *rig, w *wire.Writer) {
			for i := range uint32(8) {
				w.Begin(1, proto.OpWlDisplaySync)
				w.Uint(50 + i)
				for range 28 {
					w.FD(memfd(r.t, 1))
				}
				w.End()
			}
		}},
		"string without its end": {1, 1, func(_ *rig, w *wire.Writer) {
			w.Begin(idRegistry, proto.OpWlRegistryBind)
			w.Uint(1)
			w.Uint(4)
			w.Uint(0x41414141)
			w.Uint(1)
			w.Uint(50)
			w.End()
		}},
		"string longer than the message": {1, 1, func(_ *rig, w *wire.Writer) {
			w.Begin(idRegistry, proto.OpWlRegistryBind)
			w.Uint(1)
			w.Uint(0xfffffffc)
			w.Uint(1)
			w.Uint(50)
			w.End()
		}},
		"pool is no pool": {1, 0, func(r *rig, w *wire.Writer) {
			proto.WlShm(idShm).CreatePool(w, idPool, memfd(r.t, 4096), 4096)
			proto.WlShmPool(idPool).Destroy(w)
			proto.WlShmPool(idPool).CreateBuffer(w, idBuffer, 0, 1, 1, 4, 0)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.setup()
			r.send(func(w *wire.Writer) {
				proto.WlSurface(idSurface).SetBufferScale(w, 3)
				c.do(r, w)
			})
			r.want(idSurface, proto.OpWlSurfaceSetBufferScale)
			t.Log(r.wantError(c.object, c.code))
		})
	}
}

// TestRawBytes has clients that do not speak Wayland.
func TestRawBytes(t *testing.T) {
	for _, raw := range []string{"GET / HTTP/1.1\r\n\r\n", "\x00\x00\x00\x00\x00\x00\x08\x00", "\x01\x00\x00\x00\x00\x00\x07\x00", "\x01\x00\x00\x00\x00\x00\x04\x00"} {
		t.Run(fmt.Sprintf("%.8x", raw), func(t *testing.T) {
			r := newRig(t, nil)
			if _, err := unix.Write(r.client.FD(), []byte(raw)); err != nil {
				t.Fatal(err)
			}
			t.Log(r.wantError(1, 1))
		})
	}
}

// TestSlowClient has a client that reads nothing for a while: the host waits and
// nothing is lost.
func TestSlowClient(t *testing.T) {
	r := newRig(t, nil)
	r.setup()
	const events = 200000 // 2.4 MB, and more than socket and buffers take
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		one := encode(t, func(w *wire.Writer) { proto.WlSurface(idSurface).SendEnter(w, idShm) })
		batch := bytes.Repeat(one, 1000)
		for range events / 1000 {
			if r.host.WriteWayland(nil, batch) != nil {
				return
			}
		}
	}()
	time.Sleep(100 * time.Millisecond)
	for range events {
		r.wantEvent(idSurface, proto.EvWlSurfaceEnter)
	}
	<-sent
}
