package broker

import (
	"encoding/binary"
	"fmt"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
)

// maxCursor limits a cursor's width and height, in pixels: the pixels are read
// back on each change, so a scanout-sized cursor would cost like one.
const maxCursor = 512

// cursorState is the pointer of one head.
//
// What pos means the specification does not say. Linux sends the plane's CRTC_X
// and CRTC_Y, which are signed and belong to the picture's top left pixel whatever
// the hot spot is (virtgpu_plane.c), and QEMU draws the picture there.
type cursorState struct {
	shown bool
	pic   display.Cursor
	cmd   [virtiogpu.SizeUpdateCursor]byte // that shows it
}

func (d *Device) cursorHead(scanout uint32) (int, error) {
	if scanout >= uint32(d.cfg.Heads) {
		return 0, fmt.Errorf("%w: scanout_id %d, limit %d", virtiogpu.ErrInvalidScanout, scanout, d.cfg.Heads-1)
	}
	return int(scanout), nil
}

func (d *Device) updateCursor(r *request) error {
	var c virtiogpu.UpdateCursor
	if err := c.Decode(r.body); err != nil {
		return err
	}
	head, err := d.cursorHead(c.ScanoutID)
	if err != nil {
		return err
	}
	if c.ResourceID == 0 {
		d.hideCursor(head)
		return nil
	}
	res, err := d.lookup(c.ResourceID)
	if err != nil {
		return err
	}
	if res.fourcc == 0 || res.args.Width > maxCursor || res.args.Height > maxCursor {
		return fmt.Errorf("%w: resource %d (%dx%d, format %d) is no cursor, limit %dx%d of four bytes", virtiogpu.ErrInvalidParameter,
			res.id, res.args.Width, res.args.Height, res.args.Format, maxCursor, maxCursor)
	}
	s := &d.cursors[head]
	p := &s.pic
	p.Head, p.X, p.Y, p.HotX, p.HotY = head, int32(c.X), int32(c.Y), c.HotX, c.HotY
	p.W, p.H = res.args.Width, res.args.Height
	if err := d.readCursor(res, p); err != nil {
		return fmt.Errorf("%w: %w", virtiogpu.ErrUnspec, err)
	}
	s.shown = true
	copy(s.cmd[:], r.body)
	d.cfg.Page.SetCursor(head, s.cmd[:])
	d.sink.ShowCursor(p)
	return nil
}

// readCursor copies a cursor's pixels as ARGB8888. The fourth byte is alpha even
// if the format has none: Linux makes every dumb buffer B8G8R8X8, cursors too.
func (d *Device) readCursor(res *resource, p *display.Cursor) error {
	n := int(p.W) * int(p.H) * 4
	if cap(p.Pixels) < n {
		p.Pixels = make([]byte, n)
	}
	p.Pixels = p.Pixels[:n]
	c := shmfallback.Copy{Dst: p.Pixels, DstStride: p.W * 4, W: p.W, H: p.H, BytesPerPixel: 4}
	rect := display.Rect{W: p.W, H: p.H}
	if res.kind == kind2D {
		return d.copyBuffer(&d.cursorMeter, &c, res.buf, rect, dmabuf.XRGB8888)
	}
	pixels, err := d.readScratch(&d.cursorMeter, res, rect)
	if err != nil {
		return err
	}
	d.seg[0] = pixels
	c.Src, c.SrcStride = d.seg[:], p.W*4
	if c.Convert, err = shmfallback.ConvertFor(res.fourcc, dmabuf.XRGB8888); err != nil {
		return err
	}
	return d.cursorMeter.CopyRect(&c)
}

func (d *Device) moveCursor(r *request) error {
	var c virtiogpu.UpdateCursor
	if err := c.Decode(r.body); err != nil {
		return err
	}
	head, err := d.cursorHead(c.ScanoutID)
	if err != nil {
		return err
	}
	s := &d.cursors[head]
	s.pic.X, s.pic.Y = int32(c.X), int32(c.Y)
	if s.shown {
		const x, y = virtiogpu.SizeCtrlHdr + 4, virtiogpu.SizeCtrlHdr + 8
		binary.LittleEndian.PutUint32(s.cmd[x:], c.X)
		binary.LittleEndian.PutUint32(s.cmd[y:], c.Y)
		d.cfg.Page.SetCursor(head, s.cmd[:])
		d.sink.MoveCursor(head, s.pic.X, s.pic.Y)
	}
	return nil
}

func (d *Device) hideCursor(head int) {
	s := &d.cursors[head]
	if !s.shown {
		return
	}
	s.shown = false
	d.cfg.Page.SetCursor(head, nil)
	d.sink.ShowCursor(&display.Cursor{Head: head})
}
