package link

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/libp2p/go-yamux/v5"
)

const (
	// helloFirst and helloLast are the first and the longest time between two hellos
	// that nobody has answered.
	helloFirst = 20 * time.Millisecond
	helloLast  = time.Second
	// resetEvery is how often the host says that there is no session, at most.
	resetEvery = 200 * time.Millisecond
	// backlog is how many streams may be opened before the host has taken the first.
	backlog = 64
)

// Mux: many streams over one port, of virtio-serial for example. Within a session this
// is yamux, which gives each stream a window of 256 KiB, so that one that is not read
// does not hold up the others. (libp2p's yamux: HashiCorp's bounds neither streams nor
// the pings that it answers.) Around it is a handshake that copes with what a port does
// when one end is restarted: the other end's bytes remain in it, from the middle of a
// message.
//
//	guest → host: hello with a nonce, again and again until
//	host → guest: answer with the nonce; then the session
//
// A hello with another nonce ends the session that there was. A host that gets
// something else without having a session says reset, and the guest begins anew.

// muxConfig: no timeouts, since a guest may be stopped for hours, and no keep-alives.
func muxConfig(streams int) *yamux.Config {
	c := yamux.DefaultConfig()
	c.EnableKeepAlive = false
	c.MeasureRTTInterval = 24 * time.Hour
	c.ConnectionWriteTimeout = 365 * 24 * time.Hour
	c.InitialStreamWindowSize = Window
	c.MaxStreamWindowSize = Window
	c.MaxIncomingStreams = uint32(streams)
	c.AcceptBacklog = min(streams, backlog)
	c.ReadBufSize = 0 // what a port read is large enough
	c.LogOutput = io.Discard
	return c
}

// session is what both ends have of one.
type session struct {
	nonce [nonceSize]byte
	conn  *portConn
	mux   *yamux.Session
}

func (s *session) end() {
	_ = s.conn.Close()
	_ = s.mux.Close()
}

// host is the host's end of a port.
type host struct {
	p       *port
	ctx     context.Context
	streams int
	serve   func(context.Context, io.ReadWriteCloser)
	wg      sync.WaitGroup

	// The reader's.
	cur   *session
	reset time.Time // when reset was said last
}

// ServeMux is the host's end of a port: it calls serve, each time on a goroutine of its
// own, for the streams that the guest's end opens, at most streams at a time, and
// returns when the port ends or ctx does and all calls have returned. serve's context
// ends with the session; it closes its stream. ServeMux takes ownership of rwc. io.EOF
// is the port's orderly end.
func ServeMux(ctx context.Context, rwc io.ReadWriteCloser, streams int, serve func(ctx context.Context, stream io.ReadWriteCloser)) error {
	h := &host{p: newPort(rwc), ctx: ctx, streams: streams, serve: serve}
	defer context.AfterFunc(ctx, h.p.close)()
	// A guest that had a session with another host process begins anew. This comes
	// before any answer, or it would end a new session.
	h.reset = time.Now()
	err := h.p.sendControl(control{kind: controlReset})
	if err == nil {
		err = h.p.read(h)
	}
	err = h.p.reason(ctx, err)
	h.p.close()
	h.endSession()
	h.wg.Wait()
	h.p.wg.Wait()
	return err
}

func (h *host) endSession() {
	if h.cur != nil {
		h.cur.end()
		h.cur = nil
	}
}

func (h *host) data(b []byte) {
	if h.cur != nil {
		if _, err := h.cur.conn.to.Write(b); err == nil {
			return
		}
		h.endSession()
	}
	h.garbage()
}

// garbage is data without a session, or nonsense.
func (h *host) garbage() {
	h.endSession()
	if time.Since(h.reset) < resetEvery {
		return
	}
	h.reset = time.Now()
	_ = h.p.sendControl(control{kind: controlReset})
}

func (h *host) control(w control) {
	if w.kind != controlHello {
		h.garbage()
		return
	}
	if h.cur != nil && h.cur.nonce == w.nonce && !h.cur.mux.IsClosed() {
		return // said again before the answer came
	}
	h.endSession()
	if h.p.sendControl(control{controlAnswer, w.nonce}) != nil {
		return
	}
	conn := newPortConn(h.p)
	mux, err := yamux.Server(conn, muxConfig(h.streams), nil)
	if err != nil { // of the configuration alone
		panic(fmt.Sprintf("link: yamux: %v", err))
	}
	h.cur = &session{nonce: w.nonce, conn: conn, mux: mux}
	h.wg.Go(func() { h.accept(mux) })
}

func (h *host) accept(mux *yamux.Session) {
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	for {
		s, err := mux.AcceptStream()
		if err != nil {
			return
		}
		h.wg.Go(func() { h.serve(ctx, s) })
	}
}

// Mux is the guest's end of a port.
type Mux struct {
	p      *port
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	cur   *session      // guarded by mu
	ready chan struct{} // guarded by mu: closed when there is a session
	nonce [nonceSize]byte
}

// NewMux makes the guest's end of a port and begins to look for the host. It takes
// ownership of rwc and ends when that does, or ctx, or with Close.
func NewMux(ctx context.Context, rwc io.ReadWriteCloser) *Mux {
	m := &Mux{p: newPort(rwc), ready: make(chan struct{}), nonce: newNonce()}
	m.ctx, m.cancel = context.WithCancelCause(ctx)
	m.wg.Go(func() {
		defer context.AfterFunc(m.ctx, m.p.close)()
		err := m.p.reason(m.ctx, m.p.read(m))
		m.cancel(&OpError{"port", err})
		m.p.close()
		m.drop()
	})
	m.wg.Go(m.greet)
	return m
}

func newNonce() (n [nonceSize]byte) {
	var b [10]byte
	_, _ = rand.Read(b[:])
	base32.StdEncoding.Encode(n[:], b[:])
	return n
}

// Open opens a stream to the host, after waiting for a session. When the session ends,
// because the host was restarted for example, its streams end, and the next Open waits
// for a new one. The caller closes the stream.
func (m *Mux) Open(ctx context.Context) (net.Conn, error) {
	for {
		m.mu.Lock()
		cur, ready := m.cur, m.ready
		m.mu.Unlock()
		if cur != nil && !cur.mux.IsClosed() {
			s, err := cur.mux.OpenStream(ctx)
			if err == nil {
				return s, nil
			}
			if ctx.Err() != nil {
				return nil, &OpError{"open stream", context.Cause(ctx)}
			}
			m.lost(cur)
			continue
		}
		if cur != nil {
			m.lost(cur)
			continue
		}
		select {
		case <-ready:
		case <-ctx.Done():
			return nil, &OpError{"open stream", fmt.Errorf("no answer from the host: %w", context.Cause(ctx))}
		case <-m.ctx.Done():
			return nil, context.Cause(m.ctx)
		}
	}
}

// Done is closed when the port has ended; Err says why.
func (m *Mux) Done() <-chan struct{} { return m.ctx.Done() }

// Err returns why the port ended: an error that wraps io.EOF, ErrClosed, …
func (m *Mux) Err() error { return context.Cause(m.ctx) }

// Close ends the port and its streams.
func (m *Mux) Close() error {
	m.cancel(&OpError{"port", ErrClosed})
	m.p.close()
	m.wg.Wait()
	m.p.wg.Wait()
	return nil
}

// greet says hello until there is a session, and whenever there is none.
func (m *Mux) greet() {
	wait := helloFirst
	for {
		m.mu.Lock()
		cur, nonce, ready := m.cur, m.nonce, m.ready
		m.mu.Unlock()
		var closed <-chan struct{}
		tick := time.NewTimer(wait)
		if cur != nil {
			tick.Stop()
			wait, closed, ready = helloFirst, cur.mux.CloseChan(), nil
		} else if m.p.sendControl(control{controlHello, nonce}) != nil {
			tick.Stop()
			return // the reader hears of it, too
		}
		select {
		case <-m.ctx.Done():
			tick.Stop()
			return
		case <-closed:
			m.lost(cur)
		case <-ready:
		case <-tick.C:
			wait = min(2*wait, helloLast)
		}
		tick.Stop()
	}
}

// lost ends a session and begins anew; not twice for the same.
func (m *Mux) lost(s *session) {
	s.end()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cur == s {
		m.cur, m.ready, m.nonce = nil, make(chan struct{}), newNonce()
	}
}

func (m *Mux) drop() {
	m.mu.Lock()
	cur := m.cur
	m.mu.Unlock()
	if cur != nil {
		m.lost(cur)
	}
}

func (m *Mux) data(b []byte) {
	m.mu.Lock()
	cur := m.cur
	m.mu.Unlock()
	if cur == nil {
		return // of another session
	}
	if _, err := cur.conn.to.Write(b); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		m.lost(cur)
	}
}

// garbage ends the session: something was lost on the way.
func (m *Mux) garbage() { m.drop() }

func (m *Mux) control(w control) {
	m.mu.Lock()
	cur := m.cur
	answered := cur == nil && w.kind == controlAnswer && w.nonce == m.nonce
	m.mu.Unlock()
	if !answered {
		if cur != nil && (w.kind != controlAnswer || w.nonce != cur.nonce) {
			m.lost(cur)
		}
		return
	}
	conn := newPortConn(m.p)
	mux, err := yamux.Client(conn, muxConfig(backlog), nil)
	if err != nil { // of the configuration alone
		panic(fmt.Sprintf("link: yamux: %v", err))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cur = &session{nonce: w.nonce, conn: conn, mux: mux}
	close(m.ready)
}
