package apps

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/link"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/broker/wayland/waylandtest"
)

// noResources is a VM without any.
type noResources struct{}

func (noResources) Open(context.Context, proxy.Owner, proxy.DeviceID, uint32) (proxy.Resource, error) {
	return nil, proxy.ErrUnknownResource
}

func (noResources) Formats() []proxy.Format { return nil }

// ask is wl_display.get_registry(2), wl_display.sync(3).
func ask() []byte {
	var p []byte
	for i, id := range []uint32{2, 3} {
		p = binary.LittleEndian.AppendUint32(p, 1)
		p = binary.LittleEndian.AppendUint32(p, 12<<16|uint32(1-i))
		p = binary.LittleEndian.AppendUint32(p, id)
	}
	return p
}

// events returns the messages that come until the stream ends, and how it ends.
func events(t *testing.T, c *link.Conn, until func(object uint32, body []byte) bool) error {
	t.Helper()
	for {
		f, err := c.Recv()
		if err != nil {
			return err
		}
		_, data, err := link.DecodeWayland(f.Payload, link.Host, nil)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := wholeMessages(data, len(data)); err != nil || n != len(data) {
			t.Fatalf("%d of %d bytes are whole messages: %v", n, len(data), err)
		}
		for ; len(data) > 0; data = data[nextSize(data):] {
			if until(binary.LittleEndian.Uint32(data), data[8:nextSize(data)]) {
				return nil
			}
		}
	}
}

// withProxy serves the real proxy, before a compositor, over each carrier.
func withProxy(t *testing.T) map[string]func() io.ReadWriteCloser {
	comp := waylandtest.New(t, waylandtest.Config{})
	p, err := proxy.New(proxy.Config{Display: comp.Socket(), Resources: noResources{}, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	_, dial := carriers(t, p)
	return dial
}

// TestWithTheProxy: a client's first words reach a compositor, and its answer comes
// back, over each carrier.
func TestWithTheProxy(t *testing.T) {
	for name, open := range withProxy(t) {
		c := client(t, open(), "")
		if err := c.WriteWayland(nil, ask()); err != nil {
			t.Fatal(err)
		}
		globals := 0
		err := events(t, c, func(object uint32, _ []byte) bool {
			if object == 2 {
				globals++
			}
			return object == 3
		})
		if err != nil || globals < 3 {
			t.Errorf("%s: %d globals, %v", name, globals, err)
		}
	}
}

// TestReasonArrives: a client that the proxy ends gets the events from before, then
// wl_display.error, then the stream's own word, over each carrier; also when it has
// not read for a while.
func TestReasonArrives(t *testing.T) {
	bad := binary.LittleEndian.AppendUint32(nil, 4242) // an object that does not exist
	bad = binary.LittleEndian.AppendUint32(bad, 8<<16)
	for name, open := range withProxy(t) {
		for _, pause := range []time.Duration{0, 100 * time.Millisecond} {
			c := client(t, open(), "")
			send := func(p []byte) {
				t.Helper()
				if err := c.WriteWayland(nil, p); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			send(ask())
			if pause == 0 { // the first answer has been read
				if err := events(t, c, func(object uint32, _ []byte) bool { return object == 3 }); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				send(bad)
			} else {
				time.Sleep(pause) // the answer is on its way
				send(bad)
				time.Sleep(pause) // so is the error
			}
			globals, text := pause == 0, ""
			err := events(t, c, func(object uint32, body []byte) bool {
				globals = globals || object == 2
				if object == 1 && len(body) > 12 {
					text = string(body[12:])
				}
				return false
			})
			var remote *link.RemoteError
			if !globals || !strings.Contains(text, "object 4242") || !errors.As(err, &remote) || !strings.Contains(remote.Text, "object 4242") {
				t.Errorf("%s, pause %v: globals %v; wl_display.error %q; then %v", name, pause, globals, text, err)
			}
			_ = c.Close()
		}
	}
}
