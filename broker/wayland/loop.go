package wayland

import (
	"errors"
	"fmt"
	"math"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

// Pauses between attempts to connect, and how long a connection must have lasted
// for the next pause to be short again.
const (
	minBackoff = 50 * time.Millisecond
	maxBackoff = 2 * time.Second
	stable     = 2 * time.Second
)

var errClosing = errors.New("the sink is closing")

// loop is the goroutine that owns the connection. Nothing else touches it.
type loop struct {
	s     *Sink
	heads [display.MaxHeads]head
	sess  *session // nil while there is no connection
	// refused are layouts whose import made a compositor end the connection.
	refused map[layout]struct{}
	before  bool // there was a working connection before

	drops    []uint64
	now      int64 // nanoseconds of CLOCK_MONOTONIC, read once a turn
	deadline int64 // when the loop has to turn next without an event
	ts       unix.Timespec
	polls    [3]unix.PollFd
	explicit *explicit // nil while no compositor wants it, or no DRM node does
	sought   bool      // it was tried
	count    []byte    // for reading the eventfd
}

func newLoop(s *Sink) *loop {
	l := &loop{s: s, refused: map[layout]struct{}{}, count: make([]byte, 8)}
	for i := range l.heads {
		l.heads[i].n = i
		if i < len(s.modes) && s.modes[i].Enabled {
			l.heads[i].mode = extent{s.modes[i].W, s.modes[i].H}
		}
	}
	return l
}

func (l *loop) run() {
	defer close(l.s.done)
	defer func() { l.explicit.close() }()
	defer l.letGo()
	backoff := minBackoff
	for {
		started := time.Now()
		err := l.serve()
		if errors.Is(err, errClosing) {
			return
		}
		select {
		case l.s.first <- err:
		default:
		}
		if time.Since(started) > stable {
			backoff = minBackoff
		}
		l.s.log.Debug("trying to connect again", zap.Duration("in", backoff), zap.Error(err))
		if l.pause(backoff) {
			return
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// serve runs one connection and returns why it ended, errClosing included.
func (l *loop) serve() error {
	conn, err := wire.Dial(l.s.path)
	if err != nil {
		return &OpError{Op: "connect", Object: l.s.path, Err: hint(err)}
	}
	l.sess = newSession(l, conn)
	defer l.disconnect()
	for {
		if l.take() {
			return errClosing
		}
		if err := l.turn(); err != nil {
			if l.sess.ready {
				l.s.log.Warn("lost the compositor", zap.String("socket", l.s.path), zap.Error(err))
			}
			return err
		}
		if err := l.wait(); err != nil {
			return err
		}
	}
}

// turn reads what came, updates the heads and sends what the socket takes.
func (l *loop) turn() error {
	if l.polls[1].Revents != 0 {
		l.polls[1].Revents = 0
		l.readClock()
		if err := l.sess.receive(); err != nil {
			return err
		}
	}
	if l.polls[2].Revents != 0 {
		l.polls[2].Revents = 0
		l.sess.released()
	}
	l.readClock()
	l.deadline = math.MaxInt64
	if l.sess.ready {
		for i := range l.heads {
			l.sess.update(&l.heads[i])
		}
		l.sess.sweep()
	}
	if err := l.sess.conn.Flush(); err != nil {
		// Its last words say more than the broken pipe.
		return errors.Join(l.sess.receiveRest(), err)
	}
	if l.sess.conn.Out.Pending() == 0 {
		l.noteSent()
	}
	return nil
}

// noteSent counts the latency of commits that are with the compositor now.
func (l *loop) noteSent() {
	clock := false
	for i := range l.heads {
		h := &l.heads[i]
		if h.flushed == 0 {
			continue
		}
		if !clock {
			l.readClock()
			clock = true
		}
		l.s.stats.Latency.Add(l.now - h.flushed)
		h.flushed = 0
	}
}

func (l *loop) readClock() {
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &l.ts)
	l.now = l.ts.Nano()
}

// wakeAt makes the loop turn at t, or earlier.
func (l *loop) wakeAt(t int64) { l.deadline = min(l.deadline, t) }

// wait sleeps until the socket, the render thread or the clock has news.
func (l *loop) wait() error {
	events := int16(unix.POLLIN)
	if l.sess.conn.Out.Pending() > 0 {
		events |= unix.POLLOUT
	}
	l.polls[0] = unix.PollFd{Fd: int32(l.s.wake.Int()), Events: unix.POLLIN}
	l.polls[1] = unix.PollFd{Fd: int32(l.sess.conn.FD()), Events: events}
	l.polls[2] = unix.PollFd{Fd: -1} // poll skips it
	if l.sess.syncobjs != 0 {
		l.polls[2] = unix.PollFd{Fd: int32(l.explicit.wake.Int()), Events: unix.POLLIN}
	}
	timeout := -1
	if l.deadline != math.MaxInt64 {
		timeout = int((max(l.deadline-l.now, 0) + 999_999) / 1_000_000)
	}
	_, err := unix.Poll(l.polls[:], timeout)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return &OpError{Op: "poll", Err: err}
	}
	return nil
}

// pause sleeps without a connection, keeping the newest frame of each head, and
// reports whether the sink is closing.
func (l *loop) pause(d time.Duration) (closing bool) {
	end := time.Now().Add(d)
	for {
		if l.take() {
			return true
		}
		for i := range l.heads {
			l.heads[i].shelve(l.s)
		}
		left := time.Until(end)
		if left <= 0 {
			return false
		}
		l.polls[0] = unix.PollFd{Fd: int32(l.s.wake.Int()), Events: unix.POLLIN}
		_, _ = unix.Poll(l.polls[:1], int(left/time.Millisecond)+1)
	}
}

// take moves what the render thread left into the heads and reports whether the
// sink is closing.
func (l *loop) take() (closing bool) {
	s := l.s
	var old [2 * display.MaxHeads]frame
	n := 0
	s.mu.Lock()
	if !s.awake {
		s.mu.Unlock()
		return false
	}
	s.awake = false
	_, _ = unix.Read(s.wake.Int(), l.count)
	closing = s.closed
	var disabled [display.MaxHeads]bool
	var next [display.MaxHeads]frame
	for i := range s.boxes {
		box := &s.boxes[i]
		disabled[i], box.disable = box.disable, false
		next[i], box.next = box.next, frame{}
		box.cursor.take(&l.heads[i].cursor)
	}
	l.drops = append(l.drops[:0], s.drops...)
	s.drops = s.drops[:0]
	s.mu.Unlock()

	l.readClock()
	for i := range next {
		h := &l.heads[i]
		if disabled[i] {
			h.disable(l)
		}
		if next[i].buf != nil {
			h.blankAt = 0
			old[n] = h.next.replace(next[i])
			n++
		}
	}
	for _, f := range old[:n] {
		s.supersede(f)
	}
	for _, id := range l.drops {
		l.drop(id)
	}
	return closing
}

// drop forgets the buffer wherever nobody looks at it.
func (l *loop) drop(id uint64) {
	for i := range l.heads {
		h := &l.heads[i]
		if h.next.buf != nil && h.next.buf.ID == id {
			h.next.dropped = true
		}
		if h.last.buf != nil && h.last.buf.ID == id {
			h.forget()
		}
	}
	if l.sess != nil {
		l.sess.drop(id)
	}
}

// disconnect ends every read and import of the connection. The heads keep their
// last frames.
func (l *loop) disconnect() {
	l.sess.blur(nil)
	for i := range l.heads {
		h := &l.heads[i]
		if h.win != nil && h.win.cursor != nil {
			h.win.cursor.mem.Release()
		}
		if h.win != nil {
			h.win.sync.acquire.abandon()
		}
		h.win = nil
		h.flushed = 0
		h.stopPacing(l.s)
		h.shelve(l.s)
	}
	l.sess.close()
	l.sess = nil
}

// letGo releases what the heads and the mailboxes hold.
func (l *loop) letGo() {
	l.take()
	for i := range l.heads {
		l.s.supersede(l.heads[i].next)
		l.heads[i].next = frame{}
		l.heads[i].forget()
	}
}

// hint adds to a failed connect what to do about it.
func hint(err error) error {
	var op *wire.OpError
	if errors.As(err, &op) {
		err = op.Err // the caller names the path
	}
	return fmt.Errorf("%w: %w; start a compositor, set WAYLAND_DISPLAY to its socket, or choose another display", ErrNoCompositor, err)
}
