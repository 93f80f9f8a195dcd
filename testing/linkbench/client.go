package linkbench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// The picture.
const (
	width, height = 1920, 1080
	stride        = width * 4
	picture       = stride * height // bytes
	tile          = 64              // side of the small damage, pixels
	buffers       = 2
)

// now is CLOCK_MONOTONIC in nanoseconds, the same for client and compositor.
func now() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return t.Nano()
}

func pixel(b []byte) uint32 { return binary.LittleEndian.Uint32(b) & 0xffffff }

func setPixel(b []byte, v uint32) { binary.LittleEndian.PutUint32(b, 0xff000000|v) }

// Objects of the client.
const (
	idRegistry wire.ID = iota + 2
	idCompositor
	idShm
	idSurface
	idPool
	idBuffer // and those behind it
)

// client draws in shared memory, with two buffers, as toolkits do.
type client struct {
	u    *net.UnixConn
	conn *wire.Conn
	mem  []byte // the pool
	free [buffers]bool
	seq  uint32
}

// connect makes a client of a display, with its buffers.
func connect(ctx context.Context, display string) (c *client, err error) {
	var d net.Dialer
	u, err := d.DialContext(ctx, "unix", display)
	if err != nil {
		return nil, err
	}
	c = &client{u: u.(*net.UnixConn)}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if c.conn, err = dupConn(c.u); err != nil {
		return nil, err
	}
	const size = buffers * picture
	fd, err := dmabuf.NewMemfd("bench pool", size)
	if err != nil {
		return nil, err
	}
	if c.mem, err = dmabuf.Map(fd, size, true); err != nil {
		_ = fd.Close()
		return nil, err
	}
	out := &c.conn.Out
	proto.WlDisplay(wire.DisplayID).GetRegistry(out, proto.WlRegistry(idRegistry))
	globals := map[string]uint32{}
	for globals["wl_compositor"] == 0 || globals["wl_shm"] == 0 {
		if err := c.events(func(m wire.Message) error {
			if m.Object == idRegistry && m.Opcode == proto.EvWlRegistryGlobal {
				var g proto.WlRegistryGlobalEvent
				if err := g.Decode(m); err != nil {
					return err
				}
				globals[g.Interface] = g.Name
			}
			return nil
		}); err != nil {
			_ = fd.Close()
			return nil, err
		}
	}
	reg := proto.WlRegistry(idRegistry)
	reg.Bind(out, globals["wl_compositor"], "wl_compositor", 4, idCompositor)
	reg.Bind(out, globals["wl_shm"], "wl_shm", 1, idShm)
	proto.WlCompositor(idCompositor).CreateSurface(out, proto.WlSurface(idSurface))
	proto.WlShm(idShm).CreatePool(out, proto.WlShmPool(idPool), fd, size)
	for i := range buffers {
		proto.WlShmPool(idPool).CreateBuffer(out, proto.WlBuffer(idBuffer+wire.ID(i)), int32(i*picture), width, height, stride, proto.WlShmFormatXrgb8888)
		c.free[i] = true
	}
	return c, c.conn.Flush()
}

func (c *client) close() {
	if c.conn != nil {
		_ = c.conn.Close()
	}
	_ = c.u.Close()
	_ = dmabuf.Unmap(c.mem)
}

// interrupt makes whoever waits for the socket return.
func (c *client) interrupt() { _ = c.u.CloseRead() }

// events waits for events and hands them to f.
func (c *client) events(f func(wire.Message) error) error {
	if err := wait(c.conn); err != nil {
		return err
	}
	for {
		m, ok, err := c.conn.Next()
		if err != nil || !ok {
			return err
		}
		if m.Object == wire.DisplayID && m.Opcode == proto.EvWlDisplayError {
			var e proto.WlDisplayErrorEvent
			_ = e.Decode(m)
			return fmt.Errorf("the client was ended: %s", e.Message)
		}
		if m.Object >= idBuffer && m.Object < idBuffer+buffers && m.Opcode == proto.EvWlBufferRelease {
			c.free[m.Object-idBuffer] = true
		}
		if err := f(m); err != nil {
			return err
		}
	}
}

// buffer waits for one that the compositor does not read.
func (c *client) buffer() (int, error) {
	for {
		i := int(c.seq) % buffers
		if c.free[i] {
			return i, nil
		}
		if err := c.events(func(wire.Message) error { return nil }); err != nil {
			return 0, err
		}
	}
}

// scene draws a frame into a buffer and says what changed. The number of the frame is
// the first and the last pixel of that.
type scene struct {
	name   string
	frames int // of one measurement
	draw   func(mem []byte, seq uint32) (x, y, w, h int)
}

// place is where tile number seq is drawn.
func place(seq uint32) (x, y int) {
	const cols, rows = width / tile, height / tile
	n := int(seq) % (cols * rows)
	return n % cols * tile, n / cols * tile
}

func drawTile(mem []byte, seq uint32) {
	x, y := place(seq)
	for r := range tile {
		row := mem[(y+r)*stride+x*4:][:tile*4]
		for i := 0; i < len(row); i += 4 {
			setPixel(row[i:], seq*7+uint32(i*r)) // something like a gradient
		}
	}
	setPixel(mem[y*stride+x*4:], seq)
	setPixel(mem[(y+tile-1)*stride+(x+tile-1)*4:], seq)
}

// scenes are what is measured. noise is pictures of noise, of which no two buffers get
// the same in a row.
func scenes(noise [][]byte, small, full int) []scene {
	return []scene{
		{"64x64 of 1080p", small, func(mem []byte, seq uint32) (x, y, w, h int) {
			// The buffer has not seen the frame before, which was in another.
			drawTile(mem, seq-1)
			drawTile(mem, seq)
			x, y = place(seq)
			return x, y, tile, tile
		}},
		{"1080p of noise", full, func(mem []byte, seq uint32) (x, y, w, h int) {
			copy(mem, noise[int(seq)%len(noise)])
			setPixel(mem, seq)
			setPixel(mem[picture-4:], seq)
			return 0, 0, width, height
		}},
		{"1080p of one colour", full, func(mem []byte, seq uint32) (x, y, w, h int) {
			setPixel(mem, seq)
			for n := 4; n < picture; {
				n += copy(mem[n:picture], mem[:n])
			}
			return 0, 0, width, height
		}},
	}
}

var errStuck = errors.New("a frame did not arrive")

// patience is how long a frame may take.
const patience = 20 * time.Second

// show draws a frame, commits it and waits until the compositor has it. It returns the
// nanoseconds from the commit's write to its arrival.
func (c *client) show(s *scene, frames <-chan frame) (int64, error) {
	c.seq++
	i, err := c.buffer()
	if err != nil {
		return 0, err
	}
	x, y, w, h := s.draw(c.mem[i*picture:(i+1)*picture], c.seq)
	out := &c.conn.Out
	surface := proto.WlSurface(idSurface)
	surface.Attach(out, proto.WlBuffer(idBuffer+wire.ID(i)), 0, 0)
	surface.DamageBuffer(out, int32(x), int32(y), int32(w), int32(h))
	surface.Commit(out)
	c.free[i] = false
	begin := now()
	if err := c.conn.Flush(); err != nil {
		return 0, err
	}
	select {
	case f := <-frames:
		if f.first != c.seq || f.last != c.seq {
			return 0, fmt.Errorf("frame %d arrived with %#x and %#x", c.seq, f.first, f.last)
		}
		return f.at - begin, nil
	case <-time.After(patience):
		return 0, fmt.Errorf("%w in %v", errStuck, patience)
	}
}

// warm is how many frames are not counted.
const warm = 10

// measure shows frames with a pause between them.
func (c *client) measure(ctx context.Context, s *scene, frames <-chan frame, pause time.Duration, cpu func() (time.Duration, error)) (sample, error) {
	defer context.AfterFunc(ctx, c.interrupt)()
	for range warm {
		if _, err := c.show(s, frames); err != nil {
			return sample{}, err
		}
		time.Sleep(pause)
	}
	time.Sleep(settle)
	before, err := cpu()
	if err != nil {
		return sample{}, err
	}
	var out sample
	for range s.frames {
		ns, err := c.show(s, frames)
		if err != nil {
			return sample{}, err
		}
		out.latency = append(out.latency, time.Duration(ns))
		time.Sleep(pause)
	}
	time.Sleep(settle)
	after, err := cpu()
	if err != nil {
		return sample{}, err
	}
	slices.Sort(out.latency)
	out.cpu = (after - before) / time.Duration(s.frames)
	return out, ctx.Err()
}

// settle is how long work that is left over may take.
const settle = 30 * time.Millisecond

// sample is one measurement.
type sample struct {
	latency []time.Duration // sorted
	cpu     time.Duration   // of a frame
}

// quantile returns the latency that a share q of the frames did not exceed.
func (s *sample) quantile(q float64) time.Duration {
	n := len(s.latency)
	return s.latency[min(n-1, int(q*float64(n)))]
}
