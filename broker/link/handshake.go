package link

import (
	"context"
	"fmt"
	"io"
)

// pings is how many the host sends before its Welcome, so that it knows the guest's
// clock before the client's first message.
const pings = 4

// ClientHandshake makes the guest's end of a connection: it says h, whose Version and
// Clock it fills in, answers pings and waits for the host's Welcome. It takes ownership
// of rwc, on error too; when ctx ends first, rwc is closed. A host that refuses is a
// *RemoteError.
func ClientHandshake(ctx context.Context, rwc io.ReadWriteCloser, h Hello, limits Limits) (*Conn, Welcome, error) {
	c := newConn(rwc, Guest, limits)
	stop := context.AfterFunc(ctx, func() { _ = rwc.Close() })
	w, err := c.greet(h)
	if err = c.finish(ctx, stop, err); err != nil {
		return nil, Welcome{}, err
	}
	c.compress = h.Flags&w.Flags&FlagCompressed != 0
	c.start()
	return c, w, nil
}

func (c *Conn) greet(h Hello) (Welcome, error) {
	h.Version, h.Clock = Version, Now()
	p, err := h.Append(nil)
	if err != nil {
		return Welcome{}, err
	}
	if err := c.WriteFrame(TypeHello, p); err != nil {
		return Welcome{}, err
	}
	for {
		f, err := c.ReadFrame()
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return Welcome{}, err
		}
		switch f.Type {
		case TypePing:
			g, err := DecodePing(f.Payload)
			if err != nil {
				return Welcome{}, err
			}
			g.Clock = Now()
			if err := c.writePing(TypePong, g); err != nil {
				return Welcome{}, err
			}
		case TypeWelcome:
			var w Welcome
			if err := w.Decode(f.Payload); err != nil {
				return Welcome{}, err
			}
			if w.Version != Version {
				return Welcome{}, protocol("Welcome: version %d, this end speaks %d", w.Version, Version)
			}
			return w, nil
		case TypeError:
			return Welcome{}, remote(f.Payload)
		default:
			return Welcome{}, protocol("%v before Welcome", f.Type)
		}
	}
}

// ServerHandshake makes the host's end of a connection: it waits for a Hello, asks
// admit, measures the guest's clock and says Welcome with the flags that admit
// returned; FlagCompressed is always among them. An error of admit goes to the guest
// as it is. It takes ownership of rwc, on error too; when ctx ends first, rwc is
// closed.
func ServerHandshake(ctx context.Context, rwc io.ReadWriteCloser, limits Limits, admit func(*Hello) (flags uint16, err error)) (*Conn, Hello, error) {
	c := newConn(rwc, Host, limits)
	stop := context.AfterFunc(ctx, func() { _ = rwc.Close() })
	h, err := c.welcome(admit)
	if err = c.finish(ctx, stop, err); err != nil {
		return nil, Hello{}, err
	}
	c.start()
	return c, h, nil
}

func (c *Conn) welcome(admit func(*Hello) (uint16, error)) (Hello, error) {
	f, err := c.ReadFrame()
	if err != nil {
		return Hello{}, err
	}
	var h Hello
	switch f.Type {
	case TypeHello:
		err = h.Decode(f.Payload)
	case TypeError:
		err = remote(f.Payload)
	default:
		err = protocol("%v before Hello", f.Type)
	}
	if err != nil {
		return Hello{}, err
	}
	flags, err := admit(&h)
	if err != nil {
		return Hello{}, err
	}
	for range pings {
		if err := c.Ping(); err != nil {
			return Hello{}, err
		}
		f, err := c.ReadFrame()
		switch {
		case err != nil:
		case f.Type == TypePong:
			err = c.pong(f.Payload)
			if err == nil && !c.clock.answered() {
				err = protocol("Pong with a cookie that no Ping had")
			}
		case f.Type == TypeError:
			err = remote(f.Payload)
		default:
			err = protocol("%v before Welcome", f.Type)
		}
		if err != nil {
			return Hello{}, err
		}
	}
	w := Welcome{Version: Version, Flags: flags | FlagCompressed, Clock: Now()}
	return h, c.WriteFrame(TypeWelcome, w.Append(nil))
}

func remote(p []byte) error {
	r, err := DecodeError(p)
	if err != nil {
		return err
	}
	return r
}

// finish ends a handshake; if it went wrong it tells the peer and closes.
func (c *Conn) finish(ctx context.Context, stop func() bool, err error) error {
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
	} else {
		c.Fail(err)
	}
	_ = c.Close()
	return &OpError{"handshake", err}
}
