package vhostusertest

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/gpubroker/gpubroker/broker/guestmem"
	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/broker/virtq"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// maxEcho is the longest request that Device answers in full, in bytes.
const maxEcho = 64 << 10

// Device answers each chain with a copy of what it said. It writes down what the
// back-end tells it, and can hold chains back to complete them out of order.
type Device struct {
	Loop   *Loop
	Config [64]byte // the config space

	// RefuseFeatures makes SetFeatures fail; set it before use.
	RefuseFeatures error

	mu      sync.Mutex
	events  []string // guarded by mu
	hold    bool     // guarded by mu
	channel *vhostuser.Channel
	written []byte // the last write to the config space; guarded by mu

	// Owned by the loop.
	Mem      *guestmem.Map
	queues   [2]devQueue
	chain    virtq.Chain
	buf      []byte
	held     []heldChain
	BadChain int // chains that were refused
	BadRing  int // entries of the available ring that were refused
	Served   int
}

type devQueue struct {
	q    *virtq.Queue
	kick *dmabuf.FD
}

type heldChain struct {
	queue int
	chain *virtq.Chain
}

var (
	_ vhostuser.Device      = (*Device)(nil)
	_ vhostuser.ChannelUser = (*Device)(nil)
	_ vhostuser.Executor    = (*Loop)(nil)
)

// NewDevice makes a device on a loop.
func NewDevice(l *Loop) *Device { return &Device{Loop: l, buf: make([]byte, maxEcho)} }

func (d *Device) note(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.events = append(d.events, fmt.Sprintf(format, args...))
}

// Events returns what happened since the last call.
func (d *Device) Events() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := d.events
	d.events = nil
	return out
}

// Hold makes the device keep chains until Release.
func (d *Device) Hold(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hold = on
}

// Channel is the back-end channel, nil if there is none.
func (d *Device) Channel() *vhostuser.Channel {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.channel
}

// Written is the last write to the config space.
func (d *Device) Written() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.written
}

// Features implements vhostuser.Device.
func (d *Device) Features() uint64 { return 0x1f }

// ReadConfig implements vhostuser.Device.
func (d *Device) ReadConfig(p []byte) { copy(p, d.Config[:]) }

// WriteConfig implements vhostuser.Device.
func (d *Device) WriteConfig(off uint32, p []byte) error {
	if off > uint32(len(d.Config)) {
		return errors.New("vhostusertest: config offset out of range")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.written = append([]byte(nil), p...)
	return nil
}

// BackendChannel implements vhostuser.ChannelUser.
func (d *Device) BackendChannel(ch *vhostuser.Channel) {
	d.note("channel %t", ch != nil)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.channel = ch
}

// Attach implements vhostuser.Device.
func (d *Device) Attach(mem *guestmem.Map) {
	d.note("attach")
	d.Mem = mem
}

// SetFeatures implements vhostuser.Device.
func (d *Device) SetFeatures(bits uint64) error {
	d.note("features")
	return d.RefuseFeatures
}

// QueueStart implements vhostuser.Device.
func (d *Device) QueueStart(index int, q *virtq.Queue, kick *dmabuf.FD, fresh bool) {
	d.note("start %d fresh=%t base=%d", index, fresh, q.LastAvail())
	if fresh {
		d.drop(index)
	}
	d.queues[index] = devQueue{q, kick}
	d.Loop.Watch(kick, func() { d.Serve(index) })
	d.Serve(index)
}

// QueueStop implements vhostuser.Device. Held chains stay: after vm stop and
// cont they are completed on the queue that comes then.
func (d *Device) QueueStop(index int) {
	d.note("stop %d", index)
	d.Loop.Unwatch(d.queues[index].kick)
	_ = d.queues[index].kick.Close()
	d.queues[index] = devQueue{}
}

// DisplaySocket implements vhostuser.Device.
func (d *Device) DisplaySocket(fd *dmabuf.FD) {
	d.note("display")
	_ = fd.Close()
}

// Reset implements vhostuser.Device.
func (d *Device) Reset() {
	d.note("reset")
	d.held = nil
}

// Detach implements vhostuser.Device.
func (d *Device) Detach() {
	d.note("detach")
	d.held = nil
	d.Mem = nil
}

func (d *Device) drop(queue int) {
	kept := d.held[:0]
	for _, h := range d.held {
		if h.queue != queue {
			kept = append(kept, h)
		}
	}
	d.held = kept
}

// Serve answers everything available on a queue. On the loop.
func (d *Device) Serve(index int) {
	q := d.queues[index].q
	if q == nil {
		return
	}
	d.mu.Lock()
	hold := d.hold
	d.mu.Unlock()
	_ = q.DisableKicks()
	for {
		c := &d.chain
		if hold {
			c = new(virtq.Chain)
		}
		ok, err := q.Next(c)
		switch {
		case err != nil && !ok:
			d.BadRing++
			if errors.Is(err, guestmem.ErrFault) {
				return
			}
		case err != nil:
			d.BadChain++
			_ = q.Push(c.Head, 0)
		case ok && hold:
			d.held = append(d.held, heldChain{index, c})
		case ok:
			_ = q.Push(c.Head, d.echo(c))
		default:
			_ = q.Notify()
			if pending, err := q.EnableKicks(); err != nil || !pending {
				return
			}
			_ = q.DisableKicks()
		}
	}
}

func (d *Device) echo(c *virtq.Chain) uint32 {
	d.Served++
	n, err := c.ReadAt(d.buf, 0)
	if err != nil {
		return 0
	}
	if _, err := c.Write(d.buf[:n]); err != nil {
		return 0
	}
	return c.Written()
}

// Release completes the chains held, the last one first, on the queues that run
// now; those of stopped queues stay. It returns their number. Any goroutine but
// the loop's.
func (d *Device) Release() (n int) {
	d.Loop.Call(func() {
		var kept []heldChain
		for _, h := range slices.Backward(d.held) {
			q := d.queues[h.queue].q
			if q == nil {
				kept = append(kept, h)
				continue
			}
			_ = q.Push(h.chain.Head, d.echo(h.chain))
			n++
		}
		slices.Reverse(kept)
		d.held = kept
		for i := range d.queues {
			if q := d.queues[i].q; q != nil {
				_ = q.Notify()
			}
		}
	})
	return n
}

// Held is the number of chains held. On the loop.
func (d *Device) Held() int { return len(d.held) }
