package broker_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/input"
	"github.com/gpubroker/gpubroker/broker/unixsock"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
)

// TestHeadSizes follows what the input devices are told of the heads.
func TestHeadSizes(t *testing.T) {
	told := make(chan []input.Size, 16)
	m := newMachine(t, machineConfig{sizes: func(s []input.Size) { told <- s }})
	scanout := func(head, resource, w, h uint32) {
		t.Helper()
		m.ok((&virtiogpu.SetScanout{R: virtiogpu.Rect{Width: w, Height: h}, ScanoutID: head, ResourceID: resource}).Append(nil))
	}
	m.create2D(1, 64, 48)
	m.create2D(2, 64, 48)
	scanout(0, 1, 64, 48)
	scanout(1, 1, 32, 48)
	scanout(0, 2, 64, 48) // a page flip
	scanout(0, 2, 64, 40)
	scanout(0, 0, 0, 0)
	var got [][]input.Size
	for len(told) > 0 {
		got = append(got, <-told)
	}
	want := [][]input.Size{{{W: 64, H: 48}, {}}, {{W: 64, H: 48}, {W: 32, H: 48}}, {{W: 64, H: 40}, {W: 32, H: 48}}, {{}, {W: 32, H: 48}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestServerInput starts a broker with input devices: both sockets answer, and
// nothing is left when it ends.
func TestServerInput(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	cfg := broker.Config{
		Socket: path("gpu"), InputSocket: path("in"), TouchSocket: path("touch"), Virgl: broker.VirglOff, Display: "headless",
		Heads: 1, Mode: display.Mode{Enabled: true, W: 640, H: 480}, Log: zap.NewNop(),
	}
	s, err := broker.NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	second := cfg
	second.Socket = path("gpu2")
	if _, err := broker.NewServer(second); !errors.Is(err, unixsock.ErrInUse) {
		t.Errorf("the same input socket twice: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	s.Close()
}
