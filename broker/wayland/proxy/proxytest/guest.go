package proxytest

import (
	"context"
	"io"
	"sync"

	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
)

// Guest is an in-memory proxy.Guest. The test is the guest's end.
type Guest struct {
	dialect proxy.Dialect
	in      chan proxy.Chunk

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when something below changes
	data    []byte        // from the proxy, not read yet
	items   []proxy.Item
	stalled bool
	closed  bool  // by the proxy
	failure error // what Fail said
}

// NewGuest makes a guest's end.
func NewGuest(d proxy.Dialect) *Guest {
	return &Guest{dialect: d, in: make(chan proxy.Chunk), changed: make(chan struct{})}
}

// Dialect implements proxy.Guest.
func (g *Guest) Dialect() proxy.Dialect { return g.dialect }

// Recv implements proxy.Guest.
func (g *Guest) Recv(ctx context.Context) (proxy.Chunk, error) {
	select {
	case c, ok := <-g.in:
		if !ok {
			return proxy.Chunk{}, io.EOF
		}
		return c, nil
	case <-ctx.Done():
		return proxy.Chunk{}, ctx.Err()
	}
}

// Send implements proxy.Guest.
func (g *Guest) Send(ctx context.Context, c proxy.Chunk) error {
	for {
		g.mu.Lock()
		if !g.stalled {
			g.data = append(g.data, c.Data...)
			g.items = append(g.items, c.Items...)
			g.signal()
			g.mu.Unlock()
			return nil
		}
		wait := g.changed
		g.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			for i := range c.Items {
				c.Items[i].Close()
			}
			return ctx.Err()
		}
	}
}

// signal wakes whoever waits for a change. mu is held.
func (g *Guest) signal() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// Fail implements proxy.Guest.
func (g *Guest) Fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.failure = err
}

// Close implements proxy.Guest.
func (g *Guest) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.signal()
	return nil
}

// Stall makes Send wait, as a guest does that does not read.
func (g *Guest) Stall(on bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stalled = on
	g.signal()
}

// take returns what came from the proxy since the last call, and a channel that is
// closed when there is more.
func (g *Guest) take() (data []byte, items []proxy.Item, closed bool, more <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	data, items = g.data, g.items
	g.data, g.items = nil, nil
	return data, items, g.closed, g.changed
}

// Failure returns what Fail was told.
func (g *Guest) Failure() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.failure
}
