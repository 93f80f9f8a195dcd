package broker_test

import (
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/virgl/virgltest"
)

// pacedSink is a display that says when it has shown a frame.
type pacedSink struct{ *holdingSink }

func (pacedSink) Paces(int) bool { return true }

// TestPacing: a fenced flush completes when the display has shown its frame, or
// after a while when the display says nothing; unfenced ones do not wait.
func TestPacing(t *testing.T) {
	m := newMachine(t, machineConfig{sink: pacedSink{newHoldingSink()}})
	ev := newEvents(m)
	m.create2D(1, 16, 16)
	m.attach(1, 16*16*4)
	m.scanout(0, 1, rect(0, 0, 16, 16))
	m.flush(1, rect(0, 0, 16, 16)) // answered: no fence
	fencedFlush := func(id uint64) []byte {
		return (&virtiogpu.ResourceFlush{CtrlHdr: fenced(0, id), ResourceID: 1, R: rect(0, 0, 16, 16)}).Append(nil)
	}
	op, err := m.Ctrl.Submit(fencedFlush(1), 64)
	if err != nil {
		t.Fatal(err)
	}
	m.settle()
	if done, _ := m.Ctrl.Done(op); done {
		t.Fatal("completed before the frame was shown")
	}
	ev.Shown(0, 2)
	if _, err := m.Ctrl.Wait(op, m.resp, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if n := m.dev.Status(false).PaceCaps; n != 0 {
		t.Errorf("%d waits were cut short although the display answered", n)
	}
	for i := range 3 { // a hidden window
		begin := time.Now()
		m.ok(fencedFlush(uint64(2 + i)))
		if took := time.Since(begin); took < 20*time.Millisecond || took > 5*time.Second {
			t.Errorf("flush %d took %v", i, took)
		}
	}
	if n := m.dev.Status(false).PaceCaps; n != 3 {
		t.Errorf("%d waits were cut short, want 3", n)
	}
	// A head that goes dark holds nothing back.
	op, err = m.Ctrl.Submit(fencedFlush(9), 64)
	if err != nil {
		t.Fatal(err)
	}
	m.ok((&virtiogpu.SetScanout{}).Append(nil))
	if _, err := m.Ctrl.Wait(op, m.resp, 5*time.Second); err != nil {
		t.Fatal(err)
	}
}

// TestCopiesInStep: of frames that come faster than the display takes them only
// those are copied that it will show, with all the damage since.
func TestCopiesInStep(t *testing.T) {
	sink := pacedSink{newHoldingSink()}
	m := newMachine(t, machineConfig{sink: sink})
	ev := newEvents(m)
	m.createCtx(1)
	m.create3D(1, 32, 32)
	m.attachCtx(1, 1)
	m.scanout(0, 1, rect(0, 0, 32, 32))
	m.flush(1, rect(0, 0, 32, 32))
	for i := range uint32(10) {
		m.flush(1, rect(i, i, 1, 1))
	}
	m.settle()
	if n := m.fake.Calls(virgltest.OpReadPixels); n != 1 {
		t.Fatalf("%d read-backs for one frame taken", n)
	}
	sink.release()
	ev.Shown(0, 1)
	m.settle()
	if n := m.fake.Calls(virgltest.OpReadPixels); n != 2 || len(sink.names()) != 2 {
		t.Fatalf("%d read-backs, calls %v", n, sink.names())
	}
	if got, want := sink.damage(), (display.Rect{W: 10, H: 10}); got != want {
		t.Errorf("damage %+v, want %+v", got, want)
	}
	ev.Shown(0, 11)
	m.settle()
	if n := len(sink.names()); n != 2 {
		t.Errorf("%d frames although nothing changed", n)
	}
}
