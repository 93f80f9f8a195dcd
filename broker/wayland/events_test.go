package wayland_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gpubroker/gpubroker/broker/wayland/waylandtest"
)

// events notes what the sink tells the broker.
type events struct {
	refreshes, modes, closed atomic.Int64

	mu    sync.Mutex
	shown []uint64 // guarded by mu: the serials of head 0
}

func (e *events) ModeChanged(int) { e.modes.Add(1) }
func (e *events) Refresh()        { e.refreshes.Add(1) }
func (e *events) Closed(int)      { e.closed.Add(1) }

func (e *events) Shown(head int, serial uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if head == 0 {
		e.shown = append(e.shown, serial)
	}
}

func (e *events) serials() []uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.shown)
}

// recorder is a display.Input that writes down what it gets, one word a call.
type recorder struct {
	mu    sync.Mutex
	lines []string // guarded by mu
	x, y  uint16   // guarded by mu: of the last Pointer
}

func (r *recorder) add(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, fmt.Sprintf(format, args...))
}

func sign(down bool) string {
	if down {
		return "+"
	}
	return "-"
}

func (r *recorder) Key(head int, code uint16, pressed bool) {
	r.add("%d:key%s%d", head, sign(pressed), code)
}
func (r *recorder) Button(head int, code uint16, pressed bool) {
	r.add("%d:button%s%#x", head, sign(pressed), code)
}
func (r *recorder) Scroll(head int, v, h int32) { r.add("%d:scroll(%d,%d)", head, v, h) }
func (r *recorder) Touch(head int, slot uint8, x, y uint16, down bool) {
	r.add("%d:touch%s%d(%d,%d)", head, sign(down), slot, x, y)
}
func (r *recorder) Frame(head int) { r.add("%d:frame", head) }

func (r *recorder) Pointer(head int, x, y uint16) {
	r.add("%d:pointer(%d,%d)", head, x, y)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.x, r.y = x, y
}

// take returns what came since the last call.
func (r *recorder) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := strings.Join(r.lines, " ")
	r.lines = nil
	return out
}

// has reports whether all words came, in this order, perhaps with others between.
func (r *recorder) has(words ...string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lines {
		if len(words) > 0 && l == words[0] {
			words = words[1:]
		}
	}
	return len(words) == 0
}

// expect makes the compositor send something and compares what comes out of it. The
// pong at the end says that everything has arrived.
func (r *recorder) expect(t *testing.T, c *waylandtest.Compositor, what string, f func(d waylandtest.Devices), want ...string) {
	t.Helper()
	r.take()
	c.Input(f)
	pongs := len(c.Pongs())
	c.Ping(uint32(pongs) + 1)
	waylandtest.Eventually(t, "the pong", func() bool { return len(c.Pongs()) > pongs })
	if got := r.take(); got != strings.Join(want, " ") {
		t.Errorf("%s:\n got %s\nwant %s", what, got, strings.Join(want, " "))
	}
}
