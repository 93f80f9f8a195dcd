package input

import (
	"errors"
	"path/filepath"
	"testing"
)

func TestHeads(t *testing.T) {
	two := []Size{{1920, 1080}, {1280, 720}}
	for _, c := range []struct {
		name  string
		sizes []Size
		head  int
		x, y  uint16
		want  point
	}{
		{"not set", nil, 3, 100, 200, point{100, 200}},
		{"one", []Size{{1920, 1080}}, 0, 32767, 32767, point{32767, 32767}},
		{"only the second", []Size{{}, {800, 600}}, 1, 123, 456, point{123, 456}},
		{"first left", two, 0, 0, 0, point{0, 0}},
		{"first right", two, 0, 32767, 32767, point{19660, 32767}},
		{"second left", two, 1, 0, 0, point{19660, 0}},
		{"second right", two, 1, 32767, 32767, point{32767, 21844}},
		{"head that is off", two, 2, 5, 6, point{5, 6}},
		{"head out of range", two, -1, 5, 6, point{5, 6}},
		{"beyond the axis", nil, 0, 65535, 40000, point{32767, 32767}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var h heads
			h.set(c.sizes)
			if got := h.place(c.head, c.x, c.y); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

func TestNewServer(t *testing.T) {
	if _, err := NewServer(Config{}); !errors.Is(err, ErrConfig) {
		t.Errorf("no sockets: %v", err)
	}
	dir := t.TempDir()
	if _, err := NewServer(Config{Socket: filepath.Join(dir, "in"), TouchSocket: filepath.Join(dir, "no", "touch")}); err == nil {
		t.Error("a folder that does not exist is no error")
	}
	s, err := NewServer(Config{TouchSocket: filepath.Join(dir, "in")}) // the first one was given back
	if err != nil {
		t.Fatal(err)
	}
	s.Key(0, 30, true) // no such device
	s.Pointer(0, 1, 1)
	s.Button(0, BtnLeft, true)
	s.Scroll(0, 1, 1)
	s.Frame(0)
	if s.LEDs() != 0 || s.Counters(Main) != (Counters{}) {
		t.Error("a device that does not exist counts")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
