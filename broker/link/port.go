package link

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// port is a stream that outlives sessions: it sends stuffed data and control words,
// and hands what comes to the session that there is.
type port struct {
	rwc   io.ReadWriteCloser
	token chan struct{} // whoever takes it may fill out and give it to the writer
	out   []byte        // of the token's holder
	work  chan chan error
	done  chan struct{} // closed by close
	once  sync.Once
	wg    sync.WaitGroup
}

func newPort(rwc io.ReadWriteCloser) *port {
	p := &port{rwc: rwc, token: make(chan struct{}, 1), work: make(chan chan error), done: make(chan struct{})}
	p.token <- struct{}{}
	p.wg.Go(p.writer)
	return p
}

func (p *port) close() {
	p.once.Do(func() {
		close(p.done)
		_ = p.rwc.Close()
	})
}

// writer writes what token's holders leave in out. A goroutine of its own, because
// nobody can end a write that waits, only not wait for it.
func (p *port) writer() {
	for {
		select {
		case <-p.done:
			return
		case result := <-p.work:
			_, err := p.rwc.Write(p.out)
			result <- err
			p.token <- struct{}{}
		}
	}
}

// send sends what fill makes. It waits until that is written or stop is closed; what
// was begun is then still written as a whole.
func (p *port) send(stop <-chan struct{}, fill func(out []byte) []byte) error {
	select {
	case <-p.token:
	case <-stop:
		return net.ErrClosed
	case <-p.done:
		return net.ErrClosed
	}
	select {
	case <-stop: // not after a control word that ended the session
		p.token <- struct{}{}
		return net.ErrClosed
	default:
	}
	p.out = fill(p.out[:0])
	result := make(chan error, 1)
	select {
	case p.work <- result:
	case <-p.done:
		return net.ErrClosed
	}
	select {
	case err := <-result:
		return err
	case <-stop:
		return net.ErrClosed
	case <-p.done:
		return net.ErrClosed
	}
}

func (p *port) sendControl(w control) error {
	return p.send(nil, w.append)
}

// read hands what comes to e until the port ends.
func (p *port) read(e events) error {
	var u unstuffer
	buf := make([]byte, piece)
	for {
		n, err := p.rwc.Read(buf)
		u.take(buf[:n], e)
		if err != nil {
			return err
		}
	}
}

// portConn is a session's share of a port, as a net.Conn.
type portConn struct {
	p       *port
	from    *io.PipeReader
	to      *io.PipeWriter
	stopped chan struct{}
	once    sync.Once
}

func newPortConn(p *port) *portConn {
	c := &portConn{p: p, stopped: make(chan struct{})}
	c.from, c.to = io.Pipe()
	return c
}

func (c *portConn) Read(b []byte) (int, error) { return c.from.Read(b) }

func (c *portConn) Write(b []byte) (int, error) {
	if err := c.p.send(c.stopped, func(out []byte) []byte { return stuff(out, b) }); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Close ends the session's share; the port goes on.
func (c *portConn) Close() error {
	c.once.Do(func() {
		close(c.stopped)
		_ = c.from.CloseWithError(net.ErrClosed)
		_ = c.to.CloseWithError(net.ErrClosed)
	})
	return nil
}

type portAddr struct{}

func (portAddr) Network() string { return "port" }
func (portAddr) String() string  { return "port" }

func (c *portConn) LocalAddr() net.Addr  { return portAddr{} }
func (c *portConn) RemoteAddr() net.Addr { return portAddr{} }

// A guest may be stopped for as long as it likes: there are no deadlines.
func (c *portConn) SetDeadline(time.Time) error      { return nil }
func (c *portConn) SetReadDeadline(time.Time) error  { return nil }
func (c *portConn) SetWriteDeadline(time.Time) error { return nil }

// reason returns why a port ended whose reading ended with err.
func (p *port) reason(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case <-p.done:
		return ErrClosed
	default:
		return err
	}
}
