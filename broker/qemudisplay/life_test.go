package qemudisplay_test

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/qemudisplay"
	"github.com/gpubroker/gpubroker/broker/qemudisplay/qemudisplaytest"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
)

// TestHandOver is firmware, then an OS, then a reset, on one device, and frames all
// the time: every socket starts with SCANOUT.
func TestHandOver(t *testing.T) {
	r := newRig(t, qemudisplaytest.Options{}, qemudisplay.Config{})
	b := picture(t, 64, 64, dmabuf.XRGB8888)
	d := direct(t, 64, 64, dmabuf.XRGB8888, dmabuf.ModLinear, nil)
	before := fdtest.Count(t)
	for i := range 20 {
		if i > 0 {
			r.attach()
		}
		r.present(0, b, whole(b), display.Rect{W: 1, H: 1})
		r.q.Wait("picture", func() bool { return r.differs(0, b, whole(b)) == "" }) // the dma-buf comes again first
		r.present(0, d, whole(d), whole(d))
		r.q.Wait("dma-buf", func() bool { return r.q.Scanout(0).DMABuf })
	}
	r.q.Disconnect()
	r.quiet(d)
	r.quiet(b)
	r.q.Wait("descriptors", func() bool { return fdtest.Count(t) <= before })
	if n := r.s.Stats().Reconnects.Load(); n != 19 {
		t.Errorf("%d reconnects", n)
	}
	if n := r.s.Stats().ImportsLive.Load(); n != 0 {
		t.Errorf("%d imports live", n)
	}
	// Without a display frames go nowhere and nobody holds them.
	skipped := r.s.Stats().FramesSkipped.Load()
	r.present(0, b, whole(b), whole(b))
	r.s.Disable(0)
	if b.Reading() || r.s.Stats().FramesSkipped.Load() != skipped+1 {
		t.Error("a frame waits for a display that is gone")
	}
}

// TestReplacedWhileBusy attaches a new socket while the old one hangs in the
// middle of a message and in the middle of an update.
func TestReplacedWhileBusy(t *testing.T) {
	r := newRig(t, qemudisplaytest.Options{}, qemudisplay.Config{})
	b := picture(t, 1000, 1000, dmabuf.XRGB8888)
	r.q.Hold(true)
	for range 5 {
		r.present(0, b, whole(b), whole(b))
		time.Sleep(time.Millisecond)
	}
	old := r.q
	r.q = qemudisplaytest.New(t, qemudisplaytest.Options{})
	r.attach() // a second QEMU, while the first still holds its end open
	old.Disconnect()
	r.present(0, b, whole(b), whole(b))
	r.updates(1)
	r.want(0, b, whole(b))
	r.quiet(b)

	d := direct(t, 32, 32, dmabuf.XRGB8888, dmabuf.ModLinear, nil)
	r.q.Block(true)
	r.present(0, d, whole(d), whole(d))
	r.q.Wait("dma-buf", func() bool { return r.q.Scanout(0).DMABuf })
	r.q.Block(false)
	r.attach()
	r.quiet(d)
}

func TestCloseWhileHeld(t *testing.T) {
	q := qemudisplaytest.New(t, qemudisplaytest.Options{BadOK: true}) // its last message is cut
	s := qemudisplay.New(qemudisplay.Config{})
	s.Attach(q.Connect())
	b := picture(t, 1500, 1500, dmabuf.XRGB8888)
	q.Wait("handshake", func() bool { return q.Count("SET_PROTOCOL_FEATURES") == 1 })
	q.Hold(true)
	for range 3 {
		s.Present(&display.Frame{Buffer: b, Source: whole(b), Damage: whole(b)})
	}
	answered := make(chan struct{})
	s.Freshen(func() { close(answered) })
	start := time.Now()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("Close took %v", d)
	}
	<-answered
	if b.Reading() {
		t.Error("a closed sink holds a buffer")
	}
	// Everything is harmless afterwards.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s.Attach(q.Connect())
	s.Present(&display.Frame{Buffer: b, Source: whole(b), Damage: whole(b)})
	s.Present(&display.Frame{Head: -1, Buffer: b, Source: whole(b)})
	s.Present(&display.Frame{Buffer: b})
	s.Disable(0)
	s.Disable(99)
	s.MoveCursor(0, 1, 1)
	s.Drop(b)
	s.Freshen(func() {})
	if s.Name() != "qemu" || b.Reading() {
		t.Error("a closed sink took a frame")
	}
}

// message is a raw reply.
func message(req, flags, size uint32, payload ...byte) []byte {
	p := binary.NativeEndian.AppendUint32(nil, req)
	p = binary.NativeEndian.AppendUint32(p, flags)
	p = binary.NativeEndian.AppendUint32(p, size)
	return append(p, payload...)
}

// TestGarbage lets the peer break the protocol in many ways: the session ends,
// nothing is held, and the next socket works.
func TestGarbage(t *testing.T) {
	for _, c := range []struct {
		name string
		p    []byte
	}{
		{"unasked reply", message(3, 4, 408, make([]byte, 408)...)},
		{"unasked empty reply", message(10, 4, 0)},
		{"no reply flag", message(10, 0, 0)},
		{"huge size", message(3, 4, 0xffffffff)},
		{"unknown request", message(99, 4, 0)},
		{"noise", []byte("HTTP/1.1 400 Bad Request\r\n\r\n")},
		{"one byte", []byte{7}},
		{"a lot", make([]byte, 1<<16)},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, qemudisplaytest.Options{BadOK: true}, qemudisplay.Config{})
			d := direct(t, 32, 32, dmabuf.XRGB8888, dmabuf.ModLinear, nil)
			r.q.Wait("EDID", func() bool { return r.s.EDID(0) != nil })
			r.present(0, d, whole(d), whole(d))
			r.updates(1)
			r.q.Send(c.p)
			r.q.Wait("end", func() bool { return r.logs.FilterMessage("QEMU display lost").Len() == 1 })
			r.quiet(d)
			r.attach()
			r.present(0, d, whole(d), whole(d))
			r.updates(2)
		})
	}
}

// TestGarbageInHandshake answers the first question wrongly.
func TestGarbageInHandshake(t *testing.T) {
	for _, c := range []struct {
		name string
		p    []byte
	}{
		{"wrong size", message(1, 4, 4, 1, 2, 3, 4)},
		{"wrong request", message(3, 4, 8, make([]byte, 8)...)},
		{"half a reply, then the end", message(1, 4, 8, 1)},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := qemudisplaytest.New(t, qemudisplaytest.Options{BadOK: true})
			q.Hold(true)
			ev := &events{}
			s := qemudisplay.New(qemudisplay.Config{Events: ev})
			defer s.Close()
			s.Attach(q.Connect())
			q.Send(c.p)
			done := make(chan struct{})
			s.Freshen(func() { close(done) })
			q.Hold(false)
			q.Disconnect()
			<-done
			if ev.refresh.Load() != 0 {
				t.Error("a failed handshake counts as a display")
			}
		})
	}
}
