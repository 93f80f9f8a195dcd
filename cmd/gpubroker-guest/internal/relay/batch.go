package relay

import (
	"encoding/binary"

	"github.com/gpubroker/gpubroker/broker/link"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

// maxBatch and maxItems are how much is sent to the host at once.
const (
	maxBatch = 32 << 10 // bytes of messages
	maxItems = 512
)

// batch collects messages for the host with their items.
type batch struct {
	data  []byte
	items []link.Item
	start int // where the message being written begins
}

// item adds what stands for a descriptor of the message that is being handled.
func (c *Client) item(it link.Item) { c.batch.items = append(c.batch.items, it) }

// forward adds a message as it is.
func (c *Client) forward(m wire.Message) {
	c.begin(m)
	c.batch.data = append(c.batch.data, m.Body...)
	c.finish()
}

// begin starts a message with another body than m's.
func (c *Client) begin(m wire.Message) {
	b := &c.batch
	b.start = len(b.data)
	b.data = binary.LittleEndian.AppendUint32(b.data, uint32(m.Object))
	b.data = binary.LittleEndian.AppendUint32(b.data, uint32(m.Opcode))
}

func (c *Client) batchUint(v uint32) {
	c.batch.data = binary.LittleEndian.AppendUint32(c.batch.data, v)
}

// finish ends the message that begin started.
func (c *Client) finish() {
	b := &c.batch
	word := binary.LittleEndian.Uint32(b.data[b.start+4:])
	binary.LittleEndian.PutUint32(b.data[b.start+4:], uint32(len(b.data)-b.start)<<16|word)
}

// flush sends what was collected.
func (c *Client) flush() error {
	b := &c.batch
	if len(b.data) == 0 {
		return nil
	}
	err := c.host.WriteWayland(b.items, b.data)
	c.stats.Sent.Add(uint64(len(b.data)))
	clear(b.items)
	b.data, b.items = b.data[:0], b.items[:0]
	if err != nil {
		return &OpError{Op: "send to the host", Err: err}
	}
	return nil
}

// full reports whether it is time to send.
func (b *batch) full() bool { return len(b.data) >= maxBatch || len(b.items) >= maxItems }
