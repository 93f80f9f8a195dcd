package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/shmfallback"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
)

// updateCase is a rectangle that changes in a picture that is shown.
type updateCase struct {
	name string
	id   uint32
	w, h uint32
	r    virtiogpu.Rect

	transfer, flush []byte
	on              map[string]*canvas
}

// canvas is the picture in one guest's memory, and the last frame that was sent of it.
type canvas struct {
	block *fakeguest.Block
	frame uint32
	copy  shmfallback.Copy // for the limit
	meter *shmfallback.Meter
}

// firstStamp marks frames: no pixel of the pattern has its highest bit of red.
const firstStamp = 1 << 23

func setUpUpdates(machines map[string]*machine) ([]*updateCase, error) {
	var cases []*updateCase
	for i, size := range [][2]uint32{{64, 64}, {1280, 720}, {1920, 1080}, {3840, 2160}} {
		w, h := size[0], size[1]
		c := &updateCase{name: fmt.Sprintf("%dx%d", w, h), id: uint32(10 + i), w: w, h: h, r: rect(w, h), on: map[string]*canvas{}}
		for name, m := range machines {
			b, err := m.Pages.Scattered(uint64(w) * uint64(h) * 4)
			if err != nil {
				return nil, err
			}
			paint(b, w)
			c.on[name] = &canvas{block: b}
			if name == echo {
				c.on[name].limit(m, c.w, c.h, c.r)
				continue
			}
			if err := m.all(create2D(c.id, w, h), attach(c.id, b)); err != nil {
				return nil, m.proc.explain(err)
			}
		}
		cases = append(cases, c)
	}
	// What changes on a desktop most of the time.
	last := cases[len(cases)-1]
	part := &updateCase{name: "64x64 of " + last.name, id: last.id, w: last.w, h: last.h,
		r: virtiogpu.Rect{X: 1000, Y: 700, Width: 64, Height: 64}, on: map[string]*canvas{}}
	for name, cv := range last.on {
		part.on[name] = cv
		if name == echo {
			part.on[name] = &canvas{block: cv.block}
			part.on[name].limit(machines[name], part.w, part.h, part.r)
		}
	}
	cases = append(cases, part)
	for _, c := range cases {
		c.transfer = transfer(c.id, c.r, 4*(uint64(c.r.Y)*uint64(c.w)+uint64(c.r.X)))
		c.flush = flush(c.id, c.r)
	}
	return cases, nil
}

// paint fills a picture with a pattern in which no two rows and no two columns near each
// other are the same.
func paint(b *fakeguest.Block, w uint32) {
	row := make([]byte, 4*w)
	for y := range uint32(b.Size) / (4 * w) {
		for x := range w {
			binary.LittleEndian.PutUint32(row[4*x:], 0xff000000|(x*2654435761+y*40503)&(firstStamp-1))
		}
		b.WriteAt(row, uint64(y)*uint64(4*w))
	}
}

// limit prepares the copy of the rectangle from the guest's pages, which nobody can do
// without who shows a classic resource.
func (cv *canvas) limit(m *machine, w, h uint32, r virtiogpu.Rect) {
	pages := make([][]byte, len(cv.block.Entries))
	for i, e := range cv.block.Entries {
		pages[i] = m.RAM.Slice(e.Addr, int(e.Len))
	}
	cv.meter = &shmfallback.Meter{}
	cv.copy = shmfallback.Copy{Dst: make([]byte, 4*w*h), DstStride: 4 * w, DstX: r.X, DstY: r.Y,
		Src: pages, SrcOffset: 4 * (uint64(r.Y)*uint64(w) + uint64(r.X)), SrcStride: 4 * w, W: r.Width, H: r.Height, BytesPerPixel: 4}
}

// send uploads and flushes the rectangle with a stamp in its last pixel, and returns when
// both commands are answered; with wait, when the display has the pixels.
func (c *updateCase) send(m *machine, wait bool) error {
	cv := c.on[m.proc.name]
	cv.frame = (cv.frame + 1) % firstStamp
	stamp := firstStamp | cv.frame
	var pixel [4]byte
	binary.LittleEndian.PutUint32(pixel[:], 0xff000000|stamp)
	cv.block.WriteAt(pixel[:], 4*(uint64(c.r.Y+c.r.Height-1)*uint64(c.w)+uint64(c.r.X+c.r.Width-1)))
	for i, cmd := range [2][]byte{c.transfer, c.flush} {
		var err error
		if m.ops[i], err = m.Ctrl.Submit(cmd, room(cmd)); err != nil {
			return err
		}
	}
	for i, cmd := range [2][]byte{c.transfer, c.flush} {
		n, err := m.Ctrl.Wait(m.ops[i], m.resp[:], fakeguest.Timeout)
		if err == nil {
			err = m.check(cmd, n)
		}
		if err != nil {
			return err
		}
	}
	if cv.meter != nil {
		return cv.meter.CopyRect(&cv.copy)
	}
	if wait && m.disp != nil {
		return m.disp.waitStamp(stamp)
	}
	return nil
}

// expect shows the resource as a whole and then the rectangle; with verify it compares what the
// display has with what the guest wrote.
func (c *updateCase) expect(m *machine, verify bool) error {
	full := *c
	full.r = rect(c.w, c.h)
	full.transfer, full.flush = transfer(c.id, full.r, 0), flush(c.id, full.r)
	for _, u := range []*updateCase{&full, c} {
		if err := u.send(m, true); err != nil {
			return err
		}
		if !verify {
			continue
		}
		if err := c.compare(m); err != nil {
			return err
		}
	}
	return nil
}

func (c *updateCase) compare(m *machine) error {
	if m.disp == nil {
		return nil
	}
	w, h, got := m.disp.picture()
	if w != int(c.w) || h != int(c.h) {
		return fmt.Errorf("the display is %dx%d, want %dx%d", w, h, c.w, c.h)
	}
	want := make([]byte, len(got))
	c.on[m.proc.name].block.ReadAt(want, 0)
	if i := differs(got, want); i >= 0 {
		return fmt.Errorf("the display has %#x at %d,%d, the guest wrote %#x",
			binary.LittleEndian.Uint32(got[4*i:]), i%w, i/w, binary.LittleEndian.Uint32(want[4*i:]))
	}
	return nil
}

// differs is the first pixel that is not the same, -1 if there is none. What stands in the
// byte without a meaning does not count.
func differs(a, b []byte) int {
	for i := range len(a) / 4 {
		if (binary.LittleEndian.Uint32(a[4*i:])^binary.LittleEndian.Uint32(b[4*i:]))&rgbMask != 0 {
			return i
		}
	}
	return -1
}

// measure sends frames. With verify it looks at every pixel before and after.
func (c *updateCase) measure(m *machine, o options, verify bool, rep *Report) error {
	name := m.proc.name
	if rep.Skipped["updates of "+name] != "" {
		return nil
	}
	if name != echo {
		if err := m.do(scanout(c.id, rect(c.w, c.h))); err != nil {
			return m.proc.explain(err)
		}
		err := c.expect(m, verify)
		if errors.Is(err, errDMABuf) {
			rep.skip("updates of "+name, errDMABuf.Error())
			return nil
		}
		if err != nil {
			return m.proc.explain(err)
		}
	}
	mega := 4 * float64(c.r.Width) * float64(c.r.Height) / 1e6
	m.times = m.times[:0]
	r, err := m.measure(o.each, 1, func() error {
		at := time.Now()
		err := c.send(m, true)
		m.times = append(m.times, time.Since(at))
		return err
	})
	if err != nil {
		return err
	}
	what := "update " + c.name
	switch name {
	case ours, theirs:
		rep.goal(what+", until shown", "MB/s", name, mega*r.perSecond, r.cpu)
		rep.goal(what+", latency p50", "µs", name, r.p50)
		rep.add(what+", latency p99", "µs", name, r.p99)
	case echo, headless:
		rep.goal(what+", until answered", "MB/s", name, mega*r.perSecond, r.cpu)
	}
	if m.disp == nil {
		return nil
	}
	before, begun := m.disp.bytes.Load(), time.Now()
	if r, err = m.measure(o.each, 1, func() error { return c.send(m, false) }); err != nil {
		return err
	}
	shown := float64(m.disp.bytes.Load()-before) / 1e6 / time.Since(begun).Seconds()
	rep.add(what+", nobody waits: answered", "MB/s", name, mega*r.perSecond)
	rep.add(what+", nobody waits: shown", "MB/s", name, shown)
	if err := c.send(m, true); err != nil { // what was left out on the way is there at the end
		return m.proc.explain(err)
	}
	if !verify {
		return nil
	}
	return m.proc.explain(c.compare(m))
}
