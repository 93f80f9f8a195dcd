package qemudisplay

import (
	"fmt"
	"sync/atomic"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// session is the life of one socket, on one goroutine. Fields without a remark
// belong to that goroutine.
type session struct {
	sink *Sink
	conn *conn
	done chan struct{} // closed at the end

	awake atomic.Bool // poked and not looked yet

	out      []byte         // the message being made
	expect   []request      // replies to come, in order
	features uint64         // common to QEMU and us
	ready    bool           // the handshake is over
	asking   asking         // question about modes
	acking   bool           // a DMABUF_UPDATE is not answered yet
	old      *dmabuf.Buffer // read that ends with the answer
	turn     int            // head that is served next
	seg      [1][]byte      // for copies, to save an allocation
	heads    [display.MaxHeads]head
}

// head is what QEMU shows on a scanout, as far as it was told.
type head struct {
	shows  content
	w, h   uint32         // of the scanout
	buf    *dmabuf.Buffer // holds one BeginRead while shows is aDMABuf
	cursor cursorBox
}

type content uint8

const (
	nothing content = iota
	pixels
	aDMABuf
)

func newSession(s *Sink, c *conn) *session {
	return &session{sink: s, conn: c, done: make(chan struct{})}
}

// signal wakes the session. Preconditions: the sink's mu is held and the session
// is its current one, so that the connection is open.
func (s *session) signal() {
	if !s.awake.Swap(true) {
		s.conn.poke()
	}
}

// stop ends the session soon. Preconditions: as for signal.
func (s *session) stop() { s.conn.stop() }

// run serves the socket after the session before has ended.
func (s *session) run(before <-chan struct{}) {
	if before != nil {
		<-before
	}
	err := s.serve()
	s.sink.sessionEnded(s, err)
	s.letGo()
	// Nobody pokes any more: sessionEnded took the session out of the sink, or
	// another had been put there.
	s.conn.close()
	close(s.done)
}

// letGo ends all reads.
func (s *session) letGo() {
	s.ackDone()
	for i := range s.heads {
		s.unshow(i)
	}
}

func (s *session) serve() error {
	s.out = begin(s.out)
	if err := s.request(reqGetProtocolFeatures); err != nil {
		return err
	}
	for {
		if s.conn.quit.Load() {
			return errStopped
		}
		if err := s.readReplies(); err != nil {
			return err
		}
		busy, err := s.act()
		if err != nil {
			return err
		}
		if busy {
			continue
		}
		if err := s.conn.wait(unix.POLLIN, -1); err != nil {
			return err
		}
	}
}

// send closes the message in s.out and sends it.
func (s *session) send(r request, fd *dmabuf.FD) error {
	s.out = finish(s.out, r)
	return s.conn.send(s.out, fd)
}

// request sends s.out and expects a reply.
func (s *session) request(r request) error {
	s.expect = append(s.expect, r)
	return s.send(r, nil)
}

// readReplies handles every reply that is there. Bytes that came before QEMU hung
// up count.
func (s *session) readReplies() error {
	hangup := s.conn.receive()
	for {
		if len(s.expect) == 0 {
			if err := s.conn.unexpected(); err != nil {
				return err
			}
			return hangup
		}
		r, ok, err := s.conn.next(s.expect[0])
		if err != nil {
			return err
		}
		if !ok {
			return hangup
		}
		s.expect = append(s.expect[:0], s.expect[1:]...)
		err = s.handle(r)
		s.conn.consume(r)
		if err != nil {
			return err
		}
	}
}

func (s *session) handle(r reply) error {
	switch r.req {
	case reqGetProtocolFeatures:
		return s.gotFeatures(order.Uint64(r.payload))
	case reqGetDisplayInfo:
		return s.gotInfo(r.payload)
	case reqGetEDID:
		return s.gotEDID(r.payload)
	case reqDMABufUpdate:
		s.ackDone()
		return nil
	}
	return &OpError{"read reply", fmt.Errorf("%w: reply to %v", ErrProtocol, r.req)}
}

// gotFeatures ends the handshake and starts with the question about modes.
func (s *session) gotFeatures(theirs uint64) error {
	s.features = theirs & ourFeatures
	s.out = order.AppendUint64(begin(s.out), s.features)
	if err := s.send(reqSetProtocolFeatures, nil); err != nil {
		return err
	}
	sink := s.sink
	sink.mu.Lock()
	sink.features, sink.known = s.features, true
	sink.modes.wanted = true
	sink.mu.Unlock()
	s.ready = true
	sink.log.Info("QEMU display attached", zap.Bool("edid", s.features&featureEDID != 0), zap.Bool("dmabuf2", s.features&featureDMABuf2 != 0))
	if sink.cfg.Events != nil {
		sink.cfg.Events.Refresh()
	}
	return nil
}

// act sends what there is to send: a question, pointers, one frame. It reports
// whether it sent a frame, so that there may be more.
//
// While QEMU is at work on a dma-buf it does not read the socket, so nothing is
// sent then: what piles up here is merged, in the socket it would not be.
func (s *session) act() (bool, error) {
	if !s.ready || s.acking {
		return false, nil
	}
	s.awake.Store(false)
	if !s.asking.busy && s.sink.beginAsk() {
		if err := s.ask(); err != nil {
			return false, err
		}
	}
	s.takeCursors()
	for i := range s.heads {
		if err := s.sendCursor(i); err != nil {
			return false, err
		}
	}
	for range s.heads {
		i := s.turn
		s.turn = (s.turn + 1) % len(s.heads)
		disable, f := s.takeFrame(i)
		if disable {
			if err := s.disable(i); err != nil {
				s.sink.skip(f.buf)
				return false, err
			}
		}
		if f.buf != nil {
			return true, s.show(i, f)
		}
	}
	return false, nil
}

func (s *session) takeCursors() {
	s.sink.mu.Lock()
	defer s.sink.mu.Unlock()
	if s.sink.cur != s {
		return
	}
	for i := range s.heads {
		s.sink.boxes[i].cursor.take(&s.heads[i].cursor)
	}
}

func (s *session) takeFrame(i int) (disable bool, f frame) {
	s.sink.mu.Lock()
	defer s.sink.mu.Unlock()
	if s.sink.cur != s {
		return false, frame{} // it is for the session that comes
	}
	box := &s.sink.boxes[i]
	disable, f = box.disable, box.next
	box.disable, box.next = false, frame{}
	return disable, f
}
