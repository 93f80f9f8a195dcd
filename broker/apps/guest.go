package apps

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/link"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
)

// guest is a link.Conn as a proxy.Guest.
type guest struct {
	c         *link.Conn
	hello     link.Hello
	transport string

	// Of the goroutine that calls Recv.
	reading watch
	items   []link.Item
	chunk   []proxy.Item
	update  proxy.Update
	pixels  []byte

	// Of the goroutine that calls Send.
	writing watch
	tail    splitter
	out     []link.Item
}

// watch calls a function when the context of a call ends; it is set up anew only when
// the context is another one.
type watch struct {
	ctx  context.Context
	stop func() bool
}

func (w *watch) set(ctx context.Context, f func()) {
	if w.ctx == ctx {
		return
	}
	w.end()
	w.ctx, w.stop = ctx, context.AfterFunc(ctx, f)
}

func (w *watch) end() {
	if w.stop != nil {
		w.stop()
	}
}

func (g *guest) Dialect() proxy.Dialect {
	offset, _, ok := g.c.Clock()
	return proxy.Dialect{
		BufferItems: true, RenderDev: g.hello.RenderDev,
		ClockOffset: offset, HasClock: ok,
		Transport: g.transport, Name: g.hello.Name,
	}
}

// Recv returns what a Wayland or an Update frame brings.
func (g *guest) Recv(ctx context.Context) (proxy.Chunk, error) {
	g.reading.set(ctx, g.c.Interrupt)
	f, err := g.c.Recv()
	var chunk proxy.Chunk
	if err == nil {
		chunk, err = g.take(f)
	}
	if err == nil || err == io.EOF {
		return chunk, err
	}
	if ctx.Err() != nil && errors.Is(err, link.ErrInterrupted) {
		return proxy.Chunk{}, context.Cause(ctx)
	}
	if errors.Is(err, link.ErrProtocol) || errors.Is(err, link.ErrTooMany) {
		g.c.Fail(err)
	}
	return proxy.Chunk{}, err
}

func (g *guest) take(f link.Frame) (proxy.Chunk, error) {
	if f.Type == link.TypeUpdate {
		return g.takeUpdate(f.Payload)
	}
	var data []byte
	var err error
	if g.items, data, err = link.DecodeWayland(f.Payload, link.Guest, g.items[:0]); err != nil {
		return proxy.Chunk{}, err
	}
	g.chunk = g.chunk[:0]
	for i := range g.items {
		it, err := g.accept(&g.items[i])
		if err != nil {
			closeItems(g.chunk)
			return proxy.Chunk{}, err
		}
		g.chunk = append(g.chunk, it)
	}
	return proxy.Chunk{Data: data, Items: g.chunk}, nil
}

func (g *guest) accept(it *link.Item) (proxy.Item, error) {
	switch it.Kind {
	case link.ItemPipe:
		fd, err := g.c.AcceptPipe(it.ID)
		return proxy.Item{Kind: proxy.ItemPipe, FD: fd}, err
	case link.ItemBytes:
		return proxy.Item{Kind: proxy.ItemBytes, Bytes: bytes.Clone(it.Bytes)}, nil // the items outlive the frame
	case link.ItemMemory:
		return proxy.Item{Kind: proxy.ItemMemory}, nil
	}
	return proxy.Item{Kind: proxy.ItemResource, Device: proxy.DeviceID(it.Device), Resource: it.ID, Offset: it.Offset}, nil
}

func (g *guest) takeUpdate(p []byte) (proxy.Chunk, error) {
	var u link.Update
	if err := u.Decode(p); err != nil {
		return proxy.Chunk{}, err
	}
	pixels, err := u.Unpack(g.pixels)
	if err != nil {
		return proxy.Chunk{}, err
	}
	if u.Encoding != link.EncodingRaw {
		g.pixels = pixels
	}
	g.update = proxy.Update{Buffer: u.Buffer, Rect: display.Rect{X: u.X, Y: u.Y, W: u.W, H: u.H}, Pixels: pixels}
	return proxy.Chunk{Update: &g.update}, nil
}

func closeItems(items []proxy.Item) {
	for i := range items {
		items[i].Close()
	}
}

// Send passes a chunk on as one or more Wayland frames of whole messages.
func (g *guest) Send(ctx context.Context, c proxy.Chunk) error {
	g.writing.set(ctx, g.c.InterruptWrites)
	err := g.send(c)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return &OpError{"send", err}
}

func (g *guest) send(c proxy.Chunk) error {
	if c.Update != nil {
		closeItems(c.Items)
		return errors.New("an update goes from the guest to the host only")
	}
	g.out = g.out[:0]
	for i := range c.Items {
		it, err := g.name(&c.Items[i])
		if err != nil {
			closeItems(c.Items[i:])
			return err
		}
		g.out = append(g.out, it)
	}
	items, room, err := g.sendItems(g.out)
	if err != nil {
		return err
	}
	return g.tail.split(c.Data, room, link.MaxPayload-4, func(data []byte) error {
		err := g.c.WriteWayland(items, data)
		items = nil
		return err
	}, func() bool { return len(items) > 0 })
}

// name makes an item of the protocol of one of the proxy; it takes the descriptor
// when it succeeds.
func (g *guest) name(it *proxy.Item) (link.Item, error) {
	switch it.Kind {
	case proxy.ItemPipe:
		fd := it.FD
		it.FD = nil
		id, err := g.c.NamePipe(fd)
		return link.Item{Kind: link.ItemPipe, ID: id}, err
	case proxy.ItemBytes:
		if len(it.Bytes) > link.MaxBytes {
			return link.Item{}, fmt.Errorf("%w: item of %d bytes, limit %d", link.ErrTooBig, len(it.Bytes), link.MaxBytes)
		}
		return link.Item{Kind: link.ItemBytes, Bytes: it.Bytes}, nil
	}
	return link.Item{}, fmt.Errorf("item of kind %d goes from the guest to the host only", it.Kind)
}

// sendItems sends items ahead in frames of their own until the rest fits into one. It
// returns that rest and how many bytes of messages fit beside it.
func (g *guest) sendItems(items []link.Item) ([]link.Item, int, error) {
	for {
		n := len(items)
		size, err := link.SizeItems(items)
		for err != nil && n > 1 {
			n--
			size, err = link.SizeItems(items[:n])
		}
		if err != nil {
			return nil, 0, err
		}
		if n == len(items) {
			return items, link.MaxPayload - size, nil
		}
		if err := g.c.WriteWayland(items[:n], nil); err != nil {
			return nil, 0, err
		}
		items = items[n:]
	}
}

func (g *guest) Fail(err error) { g.c.Fail(err) }

// Close ends the client. The Service closes the connection when the data of its pipes
// has been taken.
func (g *guest) Close() error {
	g.c.Interrupt()
	return nil
}
