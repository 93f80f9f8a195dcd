package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Messages of QEMU's display socket (docs/interop/vhost-user-gpu.rst of QEMU).
const (
	msgGetFeatures    = 1
	msgSetFeatures    = 2
	msgGetDisplayInfo = 3
	msgCursorUpdate   = 6
	msgScanout        = 7
	msgUpdate         = 8
	msgGetEDID        = 11

	msgHeader   = 12
	updateFixed = 20
	maxSmall    = 16404 // the largest message but UPDATE: a pointer's picture
)

// errDMABuf says that a back-end shows its 2D pictures as dma-bufs, which is other work
// than sending their pixels.
var errDMABuf = errors.New("shows its pictures as dma-bufs here")

// display is QEMU's end of the display socket: one head that takes pixels. It reads in a
// goroutine of its own, straight into its picture where it can.
type display struct {
	sock   *dmabuf.FD
	done   chan struct{}
	notify chan struct{} // something came, or the end
	timer  *time.Timer

	stamp   atomic.Uint32 // the last pixel of the last UPDATE
	updates atomic.Uint64
	bytes   atomic.Uint64

	mu     sync.Mutex
	w, h   int    // guarded by mu
	pixels []byte // guarded by mu: XRGB8888
	err    error  // guarded by mu

	row []byte
}

// show starts a display on QEMU's end of the socket, which it owns from now on.
func show(sock *dmabuf.FD) *display {
	d := &display{sock: sock, done: make(chan struct{}), notify: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
	go d.run()
	return d
}

// close ends it. A back-end that waits in a send hears of it.
func (d *display) close() {
	_ = unix.Shutdown(d.sock.Int(), unix.SHUT_RDWR)
	<-d.done
	_ = d.sock.Close()
}

func (d *display) run() {
	defer close(d.done)
	err := d.serve()
	d.mu.Lock()
	d.err = err
	d.mu.Unlock()
	d.wake()
}

func (d *display) wake() {
	select {
	case d.notify <- struct{}{}:
	default:
	}
}

// waitStamp waits until the last pixel that came is stamp.
func (d *display) waitStamp(stamp uint32) error {
	d.timer.Reset(10 * time.Second)
	for d.stamp.Load() != stamp {
		select {
		case <-d.notify:
		case <-d.done:
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.stamp.Load() == stamp {
				return nil
			}
			return fmt.Errorf("display: ended while a frame was due: %w", d.err)
		case <-d.timer.C:
			return fmt.Errorf("display: frame %#x did not come, the last is %#x after %d updates", stamp, d.stamp.Load(), d.updates.Load())
		}
	}
	return nil
}

// picture copies what is shown.
func (d *display) picture() (w, h int, pixels []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.w, d.h, append([]byte(nil), d.pixels...)
}

var errGone = errors.New("the back-end hung up")

func (d *display) read(p []byte) error {
	for len(p) > 0 {
		n, err := unix.Read(d.sock.Int(), p)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("read: %w", err)
		case n == 0:
			return errGone
		default:
			p = p[n:]
		}
	}
	return nil
}

func (d *display) serve() error {
	var head [msgHeader]byte
	small := make([]byte, maxSmall)
	for {
		if err := d.read(head[:]); err != nil {
			return err
		}
		req, size := binary.NativeEndian.Uint32(head[:]), int(binary.NativeEndian.Uint32(head[8:]))
		if req == msgUpdate {
			if err := d.update(size); err != nil {
				return err
			}
			continue
		}
		if size > maxSmall {
			return fmt.Errorf("message %d of %d bytes", req, size)
		}
		if err := d.read(small[:size]); err != nil {
			return err
		}
		if err := d.handle(req, small[:size]); err != nil {
			return err
		}
	}
}

func (d *display) handle(req uint32, p []byte) error {
	switch req {
	case msgGetFeatures:
		return d.reply(req, binary.NativeEndian.AppendUint64(nil, 3)) // EDID, DMABUF2: as QEMU 11
	case msgGetDisplayInfo:
		info := virtiogpu.DisplayInfo{CtrlHdr: virtiogpu.CtrlHdr{Type: virtiogpu.RespOKDisplayInfo}}
		info.Modes[0] = virtiogpu.DisplayMode{R: virtiogpu.Rect{Width: 1280, Height: 800}, Enabled: 1}
		return d.reply(req, info.Append(nil))
	case msgGetEDID:
		// 128 bytes of EDID 1.4 with a right checksum.
		e := virtiogpu.EDID{CtrlHdr: virtiogpu.CtrlHdr{Type: virtiogpu.RespOKEDID}, Size: virtiogpu.MaxEDID}
		copy(e.Data[:], "\x00\xff\xff\xff\xff\xff\xff\x00")
		e.Data[18], e.Data[19] = 1, 4
		var sum byte
		for _, v := range e.Data[:127] {
			sum += v
		}
		e.Data[127] = -sum
		return d.reply(req, e.Append(nil))
	case msgScanout:
		if len(p) != 12 {
			return fmt.Errorf("SCANOUT of %d bytes", len(p))
		}
		w, h := int(binary.NativeEndian.Uint32(p[4:])), int(binary.NativeEndian.Uint32(p[8:]))
		if w > dmabuf.MaxDimension || h > dmabuf.MaxDimension {
			return fmt.Errorf("SCANOUT of %dx%d", w, h)
		}
		d.mu.Lock()
		d.w, d.h, d.pixels = w, h, make([]byte, w*h*4)
		d.mu.Unlock()
		return nil
	case msgSetFeatures, 4, 5, msgCursorUpdate:
		return nil
	case 9, 10, 12:
		return errDMABuf
	}
	return fmt.Errorf("unknown message %d", req)
}

func (d *display) reply(req uint32, payload []byte) error {
	p := binary.NativeEndian.AppendUint32(nil, req)
	p = binary.NativeEndian.AppendUint32(p, 4)
	p = binary.NativeEndian.AppendUint32(p, uint32(len(payload)))
	if _, err := unix.Write(d.sock.Int(), append(p, payload...)); err != nil {
		return fmt.Errorf("reply: %w", err)
	}
	return nil
}

// update reads an UPDATE whose header came.
func (d *display) update(size int) error {
	var fixed [updateFixed]byte
	if err := d.read(fixed[:]); err != nil {
		return err
	}
	v := func(i int) int { return int(binary.NativeEndian.Uint32(fixed[4*i:])) }
	x, y, w, h := v(1), v(2), v(3), v(4)
	d.mu.Lock()
	defer d.mu.Unlock()
	if w == 0 || h == 0 || size != updateFixed+4*w*h || x+w > d.w || y+h > d.h {
		return fmt.Errorf("UPDATE of %dx%d+%d+%d in %dx%d with %d bytes", w, h, x, y, d.w, d.h, size)
	}
	last := 4 * ((y+h-1)*d.w + x + w - 1)
	if w == d.w {
		if err := d.read(d.pixels[4*y*w : 4*(y+h)*w]); err != nil {
			return err
		}
	} else {
		if cap(d.row) < 4*w*h {
			d.row = make([]byte, 4*w*h)
		}
		rows := d.row[:4*w*h]
		if err := d.read(rows); err != nil {
			return err
		}
		for i := range h {
			copy(d.pixels[4*((y+i)*d.w+x):], rows[4*i*w:4*(i+1)*w])
		}
	}
	d.stamp.Store(binary.LittleEndian.Uint32(d.pixels[last:]) & rgbMask)
	d.updates.Add(1)
	d.bytes.Add(uint64(4 * w * h))
	d.wake()
	return nil
}

// rgbMask leaves out what a pixel without alpha does not mean.
const rgbMask = 0xffffff
