package vtest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/virgl"
)

// client is one client: its context, what it calls its resources, and what it waits for.
// It knows messages and not where they come from. Render thread only.
type client struct {
	gpu GPU
	out output

	greeted  bool // CreateRenderer came
	name     string
	version  uint32 // of the protocol
	capset   uint32
	ctx      Context // nil before it is needed
	names    map[uint32]*owned
	waiting  bool   // a reply waits for fence
	fence    uint32 // valid while waiting
	syncs    syncs
	resume   func() // called when waiting ends
	messages uint64
	submits  uint64
}

// owned is a resource of a client.
type owned struct {
	id  uint32 // the table's
	mem uint64 // bytes of shared memory
}

// output takes replies.
type output interface {
	// reply queues bytes.
	reply(b []byte)
	// replyFD queues a descriptor, with a byte of its own; ownership passes.
	replyFD(fd *dmabuf.FD)
	// room returns an empty slice to build a reply in, until the next call.
	room() []byte
}

func newClient(gpu GPU, out output, resume func()) *client {
	return &client{gpu: gpu, out: out, names: map[uint32]*owned{}, resume: resume}
}

// feed runs the messages in b, at most limit, and returns how many bytes they had. It
// stops where the client must wait (waiting) or a message is not complete. After an error
// the client is at its end.
func (c *client) feed(b []byte, limit int) (used int, err error) {
	var m message
	for n := 0; n < limit && !c.waiting; n++ {
		size, row, err := parse(b[used:], c.version, &m)
		if err == nil && row != nil && c.greeted == (m.Command == CreateRenderer) {
			err = protocol("the first message is CREATE_RENDERER, and no other")
		}
		if err != nil || size == 0 {
			return used, failed(m.Command, err)
		}
		if row.context {
			err = c.needContext()
		}
		if err == nil {
			err = row.run(c, &m)
		}
		if err != nil {
			return used, failed(m.Command, err)
		}
		c.messages++
		used += size
	}
	return used, nil
}

func failed(cmd Command, err error) error {
	if err == nil {
		return nil
	}
	return &OpError{Op: cmd.String(), Err: err}
}

// close gives back all that the client has.
func (c *client) close() {
	c.syncs.close()
	if c.ctx != nil {
		c.ctx.Close()
		c.ctx = nil
	}
	clear(c.names)
}

// answer queues a reply of words.
func (c *client) answer(cmd Command, words ...uint32) {
	c.out.reply(AppendWords(Header{uint32(len(words)), cmd}.Append(c.out.room()), words...))
}

func (c *client) createRenderer(m *message) error {
	c.greeted = true
	name, _, _ := strings.Cut(string(m.body), "\x00")
	c.name = name
	return nil
}

func (c *client) ping(*message) error {
	c.answer(PingProtocolVersion)
	return nil
}

func (c *client) protocolVersion(m *message) error {
	v := min(word(m.body, 0), MaxVersion)
	if v == 1 {
		v = 0 // short-lived; all who spoke it speak 0
	}
	if v != c.version && len(c.names) > 0 {
		return protocol("version %d chosen with %d resources of version %d", v, len(c.names), c.version)
	}
	c.version = v
	c.answer(ProtocolVersion, v)
	return nil
}

func (c *client) capsetInfo(id uint32) (virgl.CapsetInfo, bool) {
	for _, s := range c.gpu.Capsets() {
		if s.ID == id {
			return s, true
		}
	}
	return virgl.CapsetInfo{}, false
}

func (c *client) getCaps(*message) error  { return c.sendCaps(virgl.CapsetVirgl) }
func (c *client) getCaps2(*message) error { return c.sendCaps(virgl.CapsetVirgl2) }

// sendCaps answers with a set of version 1, as the protocol has no word for it. The
// reply's length is in bytes and one too many.
func (c *client) sendCaps(id uint32) error {
	s, ok := c.capsetInfo(id)
	if !ok {
		return fmt.Errorf("capability set %d: %w", id, virgl.ErrNotSupported)
	}
	b := AppendWords(c.out.room(), s.MaxSize+1, id)
	b = append(b, make([]byte, s.MaxSize)...)
	if err := c.gpu.FillCapset(id, min(1, s.MaxVersion), b[HeaderSize:]); err != nil {
		return err
	}
	c.out.reply(b)
	return nil
}

func (c *client) getCapset(m *message) error {
	id, version := word(m.body, 0), word(m.body, 1)
	s, ok := c.capsetInfo(id)
	if !ok || version > s.MaxVersion || s.MaxSize%4 != 0 {
		c.answer(GetCapset, 0)
		return nil
	}
	b := AppendWords(c.out.room(), 1+s.MaxSize/4, uint32(GetCapset), 1)
	b = append(b, make([]byte, s.MaxSize)...)
	if err := c.gpu.FillCapset(id, version, b[HeaderSize+4:]); err != nil {
		return err
	}
	c.out.reply(b)
	return nil
}

func (c *client) getParam(m *message) error {
	if word(m.body, 0) == ParamMaxSyncQueueCount {
		c.answer(GetParam, 1, maxQueues)
	} else {
		c.answer(GetParam, 0, 0)
	}
	return nil
}

func (c *client) contextInit(m *message) error {
	id := word(m.body, 0)
	if _, ok := c.capsetInfo(id); !ok {
		return fmt.Errorf("capability set %d: %w", id, virgl.ErrNotSupported)
	}
	if c.ctx != nil && c.capset != id {
		return protocol("capset_id %d, the context has %d", id, c.capset)
	}
	c.capset = id
	return c.needContext()
}

// needContext makes the client's context.
func (c *client) needContext() (err error) {
	if c.ctx == nil {
		c.ctx, err = c.gpu.NewContext(c.capset, c.name, c.signalled)
	}
	return err
}

// signalled hears of the context's fences.
func (c *client) signalled(fence uint32) {
	c.syncs.signalled(fence)
	if c.waiting && int32(c.fence-fence) <= 0 {
		c.waiting = false
		c.answer(ResourceBusyWait, 0)
		c.resume()
	}
}

// busyWait answers whether work is unfinished. What resource it asks about does not
// matter, as in virgl_test_server: a client waits for all that it submitted.
func (c *client) busyWait(m *message) error {
	handle, flags := word(m.body, 0), word(m.body, 1)
	if handle != 0 {
		if _, err := c.own(handle); err != nil {
			return err
		}
	}
	if c.ctx == nil {
		c.answer(ResourceBusyWait, 0)
		return nil
	}
	fence, done, err := c.ctx.Fence()
	switch {
	case err != nil:
		return err
	case done:
		c.answer(ResourceBusyWait, 0)
	case flags&BusyWaitFlagWait == 0:
		c.answer(ResourceBusyWait, 1)
	default:
		c.waiting, c.fence = true, fence
	}
	return nil
}

func (c *client) submitCmd(m *message) error { return c.submit(m.body) }

// submit runs a stream, whose names it changes.
func (c *client) submit(stream []byte) error {
	if c.version < 3 {
		if err := rename(stream, c.names); err != nil {
			return err
		}
	}
	c.submits++
	return c.ctx.Submit(stream)
}

// own finds a resource by the client's name for it.
func (c *client) own(handle uint32) (*owned, error) {
	if r := c.names[handle]; r != nil {
		return r, nil
	}
	return nil, fmt.Errorf("resource %d: %w", handle, ErrNotOwned)
}

// errNoMemory says that a transfer needs what the resource does not have.
var errNoMemory = errors.New("the resource has no shared memory")
