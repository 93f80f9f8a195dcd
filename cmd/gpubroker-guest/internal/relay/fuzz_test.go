package relay_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/link"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/relay"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/shm"
)

// FuzzClient has a client that sends anything, and as many descriptors as the input
// says: the relay ends it or goes on, leaks nothing, and the host gets whole messages.
func FuzzClient(f *testing.F) {
	seed := func(fds byte, add func(w *wire.Writer)) {
		f.Add(encode(f, func(w *wire.Writer) {
			proto.WlDisplay(1).GetRegistry(w, idRegistry)
			proto.WlRegistry(idRegistry).Bind(w, 1, "wl_compositor", 5, idCompositor)
			proto.WlRegistry(idRegistry).Bind(w, 2, "wl_shm", 1, idShm)
			proto.WlRegistry(idRegistry).Bind(w, 3, "zwp_linux_dmabuf_v1", 4, idDmabuf)
			proto.WlCompositor(idCompositor).CreateSurface(w, idSurface)
			if add != nil {
				add(w)
			}
		}), fds)
	}
	// Messages with descriptors are written without them; fds are sent in front.
	pool := func(w *wire.Writer) {
		w.Begin(idShm, proto.OpWlShmCreatePool)
		w.Uint(idPool)
		w.Int(4096)
		w.End()
	}
	seed(0, nil)
	seed(1, func(w *wire.Writer) {
		pool(w)
		proto.WlShmPool(idPool).CreateBuffer(w, idBuffer, 0, 32, 32, 128, 0)
		s := proto.WlSurface(idSurface)
		s.Attach(w, idBuffer, 0, 0)
		s.Damage(w, 0, 0, 5, 5)
		s.DamageBuffer(w, 30, 30, 5, 5)
		s.SetBufferScale(w, 2)
		s.Commit(w)
		proto.WlBuffer(idBuffer).Destroy(w)
		s.Commit(w)
		proto.WlShmPool(idPool).Resize(w, 8192)
		proto.WlShmPool(idPool).Destroy(w)
		s.Destroy(w)
	})
	seed(0, pool)
	seed(9, pool)
	seed(1, func(w *wire.Writer) {
		proto.ZwpLinuxDmabufV1(idDmabuf).CreateParams(w, idParams)
		w.Begin(idParams, proto.OpZwpLinuxBufferParamsV1Add)
		for range 5 {
			w.Uint(0)
		}
		w.End()
		proto.ZwpLinuxBufferParamsV1(idParams).Create(w, 32, 32, 0x34325258, 0)
		proto.ZwpLinuxBufferParamsV1(idParams).CreateImmed(w, idBuffer, 32, 32, 0x34325258, 0)
	})
	f.Add([]byte{1, 0, 0, 0, 0, 0, 8, 0}, byte(0))
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0xff, 0xff}, byte(28))
	f.Fuzz(func(t *testing.T, raw []byte, fds byte) {
		if len(raw) > 1<<14 {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		hostEnd, guestEnd := streams(t)
		var wg sync.WaitGroup
		wg.Go(func() {
			host, _, err := link.ServerHandshake(ctx, hostEnd, link.Limits{}, func(*link.Hello) (uint16, error) { return 0, nil })
			if err != nil {
				t.Errorf("handshake: %v", err)
				return
			}
			checkHost(t, host)
			_ = host.Close()
		})
		conn, _, err := link.ClientHandshake(ctx, guestEnd, link.Hello{}, link.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		mine, its := pair(t)
		cfg := relay.Config{Name: "fuzz", Log: slog.New(slog.DiscardHandler),
			Store: &shm.Store{Shared: &shm.Totals{}, NoImport: errors.New("none in this test")}}
		c, err := relay.NewClient(cfg, its, conn, &relay.Stats{})
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { _ = c.Run(ctx); close(ended) }()
		var rights []byte
		if n := int(fds % 29); n > 0 {
			list := make([]int, n)
			mem := memfd(t, 4096)
			for i := range list {
				list[i] = mem.Int()
			}
			rights = unix.UnixRights(list...)
			defer func() { _ = mem.Close() }()
		}
		if len(raw) > 0 {
			_ = unix.Sendmsg(mine.Int(), raw, rights, nil, unix.MSG_NOSIGNAL)
		}
		_ = unix.Shutdown(mine.Int(), unix.SHUT_WR)
		select {
		case <-ended:
		case <-time.After(2 * patience):
			t.Fatal("the relay does not end")
		}
		_ = mine.Close()
		wg.Wait()
	})
}

// checkHost reads what the host gets, to the end.
func checkHost(t *testing.T, host *link.Conn) {
	for {
		f, err := host.Recv()
		if err != nil {
			if errors.Is(err, link.ErrProtocol) || errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("the host reads: %v", err)
			}
			return
		}
		if f.Type == link.TypeUpdate {
			var u link.Update
			if err := u.Decode(f.Payload); err != nil {
				t.Errorf("update: %v", err)
			}
			continue
		}
		_, data, err := link.DecodeWayland(f.Payload, link.Guest, nil)
		if err != nil {
			t.Errorf("Wayland frame: %v", err)
		}
		for len(data) > 0 {
			_, n, err := wire.Frame(data, wire.MaxMessage)
			if err != nil || n == 0 {
				t.Errorf("half a message of %d bytes: %v", len(data), err)
				return
			}
			data = data[n:]
		}
	}
}
