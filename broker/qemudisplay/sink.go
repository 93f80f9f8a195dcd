package qemudisplay

import (
	"errors"
	"sync"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
)

// Sink is a [display.Sink] whose heads are the consoles of QEMU's device. It has
// no display until [Sink.Attach], and then one after another: QEMU makes a new
// socket each time the guest's driver starts.
type Sink struct {
	cfg   Config
	log   *zap.Logger
	stats display.Stats
	meter *shmfallback.Meter

	mu       sync.Mutex
	closed   bool                      // guarded by mu
	cur      *session                  // guarded by mu: the newest, nil without a display
	last     <-chan struct{}           // guarded by mu: closed when all sessions have ended
	attached uint64                    // guarded by mu: sockets so far
	features uint64                    // guarded by mu: of QEMU, the last that told
	known    bool                      // guarded by mu: features were told
	rejected map[layout]struct{}       // guarded by mu: dma-bufs that this display cannot show
	boxes    [display.MaxHeads]mailbox // guarded by mu
	modes    modes                     // guarded by mu
}

// layout is what decides whether a dma-buf can be shown.
type layout struct {
	fourcc   dmabuf.Fourcc
	modifier dmabuf.Modifier
}

var (
	_ display.Sink    = (*Sink)(nil)
	_ display.Fresher = (*Sink)(nil)
)

// New makes a sink without a display. Close it when done.
func New(cfg Config) *Sink {
	cfg.fill()
	s := &Sink{cfg: cfg, log: cfg.Log, rejected: map[layout]struct{}{}}
	s.meter = shmfallback.NewMeter(&s.stats.BytesCopied)
	s.modes.init(cfg.Mode)
	return s
}

// Attach takes QEMU's display socket in place of the one before (ownership
// passes). Pictures of the old one are forgotten and Events.Refresh is called
// when the new one is ready. It returns at once; called on any goroutine.
func (s *Sink) Attach(fd *dmabuf.FD) {
	c, err := newConn(fd)
	if err != nil {
		s.log.Error("no QEMU display", zap.Error(err))
		return
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		c.close()
		return
	}
	old, before := s.cur, s.last
	n := newSession(s, c)
	s.cur, s.last = n, n.done
	s.attached++
	if s.attached > 1 {
		s.stats.Reconnects.Add(1)
	}
	clear(s.rejected)
	for i := range s.boxes {
		s.boxes[i].cursor.renew()
	}
	if old != nil {
		old.stop()
	}
	s.mu.Unlock()
	go n.run(before)
}

// Name returns "qemu".
func (s *Sink) Name() string { return "qemu" }

// Accepts reports whether a dma-buf of this format goes to QEMU as it is. Before
// the first answer of a QEMU it says what a recent one would take: there is
// nobody to copy for.
func (s *Sink) Accepts(f dmabuf.Fourcc, m dmabuf.Modifier) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepts(f, m)
}

// accepts is Accepts. Preconditions: mu is held.
func (s *Sink) accepts(f dmabuf.Fourcc, m dmabuf.Modifier) bool {
	switch f.Opaque() {
	case dmabuf.XRGB8888, dmabuf.XBGR8888: // what every EGL imports
	default:
		return false
	}
	if _, no := s.rejected[layout{f, m}]; no {
		return false
	}
	if s.cfg.DMABuf == DMABufOff {
		return false
	}
	if !s.known || s.features&featureDMABuf2 != 0 {
		return true
	}
	return s.cfg.DMABuf == DMABufOn && (m == dmabuf.ModLinear || m == dmabuf.ModInvalid)
}

// reject notes that dma-bufs of this layout cannot be shown after all, and asks
// for the frames again, which then come in another way.
func (s *Sink) reject(b *dmabuf.Buffer, why error) {
	l := layout{b.Fourcc, b.Modifier}
	s.mu.Lock()
	_, again := s.rejected[l]
	s.rejected[l] = struct{}{}
	s.mu.Unlock()
	if again {
		return
	}
	s.log.Warn("QEMU's display cannot have this buffer as a dma-buf", zap.Stringer("buffer", b), zap.Error(why))
	if s.cfg.Events != nil {
		s.cfg.Events.Refresh()
	}
}

// Present puts a frame into its head's mailbox. Without a display the frame is
// skipped. Called on the render thread.
func (s *Sink) Present(f *display.Frame) {
	if f.Head < 0 || f.Head >= display.MaxHeads || f.Buffer == nil || f.Source.Empty() {
		return
	}
	f.Buffer.BeginRead()
	in := frame{buf: f.Buffer, src: f.Source, damage: f.Damage, flushed: f.FlushedAt}
	s.mu.Lock()
	if s.cur == nil {
		s.mu.Unlock()
		s.skip(f.Buffer)
		return
	}
	old := s.boxes[f.Head].next.replace(in)
	s.cur.signal()
	s.mu.Unlock()
	s.skip(old)
}

// skip ends the read of a frame that was never sent. mu must not be held: the
// buffer's OnIdle may call back.
func (s *Sink) skip(old *dmabuf.Buffer) {
	if old != nil {
		s.stats.FramesSkipped.Add(1)
		old.EndRead()
	}
}

// Disable blanks the head. Called on the render thread.
func (s *Sink) Disable(head int) {
	if head < 0 || head >= display.MaxHeads {
		return
	}
	s.mu.Lock()
	box := &s.boxes[head]
	old := box.next.buf
	box.next = frame{}
	if s.cur != nil {
		box.disable = true
		s.cur.signal()
	}
	s.mu.Unlock()
	s.skip(old)
}

// ShowCursor copies the cursor's picture, cut or padded to QEMU's 64×64 pixels.
// Called on the render thread.
func (s *Sink) ShowCursor(c *display.Cursor) {
	if c.Head < 0 || c.Head >= display.MaxHeads {
		return
	}
	s.mu.Lock()
	err := s.boxes[c.Head].cursor.show(c)
	if s.cur != nil {
		s.cur.signal()
	}
	s.mu.Unlock()
	if err != nil {
		s.log.Warn("cursor hidden", zap.Int("head", c.Head), zap.Error(err))
	}
}

// MoveCursor moves the picture to x, y. Called on the render thread.
func (s *Sink) MoveCursor(head int, x, y int32) {
	if head < 0 || head >= display.MaxHeads {
		return
	}
	s.mu.Lock()
	s.boxes[head].cursor.move(x, y)
	if s.cur != nil {
		s.cur.signal()
	}
	s.mu.Unlock()
}

// Drop does nothing: QEMU holds at most one dma-buf per head, which goes when the
// head shows something else or nothing.
func (s *Sink) Drop(*dmabuf.Buffer) {}

// Stats returns the counters. FramesShm counts the frames that went through the
// socket as pixels.
func (s *Sink) Stats() *display.Stats { return &s.stats }

// Close lets go of the socket and every buffer and waits for the goroutines.
func (s *Sink) Close() error {
	s.mu.Lock()
	s.closed = true
	if s.cur != nil {
		s.cur.stop()
	}
	last := s.last
	s.mu.Unlock()
	if last != nil {
		<-last
	}
	s.answerAll()
	return nil
}

// sessionEnded hears from a session that it is over. If no other took its place
// there is no display now.
func (s *Sink) sessionEnded(n *session, err error) {
	var left [display.MaxHeads]*dmabuf.Buffer
	s.mu.Lock()
	current := s.cur == n
	if current {
		s.cur = nil
		for i := range s.boxes {
			left[i] = s.boxes[i].next.buf
			s.boxes[i].next, s.boxes[i].disable = frame{}, false
		}
	}
	s.mu.Unlock()
	for _, b := range left {
		s.skip(b)
	}
	if current {
		s.answerAll()
	}
	switch {
	case errors.Is(err, errHangup), errors.Is(err, errStopped):
		s.log.Debug("QEMU display detached", zap.Error(err))
	default:
		s.log.Warn("QEMU display lost", zap.Error(err))
	}
}
