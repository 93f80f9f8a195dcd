package link

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// firstBuffer is the read buffer of a new connection in bytes; it grows as far as
	// the largest frame.
	firstBuffer = 16 << 10
	// together is the size up to which a frame is written as one piece, which costs a
	// copy and saves a system call where there is no writev.
	together = 16 << 10
	// failTime is how long Fail waits for a peer that does not read.
	failTime = time.Second
)

// Limits bound what one or more connections may hold. The zero value bounds each
// connection by the protocol's own limits alone.
type Limits struct {
	Pipes  *Budget // pipes, each a descriptor
	Queued *Budget // bytes that came from peers and that nobody took yet
}

// Conn is one end of a connection. Recv and ReadFrame are called by one goroutine at
// a time; everything else by any.
type Conn struct {
	rwc    io.ReadWriteCloser
	role   Role
	done   chan struct{} // closed by Close
	once   sync.Once
	failed atomic.Bool
	halted atomic.Bool // by Interrupt
	wg     sync.WaitGroup

	// The reading goroutine's: in[r:w] was read and not yet used.
	in   []byte
	r, w int

	wmu      sync.Mutex
	out      []byte // guarded by wmu: the frame being written
	vec, rem net.Buffers
	broken   error // guarded by wmu: a frame was not written whole

	umu      sync.Mutex
	pack     packer // guarded by umu
	compress bool   // both ends do; set by the handshake

	pongs chan Ping // pings to answer
	clock clock
	pipes pipes
	stats counters
}

// Stats counts what went through a connection, headers included.
type Stats struct {
	FramesIn, FramesOut uint64
	BytesIn, BytesOut   uint64
}

type counters struct{ framesIn, framesOut, bytesIn, bytesOut atomic.Uint64 }

// newConn takes ownership of rwc.
func newConn(rwc io.ReadWriteCloser, role Role, limits Limits) *Conn {
	c := &Conn{
		rwc: rwc, role: role, done: make(chan struct{}),
		in:    make([]byte, firstBuffer),
		pongs: make(chan Ping, 4),
	}
	c.pipes.init(c, limits)
	return c
}

// start is called after the handshake.
func (c *Conn) start() { c.wg.Go(c.attend) }

// Role returns which end this is.
func (c *Conn) Role() Role { return c.role }

// Stats returns the counters.
func (c *Conn) Stats() Stats {
	return Stats{
		FramesIn: c.stats.framesIn.Load(), FramesOut: c.stats.framesOut.Load(),
		BytesIn: c.stats.bytesIn.Load(), BytesOut: c.stats.bytesOut.Load(),
	}
}

// ReadFrame waits for the next frame, whatever it is; its payload is valid until the
// next call. io.EOF is the peer's orderly end, io.ErrUnexpectedEOF one within a frame,
// ErrClosed this end's Close. Most callers want Recv.
func (c *Conn) ReadFrame() (Frame, error) {
	if err := c.fill(HeaderSize); err != nil {
		return Frame{}, c.readError(err)
	}
	h, err := DecodeHeader(c.in[c.r:], c.role.peer())
	if err != nil {
		return Frame{}, c.readError(err)
	}
	size := HeaderSize + int(h.Size)
	if err := c.fill(size); err != nil {
		return Frame{}, c.readError(err)
	}
	f := Frame{Type: h.Type, Payload: c.in[c.r+HeaderSize : c.r+size : c.r+size]}
	c.r += size
	c.stats.framesIn.Add(1)
	c.stats.bytesIn.Add(uint64(size))
	return f, nil
}

// fill makes at least n bytes be in in[r:w].
func (c *Conn) fill(n int) error {
	if c.w-c.r >= n {
		return nil
	}
	if c.r == c.w {
		c.r, c.w = 0, 0
	}
	if c.r+n > len(c.in) {
		to := c.in
		if n > len(c.in) {
			size := len(c.in)
			for size < n {
				size *= 2
			}
			to = make([]byte, min(size, HeaderSize+MaxPayload))
		}
		c.w = copy(to, c.in[c.r:c.w])
		c.in, c.r = to, 0
	}
	for empty := 0; c.w-c.r < n; {
		m, err := c.rwc.Read(c.in[c.w:])
		c.w += m
		if c.w-c.r >= n {
			return nil
		}
		if err != nil {
			if errors.Is(err, io.EOF) && c.w > c.r {
				return io.ErrUnexpectedEOF
			}
			return err
		}
		if m > 0 {
			empty = 0
		} else if empty++; empty == 100 {
			return io.ErrNoProgress
		}
	}
	return nil
}

func (c *Conn) readError(err error) error {
	select {
	case <-c.done:
		return ErrClosed
	default:
	}
	if c.halted.Load() {
		return ErrInterrupted
	}
	if err == io.EOF {
		return err
	}
	return &OpError{"read frame", err}
}

// Interrupt makes Recv and ReadFrame return ErrInterrupted, now and later; pipes and
// writing go on, so that Fail still reaches the peer. A stream without read deadlines
// is closed instead. Any goroutine.
func (c *Conn) Interrupt() {
	c.halted.Store(true)
	if d, ok := c.rwc.(interface{ SetReadDeadline(time.Time) error }); ok && d.SetReadDeadline(time.Unix(1, 0)) == nil {
		return
	}
	_ = c.rwc.Close()
}

// InterruptWrites makes a write that waits, and all later ones, fail; a frame may be
// sent in part, so the connection can only be closed. A stream without write
// deadlines is closed instead. Any goroutine.
func (c *Conn) InterruptWrites() {
	if d, ok := c.rwc.(interface{ SetWriteDeadline(time.Time) error }); ok && d.SetWriteDeadline(time.Unix(1, 0)) == nil {
		return
	}
	_ = c.rwc.Close()
}

// WriteFrame sends a frame whose payload is the given pieces, one after the other. It
// waits while the peer does not read.
func (c *Conn) WriteFrame(t Type, payload ...[]byte) error {
	size := 0
	for _, p := range payload {
		size += len(p)
	}
	if err := c.checkSize(t, size); err != nil {
		return &OpError{"write frame", err}
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.out = Header{t, uint32(size)}.Append(c.out[:0])
	return c.write(payload...)
}

func (c *Conn) checkSize(t Type, size int) error {
	if t == 0 || t >= typeEnd || rules[t].from&c.role == 0 {
		return fmt.Errorf("%v cannot be sent by this end", t)
	}
	if r := &rules[t]; size < r.min || size > r.max {
		return fmt.Errorf("%w: %v of %d bytes, must be %d to %d", ErrTooBig, t, size, r.min, r.max)
	}
	return nil
}

// write sends what is in c.out, and then the tail. The caller holds wmu.
func (c *Conn) write(tail ...[]byte) error {
	if c.broken != nil {
		return c.broken
	}
	size := len(c.out)
	for _, p := range tail {
		size += len(p)
	}
	var err error
	if size <= together {
		for _, p := range tail {
			c.out = append(c.out, p...)
		}
		_, err = c.rwc.Write(c.out)
	} else {
		c.vec = append(c.vec[:0], c.out)
		c.vec = append(c.vec, tail...)
		c.rem = c.vec // WriteTo eats its receiver
		_, err = c.rem.WriteTo(c.rwc)
		clear(c.vec)
	}
	if err != nil {
		select {
		case <-c.done:
			c.broken = ErrClosed
		default:
			c.broken = &OpError{"write frame", err}
		}
		return c.broken
	}
	c.stats.framesOut.Add(1)
	c.stats.bytesOut.Add(uint64(size))
	return nil
}

// WriteWayland sends Wayland bytes (whole messages) and what stands for their
// descriptors. See SizeItems for how much fits into one.
func (c *Conn) WriteWayland(items []Item, data []byte) error {
	n, err := SizeItems(items)
	if err == nil && n+len(data) > MaxPayload {
		err = fmt.Errorf("%w: %d bytes of items and %d of Wayland, limit %d", ErrTooBig, n, len(data), MaxPayload)
	}
	if err != nil {
		return &OpError{"write Wayland frame", err}
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.out = Header{TypeWayland, uint32(n + len(data))}.Append(c.out[:0])
	c.out = appendItems(c.out, items)
	return c.write(data)
}

// WriteUpdate sends new pixels of a rectangle: u's Buffer, X, Y, W, H and
// BytesPerPixel, of which pix holds the first row's first pixel at its start and the
// next row stride bytes further. It makes as many frames as are needed and compresses
// where that pays and the peer takes it. The pixels are not kept.
func (c *Conn) WriteUpdate(u Update, pix []byte, stride int) error {
	bpp := int(u.BytesPerPixel)
	if u.W == 0 || u.H == 0 {
		return nil
	}
	part := u
	part.Encoding, part.H, part.W = EncodingRaw, 1, 1
	part.Raw = uint32(bpp)
	err := part.check()
	if err == nil && (u.W > MaxDim || u.H > MaxDim) {
		err = fmt.Errorf("Update: %dx%d pixels, limit %d", u.W, u.H, MaxDim)
	}
	if row := bpp * int(u.W); err == nil && (stride < row || len(pix) < stride*int(u.H-1)+row) {
		err = fmt.Errorf("Update: %d bytes with stride %d for %d rows of %d", len(pix), stride, u.H, row)
	}
	if err != nil {
		return &OpError{"write update", fmt.Errorf("%w: %w", ErrTooBig, err)}
	}
	c.umu.Lock()
	defer c.umu.Unlock()
	// A band of rows is as much as fits; of rows that are too long, a part of one row.
	wide := min(u.W, uint32(MaxRaw/bpp))
	high := uint32(1)
	if wide == u.W {
		high = uint32(MaxRaw / (int(u.W) * bpp))
	}
	for y := uint32(0); y < u.H; y += high {
		for x := uint32(0); x < u.W; x += wide {
			part.X, part.Y = u.X+x, u.Y+y
			part.W, part.H = min(wide, u.W-x), min(high, u.H-y)
			at := int(y)*stride + int(x)*bpp
			if err := c.writeBand(part, pix[at:], stride); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeBand sends an update that fits into one frame. The caller holds umu.
func (c *Conn) writeBand(u Update, pix []byte, stride int) error {
	row := int(u.W) * int(u.BytesPerPixel)
	u.Raw = uint32(row) * u.H
	u.Pixels, u.Encoding = c.pack.pack(pix, int(u.BytesPerPixel), row, int(u.H), stride, c.compress)
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.out = Header{TypeUpdate, uint32(updateSize + len(u.Pixels))}.Append(c.out[:0])
	c.out = u.appendHead(c.out)
	return c.write(u.Pixels)
}

// Fail tells the peer why the connection ends, as far as it takes that within a
// second. The caller still closes. The first call counts.
func (c *Conn) Fail(err error) {
	var remote *RemoteError
	if err == nil || errors.As(err, &remote) || c.failed.Swap(true) {
		return
	}
	timer := time.AfterFunc(failTime, func() { _ = c.rwc.Close() })
	defer timer.Stop()
	_ = c.WriteFrame(TypeError, []byte(fitText(err.Error(), MaxError)))
}

// Close ends the connection and its pipes at once and waits for their goroutines. Any
// goroutine: a Recv or a write that waits then returns ErrClosed.
func (c *Conn) Close() error {
	var err error
	c.once.Do(func() {
		close(c.done)
		err = c.rwc.Close()
		c.pipes.close()
	})
	c.wg.Wait()
	return err
}
