package apps

import (
	"context"
	"encoding/binary"
	"testing"

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

// TestWithTheProxy: a client's first words reach a compositor, and its answer comes
// back, over each carrier.
func TestWithTheProxy(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{})
	p, err := proxy.New(proxy.Config{Display: comp.Socket(), Resources: noResources{}, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	s, dial := carriers(t, p)
	defer s.Close()
	// wl_display.get_registry(2), wl_display.sync(3)
	var ask []byte
	for i, id := range []uint32{2, 3} {
		ask = binary.LittleEndian.AppendUint32(ask, 1)
		ask = binary.LittleEndian.AppendUint32(ask, 12<<16|uint32(1-i))
		ask = binary.LittleEndian.AppendUint32(ask, id)
	}
	for name, open := range dial {
		c := client(t, open(), "")
		if err := c.WriteWayland(nil, ask); err != nil {
			t.Fatal(err)
		}
		globals, done := 0, false
		for !done {
			f, err := c.Recv()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			_, data, err := link.DecodeWayland(f.Payload, link.Host, nil)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := wholeMessages(data, len(data)); err != nil || n != len(data) {
				t.Fatalf("%s: %d of %d bytes are whole messages: %v", name, n, len(data), err)
			}
			for ; len(data) > 0; data = data[nextSize(data):] {
				switch binary.LittleEndian.Uint32(data) {
				case 2:
					globals++
				case 3:
					done = true
				}
			}
		}
		if globals < 3 {
			t.Errorf("%s: %d globals", name, globals)
		}
	}
}
