package link

import "time"

// pingEvery is how often the host measures the guest's clock anew: the two run at
// slightly different speeds.
const pingEvery = 30 * time.Second

// Recv waits for the next Wayland or Update frame, valid until the next call, and
// deals with all others in between: it answers pings, feeds pipes and turns an Error
// frame into a *RemoteError. It never waits for a write, so two ends that send to each
// other do not stop for ever. After an error that wraps ErrProtocol the caller calls
// Fail and Close. For io.EOF see ReadFrame.
func (c *Conn) Recv() (Frame, error) {
	for {
		f, err := c.ReadFrame()
		if err != nil {
			return Frame{}, err
		}
		switch f.Type {
		case TypeWayland, TypeUpdate:
			return f, nil
		case TypePing:
			err = c.queuePong(f.Payload)
		case TypePong:
			err = c.pong(f.Payload)
		case TypeData, TypeClose, TypeCredit:
			err = c.pipes.handle(f)
		case TypeError:
			var remote *RemoteError
			if remote, err = DecodeError(f.Payload); err == nil {
				return Frame{}, remote
			}
		default:
			err = protocol("%v after the handshake", f.Type)
		}
		if err != nil {
			return Frame{}, &OpError{"receive", err}
		}
	}
}

// queuePong leaves a ping to the goroutine that answers. Pings that come faster than
// it can send are forgotten.
func (c *Conn) queuePong(p []byte) error {
	g, err := DecodePing(p)
	if err != nil {
		return err
	}
	select {
	case c.pongs <- g:
	default:
	}
	return nil
}

func (c *Conn) pong(p []byte) error {
	g, err := DecodePing(p)
	if err == nil {
		c.clock.pong(g, Now())
	}
	return err
}

// attend answers pings and, on the host, sends some, until Close.
func (c *Conn) attend() {
	var tick <-chan time.Time
	if c.role == Host {
		t := time.NewTicker(pingEvery)
		defer t.Stop()
		tick = t.C
	}
	for {
		var err error
		select {
		case <-c.done:
			return
		case g := <-c.pongs:
			g.Clock = Now()
			err = c.writePing(TypePong, g)
		case <-tick:
			err = c.Ping()
		}
		if err != nil {
			return // the reader hears of it, too
		}
	}
}

// Ping sends a ping; the answer improves Clock. Without effect while one is
// unanswered.
func (c *Conn) Ping() error {
	g, ok := c.clock.ping(Now())
	if !ok {
		return nil
	}
	return c.writePing(TypePing, g)
}

func (c *Conn) writePing(t Type, g Ping) error {
	var b [16]byte
	return c.WriteFrame(t, g.Append(b[:0]))
}

// Clock returns the peer's CLOCK_MONOTONIC minus this end's in nanoseconds, and the
// time that the ping behind it took there and back: the error is at most half of that.
// ok is false before the first answer. A peer may say any time it likes.
func (c *Conn) Clock() (offset int64, rtt time.Duration, ok bool) { return c.clock.get() }
