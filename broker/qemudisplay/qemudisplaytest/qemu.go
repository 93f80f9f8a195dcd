// Package qemudisplaytest is QEMU's end of the display socket, for tests: it
// reads as strictly as hw/display/vhost-user-gpu.c of QEMU 10 does, keeps what its
// scanouts show, and reports as an error what would crash a real one.
package qemudisplaytest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// Feature bits of the display socket.
const (
	FeatureEDID    = 1 << 0
	FeatureDMABuf2 = 1 << 1
)

// Options describe a QEMU. The zero Options are QEMU 10 with one head.
type Options struct {
	Features  uint64                // see Old
	Old       bool                  // QEMU 7.2: no features, whatever Features says
	Heads     int                   // max_outputs; 0 means 1
	Width     uint32                // of head 0; 0 means 1280
	Height    uint32                // of head 0; 0 means 800
	EDID      func(head int) []byte // nil: 128 bytes of a minimal EDID
	NoDisplay bool                  // -display none: a DMABUF_UPDATE is an error
	BadOK     bool                  // the test sends what crashes on purpose
}

// Scanout is what a head shows.
type Scanout struct {
	W, H   uint32
	Pixels []byte // XRGB8888, W×H×4 bytes; nil unless pixels are shown

	DMABuf                     bool
	FDWidth, FDHeight          uint32
	FDStride, FDFlags, Fourcc  uint32
	Modifier                   uint64
	HasModifier                bool // came with DMABUF_SCANOUT2
	Updates                    int  // UPDATE and DMABUF_UPDATE since the test began
	LastX, LastY, LastW, LastH uint32
}

// Cursor is what the pointer of a head looks like.
type Cursor struct {
	Visible    bool
	X, Y       uint32
	HotX, HotY uint32
	Pixels     []byte // 64×64×4 bytes, nil before the first picture
}

// scanout is Scanout and what the C struct has.
type scanout struct {
	Scanout
	ds      []byte // the surface that UPDATE draws into: s->ds
	dsW     uint32
	dsH     uint32
	shown   bool       // con->surface is ds
	gl      bool       // con->scanout.kind is a dma-buf
	fd      *dmabuf.FD // of the dma-buf
	pointer Cursor
}

// QEMU is the fake. Its methods may be called on any goroutine.
type QEMU struct {
	t testing.TB
	o Options

	mu      sync.Mutex
	wake    *sync.Cond
	heads   []scanout      // guarded by mu
	modes   [16][2]uint32  // guarded by mu
	count   map[string]int // guarded by mu
	crashes []string       // guarded by mu
	errs    []string       // guarded by mu: what error_report would print
	held    bool           // guarded by mu: does not read
	block   bool           // guarded by mu: displays do not finish
	acks    int            // guarded by mu: updates that wait for Finish
	mute    bool           // guarded by mu: does not answer questions
	conn    *net.UnixConn  // guarded by mu
	wg      sync.WaitGroup
}

// New makes a QEMU that ends with the test.
func New(t testing.TB, o Options) *QEMU {
	if o.Features == 0 {
		o.Features = FeatureEDID | FeatureDMABuf2
	}
	if o.Old {
		o.Features = 0
	}
	o.Heads = max(o.Heads, 1)
	q := &QEMU{t: t, o: o, heads: make([]scanout, o.Heads), count: map[string]int{}}
	q.wake = sync.NewCond(&q.mu)
	q.modes[0] = [2]uint32{1280, 800}
	if o.Width != 0 {
		q.modes[0] = [2]uint32{o.Width, o.Height}
	}
	t.Cleanup(func() {
		q.Disconnect()
		q.mu.Lock()
		defer q.mu.Unlock()
		for i := range q.heads {
			_ = q.heads[i].fd.Close()
		}
		if !o.BadOK {
			for _, c := range q.crashes {
				t.Errorf("QEMU would have crashed: %s", c)
			}
			for _, e := range q.errs {
				t.Errorf("QEMU printed: %s", e)
			}
		}
	})
	return q
}

// Connect does what a DRIVER_OK does: it closes the socket of before and returns
// the back-end's end of a new one.
func (q *QEMU) Connect() *dmabuf.FD {
	q.t.Helper()
	q.Disconnect()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		q.t.Fatalf("socketpair: %v", err)
	}
	file := os.NewFile(uintptr(fds[0]), "qemu display")
	c, err := net.FileConn(file)
	_ = file.Close()
	if err != nil {
		_ = unix.Close(fds[1])
		q.t.Fatalf("socketpair: %v", err)
	}
	conn := c.(*net.UnixConn)
	q.mu.Lock()
	q.conn, q.acks = conn, 0
	q.mu.Unlock()
	q.wg.Add(1)
	go q.serve(conn)
	return dmabuf.NewFD(fds[1], "qemu display socket")
}

// Disconnect does what a stop of the device does: it closes the socket.
func (q *QEMU) Disconnect() {
	q.mu.Lock()
	if q.conn != nil {
		_ = q.conn.Close()
		q.conn = nil
	}
	q.wake.Broadcast()
	q.mu.Unlock()
	q.wg.Wait()
}

// Hold makes QEMU stop (its main loop is busy) with the message that it reads
// next, or go on.
func (q *QEMU) Hold(on bool) { q.set(&q.held, on) }

// Block makes displays not finish dma-buf updates until Finish, or finish at once.
func (q *QEMU) Block(on bool) { q.set(&q.block, on) }

// Mute makes QEMU not answer GET_DISPLAY_INFO.
func (q *QEMU) Mute(on bool) { q.set(&q.mute, on) }

func (q *QEMU) set(p *bool, on bool) {
	q.mu.Lock()
	*p = on
	q.wake.Broadcast()
	q.mu.Unlock()
}

// Finish lets a blocked update be answered.
func (q *QEMU) Finish() {
	q.mu.Lock()
	q.acks++
	q.wake.Broadcast()
	q.mu.Unlock()
}

// SetMode changes what the user made of a head's window; 0 turns it off.
func (q *QEMU) SetMode(head int, w, h uint32) {
	q.mu.Lock()
	q.modes[head] = [2]uint32{w, h}
	q.mu.Unlock()
}

// Send writes raw bytes to the back-end.
func (q *QEMU) Send(p []byte) {
	q.mu.Lock()
	c := q.conn
	q.mu.Unlock()
	if c != nil {
		_, _ = c.Write(p)
	}
}

// Scanout returns a copy of what a head shows.
func (q *QEMU) Scanout(head int) Scanout {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := &q.heads[head]
	out := s.Scanout
	if s.shown && !s.gl {
		out.DMABuf = false // it is behind the surface
		out.W, out.H = s.dsW, s.dsH
		out.Pixels = append([]byte(nil), s.ds...)
	}
	return out
}

// ReadDMABuf reads bytes of the dma-buf that a head shows (a memfd in tests).
func (q *QEMU) ReadDMABuf(head int, p []byte, off int64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	fd := q.heads[head].fd
	if !fd.Valid() {
		return errors.New("the head shows no dma-buf")
	}
	_, err := unix.Pread(fd.Int(), p, off)
	return err
}

// Cursor returns a copy of a head's pointer.
func (q *QEMU) Cursor(head int) Cursor {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.heads[head].pointer
	c.Pixels = append([]byte(nil), c.Pixels...)
	return c
}

// Count returns how many messages of a kind came ("UPDATE").
func (q *QEMU) Count(name string) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.count[name]
}

// Crashes returns what would have crashed a real QEMU.
func (q *QEMU) Crashes() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return append([]string(nil), q.crashes...)
}

// Errors returns what a real QEMU would have printed as errors.
func (q *QEMU) Errors() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return append([]string(nil), q.errs...)
}

// Wait waits until ok returns true and fails the test after five seconds.
func (q *QEMU) Wait(what string, ok func() bool) {
	q.t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			q.mu.Lock()
			defer q.mu.Unlock()
			q.t.Fatalf("no %s after 5 s; messages %v, crashes %q", what, q.count, q.crashes)
		}
	}
}

// serve is the main loop's part for one socket.
func (q *QEMU) serve(c *net.UnixConn) {
	defer q.wg.Done()
	for {
		m, err := read(c)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, unix.ECONNRESET) {
				q.crash("read: %v", err)
			}
			return
		}
		q.mu.Lock()
		for q.held && q.conn == c {
			q.wake.Wait()
		}
		q.mu.Unlock()
		ok := q.handle(c, m)
		_ = m.fd.Close()
		if !ok {
			_ = c.Close()
			return
		}
	}
}

// message is one message from the back-end.
type message struct {
	req     uint32
	payload []byte
	fd      *dmabuf.FD
}

// maxPayload is more than any honest message has: an UPDATE of 16384 × 16384.
const maxPayload = 1<<30 + 64

// read reads as QEMU does: the request alone, with whatever descriptor comes with
// its first byte, then flags, size and payload.
func read(c *net.UnixConn) (*message, error) {
	var head [12]byte
	oob := make([]byte, unix.CmsgSpace(4*4))
	n, oobn, _, _, err := c.ReadMsgUnix(head[:4], oob)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	m := &message{}
	if oobn > 0 {
		if m.fd, err = firstFD(oob[:oobn]); err != nil {
			return nil, err
		}
	}
	if _, err := io.ReadFull(c, head[n:]); err != nil {
		_ = m.fd.Close()
		return nil, fmt.Errorf("failed to read msg header: %w", err)
	}
	m.req = binary.NativeEndian.Uint32(head[:])
	size := binary.NativeEndian.Uint32(head[8:])
	if flags := binary.NativeEndian.Uint32(head[4:]); flags != 0 || size > maxPayload {
		_ = m.fd.Close()
		return nil, fmt.Errorf("header % x", head)
	}
	m.payload = make([]byte, size)
	if _, err := io.ReadFull(c, m.payload); err != nil {
		_ = m.fd.Close()
		return nil, fmt.Errorf("failed to read msg payload: %w", err)
	}
	return m, nil
}

func firstFD(oob []byte) (*dmabuf.FD, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		return nil, err
	}
	for _, f := range fds[1:] {
		_ = unix.Close(f)
	}
	return dmabuf.NewFD(fds[0], "dma-buf in QEMU"), nil
}

func (q *QEMU) crash(format string, args ...any) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.crashLocked(format, args...)
}

func (q *QEMU) crashLocked(format string, args ...any) bool {
	q.crashes = append(q.crashes, fmt.Sprintf(format, args...))
	return false
}
