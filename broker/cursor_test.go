package broker_test

import (
	"bytes"
	"errors"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
)

// cursorSink remembers the last cursor.
type cursorSink struct {
	*holdingSink
	mu  sync.Mutex
	cur display.Cursor // guarded by mu
}

func (s *cursorSink) ShowCursor(c *display.Cursor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cur = *c
	s.cur.Pixels = bytes.Clone(c.Pixels)
}

func (s *cursorSink) MoveCursor(_ int, x, y int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cur.X, s.cur.Y = x, y
}

func (s *cursorSink) cursor() display.Cursor {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cur
}

// TestLinuxCursor does what Linux does with a dumb buffer: the format has no
// alpha, the commands have no room for a response, the position is signed and the
// hot spot does not matter for it.
func TestLinuxCursor(t *testing.T) {
	sink := &cursorSink{holdingSink: newHoldingSink()}
	m := newMachine(t, machineConfig{sink: sink})
	const size = 64
	m.create2D(1, size, size)
	mem := m.attach(1, size*size*4)
	fill(mem, [4]byte{1, 2, 3, 128})
	m.ok((&virtiogpu.TransferToHost2D{ResourceID: 1, R: rect(0, 0, size, size)}).Append(nil))
	send := func(c *virtiogpu.UpdateCursor, typ virtiogpu.Type) {
		t.Helper()
		op, err := m.Cursor.Submit(typed(c, typ), 0)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := m.Cursor.Wait(op, nil, 5*time.Second); err != nil || n != 0 {
			t.Fatalf("cursor command: %d bytes written, %v", n, err)
		}
	}
	minus := func(n uint32) uint32 { return -n }
	send(&virtiogpu.UpdateCursor{ResourceID: 1, X: minus(20), Y: 30, HotX: 7, HotY: 9}, virtiogpu.CmdUpdateCursor)
	got := sink.cursor()
	if got.X != -20 || got.Y != 30 || got.HotX != 7 || got.HotY != 9 || got.W != size || got.H != size {
		t.Errorf("cursor %dx%d at %d,%d, hot spot %d,%d", got.W, got.H, got.X, got.Y, got.HotX, got.HotY)
	}
	if want := bytes.Repeat([]byte{1, 2, 3, 128}, size*size); !bytes.Equal(got.Pixels, want) {
		t.Errorf("pixels begin with %v, want %v", got.Pixels[:8], want[:8])
	}
	send(&virtiogpu.UpdateCursor{ResourceID: 1, X: 5, Y: minus(1)}, virtiogpu.CmdMoveCursor)
	if got := sink.cursor(); got.X != 5 || got.Y != -1 {
		t.Errorf("moved to %d,%d, want 5,-1", got.X, got.Y)
	}
	if st := m.dev.Status(false); st.Errors != 0 || st.RingErrors != 0 {
		t.Errorf("%d errors, %d ring errors", st.Errors, st.RingErrors)
	}
}

// TestUnusedDisplaySocket: QEMU's end of the display socket stays quiet while
// another display shows the guest. At its end QEMU would spin.
func TestUnusedDisplaySocket(t *testing.T) {
	m := newMachine(t, machineConfig{})
	for range 3 {
		qemu := m.FE.TakeDisplay()
		var b [1]byte
		if n, _, err := unix.Recvfrom(qemu.Int(), b[:], unix.MSG_DONTWAIT); !errors.Is(err, unix.EAGAIN) {
			t.Errorf("QEMU reads %d bytes, %v, want nothing to read", n, err)
		}
		if err := errors.Join(m.Reset(), m.Boot(), qemu.Close()); err != nil {
			t.Fatal(err)
		}
	}
}
