package vhostuser

import (
	"errors"
	"fmt"
	"sync"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// maxQueued bounds the requests that wait for the front-end. QEMU 11 aborts at
// 512 memory slots, so no sane device has more mappings to ask for.
const maxQueued = 1024

// Channel sends requests to the front-end (the socket of SET_BACKEND_REQ_FD). Its
// methods may be called from any goroutine and never wait: requests go out, and
// their replies are awaited, on a goroutine of the channel's own. QEMU commits
// the memory change of a SHMEM_MAP by a message on the main socket, so nothing
// that serves that socket may wait for a reply here.
//
// Requests are sent only while the device runs: QEMU 11.1 crashes on a request
// that it reads before the rings start or after they stop; see put.
type Channel struct {
	conn  *Conn
	proto ProtocolFeature

	mu     sync.Mutex     // held while a request is written, so that none is sent after the gate closes
	half   BackendRequest // of which the first byte is sent, 0 for none; guarded by mu
	keep   Half           // nil if nobody would read it
	wake   *sync.Cond
	open   bool // the gate; guarded by mu
	closed bool // guarded by mu
	change bool // a CONFIG_CHANGE_MSG waits; guarded by mu
	// A back-end that died may have left one reply in the socket: with adopted set the
	// first request is one without consequences, and with stale set a reply of the wrong
	// kind is that one.
	adopted bool   // guarded by mu
	stale   bool   // the goroutine's
	msg     []byte // the goroutine's: the request that it writes
	queue   []channelReq
	// ours are the files of the mappings, by offset; guarded by mu. Those that the
	// front-end dropped by itself stay until another takes their place.
	ours map[uint64]fileID

	done sync.WaitGroup
}

type channelReq struct {
	kind BackendRequest
	mmap MMap
	fd   *dmabuf.FD // owned by the request, nil for UNMAP
	done func(error)
}

func newChannel(conn *Conn, proto ProtocolFeature, adopted bool, keep Half) *Channel {
	c := &Channel{conn: conn, proto: proto, ours: map[uint64]fileID{}, adopted: adopted, stale: adopted, keep: keep}
	c.wake = sync.NewCond(&c.mu)
	if keep != nil {
		if adopted && keep.IsHalf() { // QEMU waits for the rest, with its big lock held
			c.half = BackendConfigChange // or another: its number is in the byte that went
			c.spoil()
		}
		keep.SetHalf(false)
	}
	c.done.Add(1)
	go c.run()
	return c
}

// ConfigChange tells the driver that the config space changed. Several calls may
// become one message. While the device is stopped the message waits for the
// start. QEMU's own gpu device (mode A) ignores it and logs an error: only its
// own window can resize the guest.
func (c *Channel) ConfigChange() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.change = true
	c.wake.Signal()
}

// Map asks the front-end to put a part of fd (borrowed for the call) into a shared memory region
// of the guest. done is called once, on the channel's goroutine, with nil when
// the guest can use it; ErrStopped, ErrRefused or ErrClosed otherwise. It may
// also be called before Map returns, if the request cannot be queued.
func (c *Channel) Map(m MMap, fd *dmabuf.FD, done func(error)) {
	dup, err := fd.Dup()
	if err != nil {
		done(&OpError{Op: "send SHMEM_MAP", Err: err})
		return
	}
	c.enqueue(channelReq{kind: BackendShmemMap, mmap: m, fd: dup, done: done})
}

// Unmap asks the front-end to take a mapping away. Region, offset and length
// must be those of a Map. done is called as for Map.
func (c *Channel) Unmap(m MMap, done func(error)) {
	c.enqueue(channelReq{kind: BackendShmemUnmap, mmap: m, done: done})
}

// CanMap reports whether the front-end knows shared memory regions.
func (c *Channel) CanMap() bool {
	const need = ProtoShmem | ProtoBackendSendFD
	return c.proto&need == need
}

func (c *Channel) enqueue(r channelReq) {
	if err := c.tryEnqueue(r); err != nil {
		r.finish(err)
	}
}

func (c *Channel) tryEnqueue(r channelReq) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return ErrClosed
	case !c.CanMap():
		return fmt.Errorf("%w: SHMEM and BACKEND_SEND_FD were not negotiated", ErrUnknown)
	case !c.open:
		return ErrStopped
	case len(c.queue) >= maxQueued:
		return fmt.Errorf("%w: %d requests wait already", ErrRefused, maxQueued)
	}
	if c.adopted {
		c.adopted = false
		c.queue = append(c.queue, channelReq{kind: BackendConfigChange, done: func(error) {}})
	}
	c.queue = append(c.queue, r)
	c.wake.Signal()
	return nil
}

func (r *channelReq) finish(err error) {
	_ = r.fd.Close()
	if err != nil {
		err = &OpError{Op: "send " + r.kind.String(), Err: err}
	}
	r.done(err)
}

// setGate opens the channel when rings start and closes it when they are about
// to stop. When it returns after closing, no further request will be sent.
func (c *Channel) setGate(open bool) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = open
	if !open {
		c.spoil()
	}
	c.wake.Signal()
}

// close ends the channel and waits for its goroutine. Requests that still wait
// end with ErrClosed.
func (c *Channel) close() {
	if c == nil {
		return
	}
	c.mu.Lock()
	c.closed = true
	c.wake.Signal()
	c.mu.Unlock()
	_ = c.conn.Close() // wakes a reader
	c.done.Wait()
}

func (c *Channel) run() {
	defer c.done.Done()
	for {
		r, sent, err := c.next()
		if errors.Is(err, ErrClosed) && r.done == nil {
			return
		}
		if r.done == nil { // a config change: no reply is asked for
			continue
		}
		if err == nil && sent {
			err = c.reply(r.kind)
		}
		if err == nil && r.kind == BackendShmemMap {
			err = c.committed()
		}
		r.finish(err)
	}
}

// next waits for a request and sends it, all under the lock.
func (c *Channel) next() (r channelReq, sent bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case len(c.queue) > 0 && (c.closed || !c.open):
			r = c.pop()
			if c.closed {
				return r, false, ErrClosed
			}
			return r, false, ErrStopped
		case c.closed:
			return r, false, ErrClosed
		case c.change && c.open:
			c.change = false
			if err = c.put(BackendConfigChange, 0, nil); !errors.Is(err, ErrStopped) {
				return r, true, err
			}
			c.change = true // it waits for the next start
			continue
		case len(c.queue) > 0:
			r = c.pop()
			return r, true, c.send(&r)
		}
		c.wake.Wait()
	}
}

func (c *Channel) pop() channelReq {
	r := c.queue[0]
	c.queue[0] = channelReq{}
	c.queue = c.queue[1:]
	if len(c.queue) == 0 {
		c.queue = nil
	}
	return r
}

func (c *Channel) send(r *channelReq) error {
	var flags uint32
	if c.proto&ProtoReplyAck != 0 {
		flags = FlagNeedReply
	}
	payload := r.mmap.Append(make([]byte, 0, mmapSize))
	if r.kind == BackendConfigChange {
		payload = nil
	}
	var err error
	if r.fd != nil {
		c.note(&r.mmap, r.fd)
		err = c.put(r.kind, flags, payload, r.fd)
	} else {
		err = c.put(r.kind, flags, payload)
	}
	if err != nil && !errors.Is(err, ErrStopped) {
		err = fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return err
}

// reply waits for the status of the request just sent. Without REPLY_ACK there
// is none, and sending it has to do.
func (c *Channel) reply(kind BackendRequest) error {
	if c.proto&ProtoReplyAck == 0 {
		return nil
	}
	m, err := c.conn.Read()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	m.CloseFDs()
	if c.stale && m.Request != uint32(kind) && m.IsReply() {
		c.stale = false
		return c.reply(kind)
	}
	if m.Request != uint32(kind) || !m.IsReply() {
		_ = c.conn.Close() // the stream is out of step
		return fmt.Errorf("%w: got message %d with flags %#x, wanted the reply to %v", ErrProtocol, m.Request, m.Flags, kind)
	}
	status, err := DecodeU64(m.Payload)
	if err != nil {
		return err
	}
	if status != 0 {
		return fmt.Errorf("%w: status %d", ErrRefused, status)
	}
	return nil
}
