package crossdomain

import (
	"context"
	"sync"

	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
)

// sent is a SEND on its way to what serves the channel.
type sent struct {
	data  []byte
	items []proxy.Item
}

func (s *sent) close() {
	for i := range s.items {
		s.items[i].Close()
	}
}

// inbox is the queue of SENDs.
type inbox struct {
	mu    sync.Mutex
	q     []sent        // guarded by mu
	bytes int           // guarded by mu
	err   error         // guarded by mu; closed
	more  chan struct{} // has one when there is something to take
}

func (b *inbox) init() { b.more = make(chan struct{}, 1) }

// check reports whether n more bytes may come.
func (b *inbox) check(n int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.err != nil:
		return b.err
	case b.bytes+n > hardBytes || len(b.q) >= hardMessages:
		return ErrFlood
	}
	return nil
}

// push adds a SEND, and takes its items.
func (b *inbox) push(s sent) {
	b.mu.Lock()
	if b.err != nil {
		b.mu.Unlock()
		s.close()
		return
	}
	b.q = append(b.q, s)
	b.bytes += len(s.data)
	b.mu.Unlock()
	b.wake()
}

func (b *inbox) wake() {
	select {
	case b.more <- struct{}{}:
	default:
	}
}

func (b *inbox) full() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytes > softBytes || len(b.q) > softMessages
}

// pop waits for the next SEND.
func (b *inbox) pop(ctx context.Context) (sent, error) {
	for {
		b.mu.Lock()
		switch {
		case len(b.q) > 0:
			s := b.q[0]
			b.q[0] = sent{}
			b.q = b.q[1:]
			b.bytes -= len(s.data)
			b.mu.Unlock()
			return s, nil
		case b.err != nil:
			err := b.err
			b.mu.Unlock()
			return sent{}, err
		}
		b.mu.Unlock()
		select {
		case <-b.more:
		case <-ctx.Done():
			return sent{}, ctx.Err()
		}
	}
}

// finish ends the queue; what is in it can still be taken.
func (b *inbox) finish() {
	b.mu.Lock()
	if b.err == nil {
		b.err = ErrClosed
	}
	b.mu.Unlock()
	b.wake()
}

// close ends the queue; what is in it is dropped.
func (b *inbox) close(err error) {
	b.mu.Lock()
	q := b.q
	if b.err == nil {
		b.err = err
	}
	b.q, b.bytes = nil, 0
	b.mu.Unlock()
	for i := range q {
		q[i].close()
	}
	b.wake()
}
