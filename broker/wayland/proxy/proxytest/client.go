package proxytest

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

// Options say how a client connects.
type Options struct {
	Dialect proxy.Dialect
	Owner   proxy.Owner
}

// Client is a Wayland client in a guest. It belongs to the test's goroutine.
type Client struct {
	*Guest
	T   testing.TB
	Out wire.Writer // requests, without descriptors; see Items

	items   []proxy.Item
	next    wire.ID
	free    []wire.ID
	objects map[wire.ID]Object
	partial []byte
	inbox   []proxy.Item
	events  []Event
	globals []proto.WlRegistryGlobalEvent
	reg     wire.ID
	err     chan error
	result  error
	ended   bool
	leave   sync.Once
}

// Object is what the client knows of an id.
type Object struct {
	Iface   proto.InterfaceID
	Version uint32
}

// Event is a message from the compositor.
type Event struct {
	wire.Message
	Iface proto.InterfaceID
	Items []proxy.Item // the client closes them at its end
}

// Is reports whether the event is the one of an interface.
func (e *Event) Is(iface proto.InterfaceID, opcode uint16) bool {
	return e.Iface == iface && e.Opcode == opcode
}

// wait bounds every wait of a test.
const wait = 20 * time.Second

// Server serves a client: a *proxy.Proxy, or what carries the client to one.
type Server interface {
	Serve(ctx context.Context, g proxy.Guest, o proxy.Owner) error
}

// New connects a client and learns the globals. It leaves at the test's end.
func New(t testing.TB, p Server, opt Options) *Client {
	t.Helper()
	c := Dial(t, p, opt)
	c.reg = c.NewID(proto.IWlRegistry, 1)
	proto.WlDisplay(wire.DisplayID).GetRegistry(&c.Out, proto.WlRegistry(c.reg))
	c.Roundtrip()
	return c
}

// Dial connects a client that has not said anything yet.
func Dial(t testing.TB, p Server, opt Options) *Client {
	t.Helper()
	c := &Client{Guest: NewGuest(opt.Dialect), T: t, next: 2, err: make(chan error, 1),
		objects: map[wire.ID]Object{wire.DisplayID: {proto.IWlDisplay, 1}}}
	c.Out.MaxPending = 1 << 28
	go func() { c.err <- p.Serve(context.Background(), c.Guest, opt.Owner) }()
	t.Cleanup(c.Leave)
	return c
}

// Leave ends the connection in an orderly way and waits for the proxy.
func (c *Client) Leave() {
	c.leave.Do(func() {
		c.Stall(false)
		close(c.in)
		_ = c.Wait()
		c.receive()
		for _, e := range c.events {
			closeItems(e.Items)
		}
		closeItems(c.inbox)
		closeItems(c.items)
	})
}

func closeItems(items []proxy.Item) {
	for i := range items {
		items[i].Close()
	}
}

// Wait waits for the end of Serve and returns its result.
func (c *Client) Wait() error {
	if c.ended {
		return c.result
	}
	select {
	case c.result = <-c.err:
		c.ended = true
	case <-time.After(wait):
		c.T.Fatalf("the proxy still serves the client after %v", wait)
	}
	return c.result
}

// NewID returns a free id for an object.
func (c *Client) NewID(iface proto.InterfaceID, version uint32) wire.ID {
	id := c.next
	if n := len(c.free); n > 0 {
		id, c.free = c.free[n-1], c.free[:n-1]
	} else {
		c.next++
	}
	c.objects[id] = Object{iface, version}
	return id
}

// Adopt registers an object whose id the test chose.
func (c *Client) Adopt(id wire.ID, iface proto.InterfaceID, version uint32) {
	c.objects[id] = Object{iface, version}
}

// Try sends a chunk if the proxy takes it within d.
func (c *Client) Try(chunk proxy.Chunk, d time.Duration) bool {
	select {
	case c.in <- chunk:
		return true
	case <-time.After(d):
		return false
	}
}

// Item adds an item to what the next Flush sends.
func (c *Client) Item(it proxy.Item) { c.items = append(c.items, it) }

// Flush sends what was written. It is false if the proxy has ended the client.
func (c *Client) Flush() bool {
	data := append([]byte(nil), c.Out.Unsent()...)
	c.Out.Reset()
	items := c.items
	c.items = nil
	return c.Chunk(proxy.Chunk{Data: data, Items: items})
}

// Chunk sends a chunk as it is.
func (c *Client) Chunk(chunk proxy.Chunk) bool {
	if c.ended {
		closeItems(chunk.Items)
		return false
	}
	select {
	case c.in <- chunk:
		return true
	case c.result = <-c.err:
		c.ended = true
		closeItems(chunk.Items)
		return false
	case <-time.After(wait):
		c.T.Fatalf("the proxy does not take a chunk of %d bytes after %v", len(chunk.Data), wait)
		return false
	}
}

// receive decodes what has come.
func (c *Client) receive() (closed bool, more <-chan struct{}) {
	data, items, closed, more := c.take()
	c.inbox = append(c.inbox, items...)
	c.partial = append(c.partial, data...)
	for {
		m, n, err := wire.Frame(c.partial, wire.MaxMessage)
		if err != nil {
			c.T.Fatalf("the proxy sent rubbish: %v", err)
		}
		if n == 0 {
			return closed, more
		}
		m.Body = append([]byte(nil), m.Body...)
		c.partial = c.partial[n:]
		c.event(m)
	}
}

// event notes a message and keeps the books of objects.
func (c *Client) event(m wire.Message) {
	o, ok := c.objects[m.Object]
	if !ok {
		c.T.Errorf("event %d for object %#x, which does not exist", m.Opcode, uint32(m.Object))
		return
	}
	desc := o.Iface.Event(m.Opcode)
	if desc == nil || desc.Since > o.Version {
		c.T.Errorf("event %d is not in version %d of %v", m.Opcode, o.Version, o.Iface)
		return
	}
	e := Event{Message: m, Iface: o.Iface}
	for range desc.FDs {
		if len(c.inbox) == 0 {
			c.T.Errorf("%v.%s came without its item", o.Iface, desc.Name)
			return
		}
		e.Items = append(e.Items, c.inbox[0])
		c.inbox = c.inbox[1:]
	}
	for at, i := 0, 0; i < len(desc.Args) && at+4 <= len(m.Body); i++ {
		v := binary.LittleEndian.Uint32(m.Body[at:])
		switch desc.Args[i].Type {
		case proto.FD:
			continue
		case proto.String, proto.Array:
			at += int(v+3) &^ 3
		case proto.NewID:
			if old, ok := c.objects[wire.ID(v)]; ok && wire.ID(v) < wire.ServerIDs {
				c.T.Errorf("%v.%s makes %#x, which is a %v", o.Iface, desc.Name, v, old.Iface)
			}
			c.objects[wire.ID(v)] = Object{desc.Args[i].Interface, o.Version}
		}
		at += 4
	}
	if e.Is(proto.IWlDisplay, proto.EvWlDisplayDeleteId) {
		id := wire.ID(binary.LittleEndian.Uint32(m.Body))
		if _, ok := c.objects[id]; !ok {
			c.T.Errorf("delete_id of %d, which does not exist", id)
		}
		delete(c.objects, id)
		c.free = append(c.free, id)
	}
	if o.Iface == proto.IWlRegistry && m.Object == c.reg && m.Opcode == proto.EvWlRegistryGlobal {
		var g proto.WlRegistryGlobalEvent
		if err := g.Decode(m); err != nil {
			c.T.Errorf("global: %v", err)
		}
		c.globals = append(c.globals, g)
	}
	c.events = append(c.events, e)
}

// Eventually handles events until f is true; it fails the test if the proxy ends
// the client before, or after a while.
func (c *Client) Eventually(what string, f func() bool) {
	c.T.Helper()
	for end := time.Now().Add(wait); ; {
		closed, more := c.receive()
		if f() {
			return
		}
		if closed {
			c.T.Fatalf("the connection ended before: %s (%v)", what, c.Failure())
		}
		select {
		case <-more:
		case <-time.After(time.Until(end)):
			c.T.Fatalf("%v have passed and still not: %s", wait, what)
		}
	}
}

// Roundtrip flushes and waits until the compositor has answered everything so far.
func (c *Client) Roundtrip() {
	c.T.Helper()
	if !c.Sync() {
		c.T.Fatalf("the connection has ended: %v", c.Failure())
	}
}

// Sync is Roundtrip that returns false if the connection ends meanwhile.
func (c *Client) Sync() bool {
	id := c.NewID(proto.IWlCallback, 1)
	proto.WlDisplay(wire.DisplayID).Sync(&c.Out, proto.WlCallback(id))
	if !c.Flush() {
		c.receive()
		return false
	}
	seen := len(c.events)
	for end := time.Now().Add(wait); ; {
		closed, more := c.receive()
		for ; seen < len(c.events); seen++ {
			if e := &c.events[seen]; e.Object == id && e.Is(proto.IWlCallback, proto.EvWlCallbackDone) {
				return true
			}
		}
		if closed {
			return false
		}
		select {
		case <-more:
		case <-time.After(time.Until(end)):
			c.T.Fatalf("no answer to wl_display.sync in %v", wait)
		}
	}
}

// Events returns what came so far, without waiting.
func (c *Client) Events() []Event {
	c.receive()
	return c.events
}

// Last returns the newest event of a kind; nil if none came.
func (c *Client) Last(iface proto.InterfaceID, opcode uint16) *Event {
	events := c.Events()
	for i := len(events) - 1; i >= 0; i-- {
		if events[i].Is(iface, opcode) {
			return &events[i]
		}
	}
	return nil
}

// Count returns how many events of a kind came so far.
func (c *Client) Count(iface proto.InterfaceID, opcode uint16) (n int) {
	for i := range c.Events() {
		if c.events[i].Is(iface, opcode) {
			n++
		}
	}
	return n
}

// Version returns the version in which a global is offered, 0 if it is not.
func (c *Client) Version(iface string) uint32 {
	c.receive()
	for _, g := range c.globals {
		if g.Interface == iface {
			return g.Version
		}
	}
	return 0
}

// Bind binds a global in a version that is offered.
func (c *Client) Bind(iface string, version uint32) wire.ID {
	c.T.Helper()
	for _, g := range c.globals {
		if g.Interface == iface && g.Version >= version {
			id := c.NewID(proto.Lookup(iface), version)
			proto.WlRegistry(c.reg).Bind(&c.Out, g.Name, iface, version, id)
			return id
		}
	}
	c.T.Fatalf("%s version %d is not offered (but %d)", iface, version, c.Version(iface))
	return 0
}

// Registry returns the client's registry.
func (c *Client) Registry() proto.WlRegistry { return proto.WlRegistry(c.reg) }

// DisplayError waits for the end of the connection and returns what wl_display.error
// said, "" if it said nothing.
func (c *Client) DisplayError() string {
	_ = c.Wait()
	if e := c.Last(proto.IWlDisplay, proto.EvWlDisplayError); e != nil {
		var ev proto.WlDisplayErrorEvent
		if err := ev.Decode(e.Message); err == nil {
			return fmt.Sprintf("object %d error %d: %s", ev.ObjectId, ev.Code, ev.Message)
		}
	}
	return ""
}
