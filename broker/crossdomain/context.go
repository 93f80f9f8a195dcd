package crossdomain

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/guestmem"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Limits of one context.
const (
	maxTemplates = 1024
	maxBlobs     = 1024 // received and not yet made into resources
	maxPipes     = 256  // of each direction
	maxPolls     = 64   // fences of the channel ring that wait
	minRing      = 512  // bytes; a RECEIVE without data has 352
	maxRing      = 1 << 20

	// What the guest sent and nobody read yet: above soft the fences of its commands
	// are held back, above hard the channel ends.
	softBytes, hardBytes         = 256 << 10, 4 << 20
	softMessages, hardMessages   = 64, 1024
	softPipeBytes, hardPipeBytes = 1 << 20, 64 << 20
)

// Device is what a context asks of the device that it belongs to.
type Device interface {
	// Pin notes that the context named a resource, at this place of the control
	// queue. Render thread.
	Pin(id uint32) error
	// Ring finds the memory of a resource that is attached to the context. Render
	// thread.
	Ring(id uint32) (Ring, error)
	// Image describes memory for a picture, and with alloc makes it. Render thread.
	Image(w, h uint32, f dmabuf.Fourcc, alloc bool) (Image, error)
	// Release completes the fence that is held under this number. Any goroutine.
	Release(hold uint64)
}

// Ring is guest memory that messages are written into: one at a time, at its start.
type Ring struct {
	Segs  [][]byte
	Close func() // lets the memory go; any goroutine
}

func (r *Ring) size() (n int) {
	for _, s := range r.Segs {
		n += len(s)
	}
	return min(n, maxRing)
}

func (r *Ring) write(p []byte) error {
	n, err := guestmem.WriteAt(r.Segs, 0, p)
	if err == nil && n < len(p) {
		err = refused("message of %d bytes for a ring of %d", len(p), n)
	}
	return err
}

// Channels serves what contexts connect to, each until the channel ends. A nil
// function: the type is not offered.
type Channels struct {
	Wayland func(ctx context.Context, g proxy.Guest, id uint32) error
	Stream  func(ctx context.Context, rw io.ReadWriteCloser, id uint32) error
}

// Config says what a Context is made of.
type Config struct {
	ID       uint32 // the guest's number of the context
	Name     string // its debug name; not trusted
	Device   Device
	Channels Channels
	Running  *sync.WaitGroup // counts the context's goroutines
	Log      *zap.Logger
}

// Context is one cross-domain context. Its methods belong to the render thread.
type Context struct {
	cfg  Config
	dev  Device
	log  *zap.Logger
	ctx  context.Context // what serves the channel ends with it
	end  context.CancelFunc
	open context.Context // ends before: nothing more reaches the guest
	shut context.CancelFunc
	gone chan struct{} // closed when the guest's context goes

	query, channel *Ring
	ringSize       int // bytes of channel
	serving        bool
	typ            ChannelType
	templates      map[uint32]*template
	templateIDs    map[imageQuery]uint32

	polls  chan uint64 // fences that wait for a message
	ringMu sync.Mutex  // who writes into the rings

	in inbox

	mu     sync.Mutex
	lastID uint32                // guarded by mu
	slots  int                   // guarded by mu; identifiers in a message
	blobs  map[uint32]Blob       // guarded by mu; received
	writes map[uint32]*writePipe // guarded by mu
	reads  map[uint32]struct{}   // guarded by mu; read pipes
	holds  []uint64              // guarded by mu; fences that wait for room
	piped  int                   // guarded by mu; bytes in all writes' queues
	failed error                 // guarded by mu
}

// New makes a context. Close ends it.
func New(cfg Config) *Context {
	c := &Context{
		cfg: cfg, dev: cfg.Device, log: cfg.Log, lastID: firstItem - 1, slots: MaxIDs,
		templates: map[uint32]*template{}, templateIDs: map[imageQuery]uint32{},
		polls: make(chan uint64, maxPolls), gone: make(chan struct{}),
		blobs: map[uint32]Blob{}, writes: map[uint32]*writePipe{}, reads: map[uint32]struct{}{},
	}
	c.ctx, c.end = context.WithCancel(context.Background())
	c.open, c.shut = context.WithCancel(c.ctx)
	c.in.init()
	return c
}

// Submit runs the commands of a SUBMIT_3D, in order. Those before one that fails
// are done.
func (c *Context) Submit(p []byte) error {
	for len(p) > 0 {
		h, cmd, rest, err := nextCommand(p)
		if err == nil {
			err = c.run(h.cmd, cmd)
		}
		if err != nil {
			return &OpError{c.cfg.ID, h.cmd, err}
		}
		p = rest
	}
	return nil
}

func (c *Context) run(cmd Cmd, p []byte) error {
	switch cmd {
	case CmdInit:
		return c.start(p)
	case CmdGetImageRequirements:
		return c.imageRequirements(p)
	case CmdPoll:
		if len(p) < SizePoll {
			return malformed("cmd_size %d, want %d", len(p), SizePoll)
		}
		return nil // its fence is what counts
	case CmdSend:
		return c.send(p)
	case CmdWrite:
		return c.write(p)
	}
	return refused("not a command of this host")
}

// start is INIT.
func (c *Context) start(p []byte) error {
	if c.query != nil {
		return refused("the context is connected already")
	}
	cmd, err := decodeInit(p)
	if err != nil {
		return err
	}
	serve := c.server(cmd.channel)
	if serve == nil && cmd.channel != ChannelNone {
		return refused("channel type %d is not offered", cmd.channel)
	}
	query, err := c.ring(cmd.queryRing)
	if err != nil {
		return err
	}
	channel := query
	if cmd.channelRing != cmd.queryRing && cmd.channel != ChannelNone {
		if channel, err = c.ring(cmd.channelRing); err != nil {
			query.Close()
			return err
		}
	}
	c.query, c.channel, c.ringSize, c.typ = query, channel, channel.size(), cmd.channel
	if cmd.ids != 0 {
		c.mu.Lock()
		c.slots = cmd.ids
		c.mu.Unlock()
	}
	c.log.Debug("cross-domain channel", zap.Uint32("ctx", c.cfg.ID), zap.String("name", c.cfg.Name),
		zap.Uint32("type", uint32(cmd.channel)), zap.Bool("libkrun", cmd.libkrun))
	if serve != nil {
		c.serving = true
		c.goRun(func() { c.serve(serve) })
	}
	return nil
}

func (c *Context) ring(id uint32) (*Ring, error) {
	r, err := c.dev.Ring(id)
	if err != nil {
		return nil, refused("ring: %w", err)
	}
	if n := r.size(); n < minRing {
		r.Close()
		return nil, refused("ring %d has %d bytes, want at least %d", id, n, minRing)
	}
	return &r, nil
}

// server returns what serves a type of channel.
func (c *Context) server(t ChannelType) func() error {
	switch ch := &c.cfg.Channels; {
	case t == ChannelWayland && ch.Wayland != nil:
		return func() error { return ch.Wayland(c.ctx, &guest{c: c}, c.cfg.ID) }
	case t == ChannelStream && ch.Stream != nil:
		return func() error { return ch.Stream(c.ctx, newStream(c), c.cfg.ID) }
	}
	return nil
}

// serve runs the channel to its end, and tells the guest of that.
func (c *Context) serve(run func() error) {
	err := run()
	if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, io.EOF) {
		c.log.Info("a guest's channel ended", zap.Uint32("ctx", c.cfg.ID), zap.String("name", c.cfg.Name), zap.Error(err))
	}
	c.fail(ErrClosed)
	select {
	case hold := <-c.polls:
		c.deliver(hold, func(slots int) []byte { return appendReceive(nil, &message{slots: slots}) })
	case <-c.gone:
	}
	c.end()
}

// fail ends the channel both ways, and what serves it hears err.
func (c *Context) fail(err error) {
	c.shut()
	c.refuseMore(err)
}

// refuseMore takes nothing more from the guest. What serves the channel hears err, and
// can still tell the guest why.
func (c *Context) refuseMore(err error) {
	c.mu.Lock()
	if c.failed == nil {
		c.failed = err
	}
	holds := c.holds
	c.holds = nil
	writes := c.writes
	c.writes = map[uint32]*writePipe{}
	c.mu.Unlock()
	c.in.close(err)
	for _, w := range writes {
		w.abandon()
	}
	for _, h := range holds {
		c.dev.Release(h)
	}
}

// Poll takes a fence of the channel ring: it is released with the next message for
// the guest.
func (c *Context) Poll(hold uint64) error {
	if c.typ == ChannelNone {
		return &OpError{c.cfg.ID, CmdPoll, refused("the context has no channel")}
	}
	select {
	case c.polls <- hold:
		return nil
	default:
		return &OpError{c.cfg.ID, CmdPoll, refused("%d polls wait already, which is the limit", maxPolls)}
	}
}

// Hold takes a fence of the query ring if the guest is to wait, because it sends
// faster than anybody reads. It is released when there is room.
func (c *Context) Hold(hold uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed != nil || !c.in.full() && c.piped <= softPipeBytes {
		return false
	}
	c.holds = append(c.holds, hold)
	return true
}

// room releases the fences of Hold when there is room again.
func (c *Context) room() {
	c.mu.Lock()
	var holds []uint64
	if !c.in.full() && c.piped <= softPipeBytes {
		holds, c.holds = c.holds, nil
	}
	c.mu.Unlock()
	for _, h := range holds {
		c.dev.Release(h)
	}
}

// lastWords is how long what serves a channel may take to read what the guest sent
// before its context went.
const lastWords = 2 * time.Second

// Close ends the context, and everything that it owns is closed. Its goroutines end
// soon (Config.Running), with now at once. Fences that it holds are the caller's to
// complete.
func (c *Context) Close(now bool) {
	close(c.gone)
	c.shut()
	c.in.finish()
	if now || !c.serving {
		c.end()
		c.fail(ErrClosed)
	} else {
		// serve ends the context before, when the channel's end has been read.
		time.AfterFunc(lastWords, c.end)
	}
	c.mu.Lock()
	c.holds = nil
	blobs := c.blobs
	c.blobs = map[uint32]Blob{}
	c.mu.Unlock()
	for _, b := range blobs {
		_ = b.FD.Close()
	}
	c.ringMu.Lock() // who writes just now is done after this
	defer c.ringMu.Unlock()
	if c.channel != nil && c.channel != c.query {
		c.channel.Close()
	}
	if c.query != nil {
		c.query.Close()
	}
	c.channel = nil
}

// goRun runs f on a goroutine of the context.
func (c *Context) goRun(f func()) {
	c.cfg.Running.Add(1)
	go func() {
		defer c.cfg.Running.Done()
		f()
	}()
}

// newID returns the next identifier of the host's.
func (c *Context) newID() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nextID()
}

// nextID is newID, called with mu. Identifiers are not used again, not even after
// 2³¹.
func (c *Context) nextID() uint32 {
	if c.lastID >= 1<<30 {
		return 0
	}
	c.lastID++
	return c.lastID
}

// takePoll waits for a fence that a message can be delivered with.
func (c *Context) takePoll(ctx context.Context) (uint64, error) {
	if c.open.Err() != nil {
		return 0, ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	select {
	case hold := <-c.polls:
		return hold, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-c.open.Done():
		return 0, ErrClosed
	}
}

// deliver writes one message into the channel ring and releases the fence.
func (c *Context) deliver(hold uint64, encode func(slots int) []byte) {
	c.mu.Lock()
	slots := c.slots
	c.mu.Unlock()
	p := encode(slots)
	c.ringMu.Lock()
	defer c.ringMu.Unlock()
	if c.channel == nil {
		return // closed
	}
	if err := c.channel.write(p); err != nil {
		c.log.Warn("message for a guest lost", zap.Uint32("ctx", c.cfg.ID), zap.Error(err))
	}
	c.dev.Release(hold)
}
