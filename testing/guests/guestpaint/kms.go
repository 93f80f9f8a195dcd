package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/testing/guests/pattern"
)

// screen is a card with a mode set.
type screen struct {
	card       *os.File
	crtc, conn uint32
	mode       modeInfo
	fbs        [2]uint32 // the pattern, and black
	front      int
	cursor     uint32 // handle of its pixels
}

func kms(in io.Reader, out io.Writer) error {
	s, err := open("/dev/dri/card0")
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "ok")
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if err := s.do(lines.Text()); err != nil {
			return fmt.Errorf("%q: %w", lines.Text(), err)
		}
		fmt.Fprintln(out, "ok")
	}
	return lines.Err()
}

func open(path string) (*screen, error) {
	card, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	s := &screen{card: card}
	crtcs, connectors, err := resources(card)
	if err != nil {
		return nil, err
	}
	s.crtc, s.conn = crtcs[0], connectors[0]
	if s.mode, err = firstMode(card, s.conn); err != nil {
		return nil, err
	}
	w, h := int(s.mode.hdisplay), int(s.mode.vdisplay)
	for i := range s.fbs {
		handle, pixels, pitch, err := s.dumb(w, h)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			paint(pixels, w, h, pitch)
		}
		fb := addFB{width: uint32(w), height: uint32(h), pitch: uint32(pitch), bpp: 32, depth: 24, handle: handle}
		if err := ioctl(card, reqAddFB, &fb); err != nil {
			return nil, err
		}
		s.fbs[i] = fb.id
	}
	handle, pixels, pitch, err := s.dumb(pattern.CursorSize, pattern.CursorSize)
	if err != nil {
		return nil, err
	}
	s.cursor = handle
	for y := range pattern.CursorSize {
		for x := range pattern.CursorSize {
			put(pixels[y*pitch+4*x:], pattern.CursorAt(x, y))
		}
	}
	return s, setCrtc(card, s.crtc, s.conn, s.fbs[0], s.mode)
}

// dumb makes a buffer of 32 bits per pixel and maps it.
func (s *screen) dumb(w, h int) (handle uint32, pixels []byte, pitch int, err error) {
	c := createDumb{width: uint32(w), height: uint32(h), bpp: 32}
	if err := ioctl(s.card, reqCreateDumb, &c); err != nil {
		return 0, nil, 0, err
	}
	m := mapDumb{handle: c.handle}
	if err := ioctl(s.card, reqMapDumb, &m); err != nil {
		return 0, nil, 0, err
	}
	pixels, err = unix.Mmap(int(s.card.Fd()), int64(m.offset), int(c.size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return c.handle, pixels, int(c.pitch), err
}

func (s *screen) do(line string) error {
	var x, y, hotX, hotY int32
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "cursor":
		if _, err := fmt.Sscan(rest, &x, &y, &hotX, &hotY); err != nil {
			return err
		}
		return ioctl(s.card, reqCursor2, &cursor2{flags: cursorBO | cursorMove, crtc: s.crtc, x: x, y: y,
			width: pattern.CursorSize, height: pattern.CursorSize, handle: s.cursor, hotX: hotX, hotY: hotY})
	case "move":
		if _, err := fmt.Sscan(rest, &x, &y); err != nil {
			return err
		}
		return ioctl(s.card, reqCursor2, &cursor2{flags: cursorMove, crtc: s.crtc, x: x, y: y})
	case "hide":
		return ioctl(s.card, reqCursor2, &cursor2{flags: cursorBO, crtc: s.crtc})
	case "flip":
		s.front = 1 - s.front
		return setCrtc(s.card, s.crtc, s.conn, s.fbs[s.front], s.mode)
	}
	return fmt.Errorf("unknown command")
}
