package qemudisplay_test

import (
	"bytes"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/edid"
	"github.com/gpubroker/gpubroker/broker/qemudisplay"
	"github.com/gpubroker/gpubroker/broker/qemudisplay/qemudisplaytest"
)

func TestModes(t *testing.T) {
	monitor := edid.Build(edid.Params{Width: 1600, Height: 900, Name: "QEMU Monitor"})
	core, _ := observer.New(zap.DebugLevel)
	q := qemudisplaytest.New(t, qemudisplaytest.Options{Heads: 2, Width: 1600, Height: 900, EDID: func(int) []byte { return monitor }})
	ev := &events{}
	s := qemudisplay.New(qemudisplay.Config{Log: zap.New(core), Events: ev, Mode: display.Mode{W: 1024, H: 768}})
	defer s.Close()
	if m := s.Mode(0); m != (display.Mode{Enabled: true, W: 1024, H: 768}) || s.EDID(0) != nil || s.Mode(1).Enabled {
		t.Errorf("before QEMU: %+v", m)
	}
	fresh := func() {
		t.Helper()
		done := make(chan struct{})
		s.Freshen(func() { close(done) })
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			t.Fatal("Freshen does not answer")
		}
	}
	fresh() // without a display: at once
	s.Attach(q.Connect())
	fresh()
	if m := s.Mode(0); m != (display.Mode{Enabled: true, W: 1600, H: 900}) || !bytes.Equal(s.EDID(0), monitor) {
		t.Errorf("QEMU's: %+v, EDID of %d bytes", m, len(s.EDID(0)))
	}
	if n := ev.modes.Load(); n != 0 {
		t.Errorf("%d mode changes while the guest was asking", n)
	}
	// The window is resized; the guest asks, and the first answer is right.
	q.SetMode(0, 800, 600)
	q.SetMode(1, 640, 480)
	fresh()
	if m := s.Mode(0); m.W != 800 || !s.Mode(1).Enabled || s.EDID(1) == nil || s.Mode(2).Enabled {
		t.Errorf("after a resize: %+v, %+v", m, s.Mode(1))
	}
	// A caller that only uses Mode gets the old answer, then hears of the new one.
	q.SetMode(1, 0, 0)
	q.Wait("mode change", func() bool { s.Mode(1); return ev.modes.Load() > 0 })
	ev.mu.Lock()
	if ev.heads[0] != 1 {
		t.Errorf("mode of head %d changed", ev.heads[0])
	}
	ev.mu.Unlock()
	if s.Mode(1).Enabled || s.Mode(-1).Enabled || s.Mode(99).Enabled || s.EDID(99) != nil {
		t.Error("a head that is off has a mode")
	}
	// QEMU does not answer: what is known must do, after a second.
	q.Mute(true)
	start := time.Now()
	fresh()
	if d := time.Since(start); d < 500*time.Millisecond || d > 4*time.Second {
		t.Errorf("waited %v for a QEMU that does not answer", d)
	}
	if s.Mode(0).W != 800 {
		t.Error("the known mode is lost")
	}
}

func TestBadEDID(t *testing.T) {
	r := newRig(t, qemudisplaytest.Options{EDID: func(int) []byte { return make([]byte, 128) }}, qemudisplay.Config{})
	r.q.Wait("EDID", func() bool { return r.logs.FilterMessage("QEMU's EDID is not used").Len() == 1 })
	if r.s.EDID(0) != nil {
		t.Error("an EDID without a header is passed on")
	}
}
