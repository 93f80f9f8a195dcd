package wayland

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// answerTimeout is how long NewSink waits for a compositor that accepted the
// connection to say what it offers.
const answerTimeout = 5 * time.Second

// Sink is a [display.Sink] whose heads are windows of a Wayland compositor.
type Sink struct {
	cfg   Config
	path  string
	log   *zap.Logger
	stats display.Stats

	// formats are the dma-bufs that the compositor takes now; nil before the
	// first connection. They outlive a connection, so that the broker does not
	// change tiers while the compositor restarts.
	formats atomic.Pointer[formatTable]

	resizable atomic.Bool                   // the guest follows the windows' sizes
	pacing    [display.MaxHeads]atomic.Bool // frame callbacks come

	wake  *dmabuf.FD    // eventfd; written while mu is held, so never after Close
	first chan error    // one value: how the first attempt to connect ended
	done  chan struct{} // closed when the loop has ended

	mu     sync.Mutex
	closed bool                      // guarded by mu
	awake  bool                      // guarded by mu: wake was written and not read yet
	boxes  [display.MaxHeads]mailbox // guarded by mu
	drops  []uint64                  // guarded by mu: ids of buffers to forget
	modes  []display.Mode            // guarded by mu; written by the loop
}

var (
	_ display.Sink    = (*Sink)(nil)
	_ display.Resizer = (*Sink)(nil)
)

// NewSink connects to a compositor. Without cfg.Wait it fails with
// [ErrNoCompositor] or [ErrMissing] when there is none fit for use; with it, the
// sink keeps trying. Close it when done.
func NewSink(cfg Config) (*Sink, error) {
	cfg.fill()
	path, err := socketPath(cfg.Display)
	if err != nil {
		return nil, err
	}
	raw, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, &OpError{Op: "create eventfd", Err: err}
	}
	s := &Sink{
		cfg:   cfg,
		path:  path,
		log:   cfg.Log,
		wake:  dmabuf.NewFD(raw, "wayland wake"),
		first: make(chan error, 1),
		done:  make(chan struct{}),
		modes: slices.Clone(cfg.Modes),
	}
	s.resizable.Store(cfg.Resize)
	go newLoop(s).run()
	timeout := time.NewTimer(answerTimeout)
	defer timeout.Stop()
	select {
	case err = <-s.first:
	case <-timeout.C:
		err = &OpError{Op: "connect", Object: path,
			Err: fmt.Errorf("%w: the socket accepts connections but nothing answers in %v; is the compositor stopped?", ErrNoCompositor, answerTimeout)}
	}
	if err == nil {
		return s, nil
	}
	if cfg.Wait {
		s.log.Warn("waiting for a compositor", zap.String("socket", path), zap.Error(err))
		return s, nil
	}
	return nil, errors.Join(err, s.Close())
}

// Name returns "wayland".
func (s *Sink) Name() string { return "wayland" }

// Accepts reports whether the compositor takes dma-bufs of this format and
// modifier, as they are or as their twin without alpha.
func (s *Sink) Accepts(f dmabuf.Fourcc, m dmabuf.Modifier) bool {
	_, ok := s.formats.Load().choose(f, m, true)
	return ok
}

// Present puts a frame into its head's mailbox. Called on the render thread.
func (s *Sink) Present(f *display.Frame) {
	if f.Head < 0 || f.Head >= display.MaxHeads || f.Buffer == nil || f.Source.Empty() {
		return
	}
	f.Buffer.BeginRead()
	in := frame{buf: f.Buffer, src: f.Source, damage: f.Damage, opaque: f.Opaque, serial: f.Serial, flushed: f.FlushedAt}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		f.Buffer.EndRead()
		return
	}
	old := s.boxes[f.Head].next.replace(in)
	s.signal()
	s.mu.Unlock()
	s.supersede(old)
}

// supersede ends the read of a frame that was never committed. mu must not be
// held: the buffer's OnIdle may call back.
func (s *Sink) supersede(old frame) {
	if old.buf == nil {
		return
	}
	if !old.blank {
		s.stats.FramesSkipped.Add(1)
	}
	old.buf.EndRead()
}

// Disable blanks the head, and closes its window unless frames come soon.
// Called on the render thread.
func (s *Sink) Disable(head int) {
	if head < 0 || head >= display.MaxHeads {
		return
	}
	s.mu.Lock()
	box := &s.boxes[head]
	old := box.next
	box.next = frame{}
	box.disable = true
	s.signal()
	s.mu.Unlock()
	s.supersede(old)
}

// ShowCursor copies the cursor's picture. Called on the render thread.
func (s *Sink) ShowCursor(c *display.Cursor) {
	if c.Head < 0 || c.Head >= display.MaxHeads {
		return
	}
	s.mu.Lock()
	s.boxes[c.Head].cursor.show(c)
	s.signal()
	s.mu.Unlock()
}

// MoveCursor moves the picture to x, y. Called on the render thread.
func (s *Sink) MoveCursor(head int, x, y int32) {
	if head < 0 || head >= display.MaxHeads {
		return
	}
	s.mu.Lock()
	s.boxes[head].cursor.move(x, y)
	s.signal()
	s.mu.Unlock()
}

// Drop forgets the imports of b once the compositor has released them. Called
// on the render thread.
func (s *Sink) Drop(b *dmabuf.Buffer) {
	s.mu.Lock()
	if !s.closed {
		s.drops = append(s.drops, b.ID)
		s.signal()
	}
	s.mu.Unlock()
}

// Mode returns the head's mode: the configured one, or the size that the user gave
// its window.
func (s *Sink) Mode(head int) display.Mode {
	s.mu.Lock()
	defer s.mu.Unlock()
	if head < 0 || head >= len(s.modes) {
		return display.Mode{}
	}
	return s.modes[head]
}

// setMode changes the size of the head's mode and tells the broker. The pixels keep
// their physical size.
func (s *Sink) setMode(head int, size extent) {
	s.mu.Lock()
	m := &s.modes[head]
	m.WidthMM = uint32(uint64(m.WidthMM) * uint64(size.w) / uint64(m.W))
	m.HeightMM = uint32(uint64(m.HeightMM) * uint64(size.h) / uint64(m.H))
	m.W, m.H = size.w, size.h
	s.mu.Unlock()
	if s.cfg.Events != nil {
		s.cfg.Events.ModeChanged(head)
	}
}

// Resizable says whether the guest can be told to change its modes, for windows that
// the user may resize then; see Config.Resize. Any goroutine.
func (s *Sink) Resizable(on bool) {
	if s.resizable.Swap(on) == on {
		return
	}
	s.mu.Lock()
	if !s.closed {
		s.signal()
	}
	s.mu.Unlock()
}

// EDID returns nil: a window has none.
func (s *Sink) EDID(int) []byte { return nil }

// Stats returns the counters. BytesCopied stays 0: cursor pictures, a few
// kilobytes each, are not frames.
func (s *Sink) Stats() *display.Stats { return &s.stats }

// Close disconnects, lets go of every buffer and waits for the goroutine.
func (s *Sink) Close() error {
	s.mu.Lock()
	s.closed = true
	s.signal()
	s.mu.Unlock()
	<-s.done
	return s.wake.Close()
}

var one = []byte{1, 0, 0, 0, 0, 0, 0, 0}

// signal wakes the loop. Preconditions: mu is held.
func (s *Sink) signal() {
	if s.awake || !s.wake.Valid() {
		return
	}
	s.awake = true
	// An eventfd that was read less than 2^64-2 times takes this at once.
	_, _ = unix.Write(s.wake.Int(), one)
}
