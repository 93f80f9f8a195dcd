package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	hostvsock "github.com/mdlayher/vsock"
	"go.uber.org/zap/zaptest"

	"github.com/gpubroker/gpubroker/broker/apps"
	"github.com/gpubroker/gpubroker/broker/link"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/broker/wayland/waylandtest"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/inguest"
)

// Ports of the tests, on this machine's own CID.
const (
	ourPort     = 7701
	strangePort = 7702
	echoPort    = 7703
	nobodysPort = 7704
)

// local opens the way to a port of this machine.
func local(t *testing.T, port int) Transport {
	t.Helper()
	tr, _, err := Open(t.Context(), fmt.Sprintf("vsock:1:%d", port), nil)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// TestGuestVSock: the broker's AF_VSOCK listener and the guest's dialler, through the
// kernel. It needs vsock_loopback.
func TestGuestVSock(t *testing.T) {
	inguest.Need(t)
	comp := waylandtest.New(t, waylandtest.Config{})
	p, err := proxy.New(proxy.Config{Display: comp.Socket(), Log: zaptest.NewLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for port, cid := range map[int]int{ourPort: 1, strangePort: 77} {
		s, err := apps.New(apps.Config{Handler: p, VSock: fmt.Sprintf("%d:%d", cid, port), Log: zaptest.NewLogger(t)})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
	}
	t.Run("clients", func(t *testing.T) {
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() { useVSock(t, local(t, ourPort)) })
		}
		wg.Wait()
	})
	t.Run("another CID's port", func(t *testing.T) {
		s, err := local(t, strangePort).Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err = link.ClientHandshake(t.Context(), s, link.Hello{Name: "stranger"}, link.Limits{}); err == nil {
			t.Error("this machine's CID was taken for another's")
		}
	})
	t.Run("volume", func(t *testing.T) {
		l, err := hostvsock.ListenContextID(hostvsock.Local, echoPort, nil)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if c, err := l.Accept(); err == nil {
				echo(t.Context(), c)
			}
		}()
		talk(t, local(t, echoPort), 32<<20)
		_ = l.Close()
		<-done
	})
	t.Run("nobody", func(t *testing.T) {
		if _, err := local(t, nobodysPort).Dial(t.Context()); err == nil || !strings.Contains(err.Error(), "nobody listens") {
			t.Errorf("%v", err)
		}
	})
}

// useVSock is a client that learns the globals, breaks the rules, and hears of it.
func useVSock(t *testing.T, tr Transport) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := tr.Dial(ctx)
	if err != nil {
		t.Error(err)
		return
	}
	c, _, err := link.ClientHandshake(ctx, s, link.Hello{Name: "vsock"}, link.Limits{})
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = c.Close() }()
	var msg []byte
	for _, v := range []uint32{1, 12<<16 | 1, 2, 4242, 8 << 16} { // get_registry(2), and an object that does not exist
		msg = binary.LittleEndian.AppendUint32(msg, v)
	}
	if err := c.WriteWayland(nil, msg); err != nil {
		t.Error(err)
		return
	}
	var got []byte
	for err == nil {
		var f link.Frame
		if f, err = c.Recv(); err == nil && f.Type == link.TypeWayland {
			got = append(got, f.Payload...)
		}
	}
	var remote *link.RemoteError
	if !errors.As(err, &remote) || !strings.Contains(remote.Text, "object 4242") {
		t.Errorf("the end: %v", err)
	}
	for _, want := range []string{"wl_compositor", "object 4242"} {
		if !strings.Contains(string(got), want) {
			t.Errorf("nothing of %q came", want)
		}
	}
}
