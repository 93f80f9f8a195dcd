package main

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// card is the GPU with its first pipe and connector.
type card struct {
	f          *os.File
	crtc, conn uint32
	mode       modeInfo
	w, h       int
}

func openCard(path string) (*card, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	c := &card{f: f}
	if err := c.probe(); err != nil {
		_ = f.Close()
		return nil, err
	}
	return c, nil
}

func (c *card) probe() error {
	var n cardRes
	if err := ioctl(c.f, reqGetRes, &n); err != nil {
		return err
	}
	if n.nCrtcs == 0 || n.nConnectors == 0 {
		return fmt.Errorf("card with %d pipes and %d connectors", n.nCrtcs, n.nConnectors)
	}
	crtcs, conns := make([]uint32, n.nCrtcs), make([]uint32, n.nConnectors)
	r := cardRes{crtcs: address(&crtcs[0]), nCrtcs: n.nCrtcs, connectors: address(&conns[0]), nConnectors: n.nConnectors}
	if err := ioctl(c.f, reqGetRes, &r); err != nil {
		return err
	}
	c.crtc, c.conn = crtcs[0], conns[0]
	var modes getConnector
	modes.connector = c.conn
	if err := ioctl(c.f, reqGetConn, &modes); err != nil {
		return err
	}
	if modes.nModes == 0 {
		return fmt.Errorf("connector %d has no mode", c.conn)
	}
	list := make([]modeInfo, modes.nModes)
	modes = getConnector{connector: c.conn, modes: address(&list[0]), nModes: uint32(len(list))}
	if err := ioctl(c.f, reqGetConn, &modes); err != nil {
		return err
	}
	c.mode = list[0] // the preferred one
	c.w, c.h = int(c.mode.hdisplay), int(c.mode.vdisplay)
	return nil
}

// xrgb8888 is DRM_FORMAT_XRGB8888, the one format of virtio-gpu's primary plane.
const xrgb8888 = 'X' | 'R'<<8 | '2'<<16 | '4'<<24

func (c *card) addFB(b *buffer) (uint32, error) {
	fb := addFB2{width: uint32(c.w), height: uint32(c.h), format: xrgb8888}
	fb.handles[0], fb.pitches[0], fb.offsets[0] = b.handle, uint32(b.stride), uint32(b.offset)
	return fb.id, ioctl(c.f, reqAddFB2, &fb)
}

func (c *card) rmFB(id uint32) error { return ioctl(c.f, reqRmFB, &id) }

// show sets the mode.
func (c *card) show(fb uint32) error {
	conns := []uint32{c.conn}
	return ioctl(c.f, reqSetCrtc, &setCrtc{connectors: address(&conns[0]), nConnectors: 1, id: c.crtc, fb: fb, modeValid: 1, mode: c.mode})
}

// off turns the pipe off.
func (c *card) off() error { return ioctl(c.f, reqSetCrtc, &setCrtc{id: c.crtc}) }

// flip shows another framebuffer and waits until the kernel says that it did.
func (c *card) flip(fb uint32) error {
	const wantEvent = 1
	if err := ioctl(c.f, reqPageFlip, &pageFlip{crtc: c.crtc, fb: fb, flags: wantEvent}); err != nil {
		return err
	}
	var event [64]byte // struct drm_event_vblank has 32
	for {
		n, err := unix.Read(int(c.f.Fd()), event[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("read a page flip event: %w", err)
		}
		const flipComplete = 2
		if n >= 8 && binary.NativeEndian.Uint32(event[:]) == flipComplete {
			return nil
		}
	}
}

// dirty says that a rectangle of the framebuffer was drawn.
func (c *card) dirty(fb uint32, r clip) error {
	clips := []clip{r}
	return ioctl(c.f, reqDirtyFB, &dirtyFB{fb: fb, nClips: 1, clips: address(&clips[0])})
}
