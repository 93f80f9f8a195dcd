package broker_test

import (
	"slices"
	"sync"
	"testing"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// holdingSink is a display that keeps every frame until it is told to let go.
type holdingSink struct {
	stats display.Stats

	mu    sync.Mutex
	calls []string         // guarded by mu
	held  []*dmabuf.Buffer // guarded by mu, oldest first, in BeginRead
	shown *dmabuf.Buffer   // guarded by mu
	dmg   display.Rect     // guarded by mu: of the last frame
}

func newHoldingSink() *holdingSink { return &holdingSink{} }

func (s *holdingSink) note(call string) {
	s.mu.Lock()
	s.calls = append(s.calls, call)
	s.mu.Unlock()
}

func (s *holdingSink) Name() string                                { return "test" }
func (s *holdingSink) Accepts(dmabuf.Fourcc, dmabuf.Modifier) bool { return true }
func (s *holdingSink) Disable(int)                                 { s.note("disable") }
func (s *holdingSink) ShowCursor(*display.Cursor)                  { s.note("cursor") }
func (s *holdingSink) MoveCursor(int, int32, int32)                { s.note("move") }
func (s *holdingSink) Drop(*dmabuf.Buffer)                         { s.note("drop") }
func (s *holdingSink) Mode(head int) display.Mode {
	return display.Mode{Enabled: head == 0, W: 640, H: 480}
}
func (s *holdingSink) EDID(int) []byte       { return nil }
func (s *holdingSink) Stats() *display.Stats { return &s.stats }
func (s *holdingSink) Close() error          { s.release(); return nil }

func (s *holdingSink) Present(f *display.Frame) {
	f.Buffer.BeginRead()
	s.mu.Lock()
	s.held = append(s.held, f.Buffer)
	s.shown, s.dmg = f.Buffer, f.Damage
	s.calls = append(s.calls, "present")
	s.mu.Unlock()
}

func (s *holdingSink) releaseOldest() {
	s.mu.Lock()
	b := s.held[0]
	s.held = s.held[1:]
	s.mu.Unlock()
	b.EndRead()
}

func (s *holdingSink) release() {
	for {
		s.mu.Lock()
		n := len(s.held)
		s.mu.Unlock()
		if n == 0 {
			return
		}
		s.releaseOldest()
	}
}

func (s *holdingSink) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

func (s *holdingSink) last(t testing.TB) *dmabuf.Buffer {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shown == nil {
		t.Fatal("nothing was presented")
	}
	return s.shown
}

func newEvents(m *machine) *broker.SinkEvents {
	e := broker.NewSinkEvents(m.loop)
	e.Bind(m.dev)
	return e
}

func (s *holdingSink) damage() display.Rect {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dmg
}
