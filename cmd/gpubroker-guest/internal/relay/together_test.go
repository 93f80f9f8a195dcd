package relay_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

// TestTogether: what the compositor sent together the client reads in one piece, or a
// client that commits and makes one round trip sees its end without the configure event.
func TestTogether(t *testing.T) {
	r := newRig(t, nil)
	const callbacks = 50
	for range 20 {
		r.send(func(w *wire.Writer) {
			for id := range wire.ID(callbacks) {
				proto.WlDisplay(1).Sync(w, proto.WlCallback(100+id))
			}
		})
		for range callbacks {
			r.want(1, proto.OpWlDisplaySync)
		}
		r.event(func(w *wire.Writer) {
			for id := range wire.ID(callbacks) {
				proto.WlCallback(100+id).SendDone(w, 0)
				proto.WlDisplay(1).SendDeleteId(w, uint32(100+id))
			}
		})
		poll := []unix.PollFd{{Fd: int32(r.client.FD()), Events: unix.POLLIN}}
		if n, err := unix.Poll(poll, int(patience.Milliseconds())); err != nil || n != 1 {
			t.Fatalf("the client gets nothing: %d, %v", n, err)
		}
		if _, err := r.client.Receive(); err != nil {
			t.Fatal(err)
		}
		got := 0
		for {
			_, ok, err := r.client.Next()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			got++
		}
		if got != 2*callbacks {
			t.Fatalf("the first piece has %d events, want all %d", got, 2*callbacks)
		}
	}
}
