package link

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// pipes are the pipes of a connection. Whose the number is says which way the data
// goes: to the end that named the pipe.
type pipes struct {
	c      *Conn
	limits Limits

	mu     sync.Mutex
	open   map[uint32]*pipe // guarded by mu
	ours   int              // guarded by mu: of them, those that this end named
	last   uint32           // guarded by mu: the last id that this end named
	theirs uint32           // guarded by mu: the last id that the peer named
	ended  bool             // guarded by mu
	unsaid int              // guarded by mu: pipes that have ended and whose Close is being sent
	idle   chan struct{}    // guarded by mu: if somebody waits, closed when nothing is left to wait for
}

func (ps *pipes) init(c *Conn, limits Limits) {
	ps.c, ps.limits = c, limits
	ps.open = map[uint32]*pipe{}
}

// odd reports whether id is one that the guest names.
func odd(id uint32) bool { return id&1 != 0 }

// mine reports whether id is one that this end names.
func (ps *pipes) mine(id uint32) bool { return odd(id) == (ps.c.role == Guest) }

// NamePipe gives a number to a descriptor that the peer's data is to be written to,
// for an ItemPipe that the caller sends next: items go out in the order of the
// numbers. It takes ownership of fd, on error too. A pipe or socket becomes
// non-blocking, for all who share its description. ErrTooMany: MaxPipes are open.
func (c *Conn) NamePipe(fd *dmabuf.FD) (uint32, error) {
	id, err := c.pipes.name(fd)
	if err != nil {
		return 0, &OpError{"name pipe", err}
	}
	return id, nil
}

func (ps *pipes) name(fd *dmabuf.FD) (uint32, error) {
	if !fd.Valid() {
		return 0, fmt.Errorf("%s: no descriptor", fd.Name())
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	id := ps.last + 2
	if ps.last == 0 && ps.c.role == Guest {
		id = 1
	}
	if id < ps.last {
		_ = fd.Close()
		return 0, fmt.Errorf("%w: all ids of pipes are used", ErrTooMany)
	}
	p, err := ps.add(id, fd)
	if err != nil {
		return 0, err
	}
	ps.last = id
	ps.c.wg.Go(p.receive)
	return id, nil
}

// AcceptPipe makes the pipe that the peer named in an ItemPipe and returns its write
// end, which is the caller's, to be passed to whoever writes; what is written goes to
// the peer. To be called in the order in which the items came. After an error the
// connection cannot go on: it is the peer's fault (ErrProtocol), or there are too many
// pipes (ErrTooMany) or descriptors.
func (c *Conn) AcceptPipe(id uint32) (*dmabuf.FD, error) {
	fd, err := c.pipes.accept(id)
	if err != nil {
		return nil, &OpError{"accept pipe", err}
	}
	return fd, nil
}

func (ps *pipes) accept(id uint32) (*dmabuf.FD, error) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.mine(id) || id <= ps.theirs {
		return nil, protocol("pipe id %d: it is named anew, the last was %d", id, ps.theirs)
	}
	ps.theirs = id
	if len(ps.open)-ps.ours >= MaxPipes {
		return nil, protocol("pipe id %d: %d pipes are open, limit %d", id, len(ps.open)-ps.ours, MaxPipes)
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	from, to := dmabuf.NewFD(ends[0], "link pipe"), dmabuf.NewFD(ends[1], "link pipe's write end")
	p, err := ps.add(id, from)
	if err != nil {
		_ = to.Close()
		return nil, err
	}
	ps.c.wg.Go(p.send)
	return to, nil
}

// add takes fd, on error too. The caller holds mu.
func (ps *pipes) add(id uint32, fd *dmabuf.FD) (*pipe, error) {
	mine := ps.mine(id)
	if ps.ended {
		_ = fd.Close()
		return nil, ErrClosed
	}
	if mine && ps.ours >= MaxPipes {
		_ = fd.Close()
		return nil, fmt.Errorf("%w: %d pipes are open, limit %d", ErrTooMany, ps.ours, MaxPipes)
	}
	if !ps.limits.Pipes.Take(1) {
		_ = fd.Close()
		return nil, fmt.Errorf("%w: the pipes of all connections together", ErrTooMany)
	}
	p, err := newPipe(ps, id, fd)
	if err != nil {
		ps.limits.Pipes.Give(1)
		return nil, err
	}
	ps.open[id] = p
	if mine {
		ps.ours++
	}
	return p, nil
}

// remove forgets a pipe; both its goroutine and what handles frames may call it.
func (ps *pipes) remove(p *pipe) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.open[p.id] != p {
		return
	}
	delete(ps.open, p.id)
	if ps.mine(p.id) {
		ps.ours--
	}
	ps.limits.Pipes.Give(1)
	ps.settle()
}

// closing counts pipes whose Close is being sent.
func (ps *pipes) closing(n int) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.unsaid += n
	ps.settle()
}

// settle wakes DrainPipes when there is nothing to wait for. The caller holds mu.
func (ps *pipes) settle() {
	if len(ps.open) == 0 && ps.unsaid == 0 && ps.idle != nil {
		close(ps.idle)
		ps.idle = nil
	}
}

// handle takes a Data, Close or Credit frame. It does not wait for anybody.
func (ps *pipes) handle(f Frame) error {
	id := le.Uint32(f.Payload)
	ps.mu.Lock()
	p := ps.open[id]
	known := id != 0 && (ps.mine(id) && id <= ps.last || !ps.mine(id) && id <= ps.theirs)
	ps.mu.Unlock()
	if !known {
		return protocol("%v for pipe %d, which nobody named", f.Type, id)
	}
	if f.Type == TypeData && !ps.mine(id) || f.Type == TypeCredit && ps.mine(id) {
		return protocol("%v for pipe %d: its data goes the other way", f.Type, id)
	}
	switch f.Type {
	case TypeData:
		if p != nil {
			return p.data(f.Payload[4:])
		}
	case TypeCredit:
		g, err := DecodeCredit(f.Payload)
		if err != nil {
			return err
		}
		if p != nil {
			return p.more(g.Bytes)
		}
	case TypeClose:
		g, err := DecodeClose(f.Payload)
		if err != nil {
			return err
		}
		if g.Reason == EndOfData && !ps.mine(id) {
			return protocol("Close of pipe %d: end of data from the end that has none", id)
		}
		if p != nil {
			return p.peerClosed(g.Reason)
		}
	}
	return nil // it was closed a moment ago
}

// DrainPipes waits until no pipe is open: what was written into pipes of AcceptPipe
// has been sent, and what came for pipes of NamePipe has been written. The peer must
// go on reading, and Recv must go on being called as long as the peer is there;
// PeerGone says that it is not.
func (c *Conn) DrainPipes(ctx context.Context) error {
	ps := &c.pipes
	ps.mu.Lock()
	if len(ps.open) == 0 && ps.unsaid == 0 {
		ps.mu.Unlock()
		return nil
	}
	if ps.idle == nil {
		ps.idle = make(chan struct{})
	}
	idle := ps.idle
	ps.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// PeerGone says, after Recv's last error, that no more comes: pipes of NamePipe end
// when what came is written, those of AcceptPipe at once.
func (c *Conn) PeerGone() {
	for _, p := range c.pipes.all() {
		if c.pipes.mine(p.id) {
			p.noMore()
		} else {
			p.end()
		}
	}
}

func (ps *pipes) all() []*pipe {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	var out []*pipe
	for _, p := range ps.open {
		out = append(out, p)
	}
	return out
}

// close ends all pipes at once.
func (ps *pipes) close() {
	ps.mu.Lock()
	ps.ended = true
	ps.mu.Unlock()
	for _, p := range ps.all() {
		p.end()
	}
}

// OpenPipes returns how many pipes are open.
func (c *Conn) OpenPipes() int {
	c.pipes.mu.Lock()
	defer c.pipes.mu.Unlock()
	return len(c.pipes.open)
}
