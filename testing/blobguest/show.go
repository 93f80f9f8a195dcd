package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"image"
	"io"

	"github.com/gpubroker/gpubroker/testing/blobguest/scene"
)

// answer is the line that follows each command.
type answer struct {
	W      int    `json:"w"`
	H      int    `json:"h"`
	Frame  int    `json:"frame"`  // shown
	Rects  int    `json:"rects"`  // redrawn since
	Stride int    `json:"stride"` // bytes
	Offset int    `json:"offset"` // bytes
	Error  string `json:"error,omitempty"`
}

// shower shows buffers of one kind at a time, two of them in turn.
type shower struct {
	c     *card
	bufs  [2]*buffer
	fbs   [2]uint32
	ids   uint32 // blob ids given
	front int
	frame int
	rects int
}

// show does what the lines say: "new KIND" shows frame 0, "flip N" N more, each in
// the buffer that is not on screen, "dirty N" redraws N rectangles of what is,
// "close" turns the screen off.
func show(in io.Reader, out io.Writer) error {
	c, err := openCard("/dev/dri/card0")
	if err != nil {
		return err
	}
	s := &shower{c: c}
	enc := json.NewEncoder(out)
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		a := answer{W: c.w, H: c.h}
		if err := s.do(lines.Text()); err != nil {
			a.Error = err.Error()
		}
		a.Frame, a.Rects = s.frame, s.rects
		if b := s.bufs[s.front]; b != nil {
			a.Stride, a.Offset = b.stride, b.offset
		}
		if err := enc.Encode(a); err != nil {
			return err
		}
	}
	return lines.Err()
}

func (s *shower) do(line string) error {
	var verb, kind string
	var n int
	if _, err := fmt.Sscan(line, &verb, &kind); err != nil && verb != "close" {
		return fmt.Errorf("command %q: %w", line, err)
	}
	if verb != "new" && verb != "close" {
		if _, err := fmt.Sscan(kind, &n); err != nil {
			return fmt.Errorf("command %q: %w", line, err)
		}
	}
	switch verb {
	case "new":
		return s.start(kind)
	case "flip":
		return s.flip(n)
	case "dirty":
		return s.dirty(n)
	case "close":
		return s.close()
	}
	return fmt.Errorf("unknown command %q", line)
}

func (s *shower) full() image.Rectangle { return image.Rect(0, 0, s.c.w, s.c.h) }

func (s *shower) start(kind string) (err error) {
	if err := s.close(); err != nil {
		return err
	}
	s.frame, s.rects, s.front = 0, 0, 0
	for i := range s.bufs {
		s.ids++
		if s.bufs[i], err = s.c.newBuffer(kind, s.ids); err != nil {
			s.bufs[i] = nil
			return err
		}
		if s.fbs[i], err = s.c.addFB(s.bufs[i]); err != nil {
			return err
		}
	}
	if err := s.c.draw(s.bufs[0], s.full(), 0); err != nil {
		return err
	}
	return s.c.show(s.fbs[0])
}

func (s *shower) flip(n int) error {
	for range n {
		back := 1 - s.front
		if err := s.c.draw(s.bufs[back], s.full(), s.frame+1); err != nil {
			return err
		}
		if err := s.c.flip(s.fbs[back]); err != nil {
			return err
		}
		s.front, s.rects = back, 0
		s.frame++
	}
	return nil
}

func (s *shower) dirty(n int) error {
	for range n {
		r := scene.Rect(s.rects, s.c.w, s.c.h)
		if err := s.c.draw(s.bufs[s.front], r, s.frame+1+s.rects); err != nil {
			return err
		}
		err := s.c.dirty(s.fbs[s.front], clip{uint16(r.Min.X), uint16(r.Min.Y), uint16(r.Max.X), uint16(r.Max.Y)})
		if err != nil {
			return err
		}
		s.rects++
	}
	return nil
}

func (s *shower) close() error {
	if err := s.c.off(); err != nil {
		return err
	}
	for i, b := range s.bufs {
		if b == nil {
			continue
		}
		if s.fbs[i] != 0 {
			if err := s.c.rmFB(s.fbs[i]); err != nil {
				return err
			}
		}
		if err := s.c.free(b); err != nil {
			return err
		}
		s.bufs[i], s.fbs[i] = nil, 0
	}
	return nil
}
