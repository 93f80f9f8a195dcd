package vtest

import (
	"fmt"

	"github.com/gpubroker/gpubroker/virgl"
)

// maxShm limits the shared memory of one resource, in bytes: the largest picture.
const maxShm = 1 << 30

// resourceCreate serves both RESOURCE_CREATE and RESOURCE_CREATE2.
func (c *client) resourceCreate(m *message) error {
	var q Create
	q.decode(m.body)
	switch {
	case c.version >= 3 && q.Handle != 0:
		return protocol("handle %d, want 0: from version 3 on it is ours to choose", q.Handle)
	case c.version < 3 && q.Handle == 0:
		return protocol("handle 0")
	case c.version < 3 && c.names[q.Handle] != nil:
		return protocol("handle %d exists", q.Handle)
	case q.DataSize > maxShm:
		return fmt.Errorf("data_size %d bytes: %w %d", q.DataSize, ErrLimit, maxShm)
	}
	id, mem, err := c.ctx.Create(&virgl.ResourceArgs{
		Target: q.Target, Format: q.Format, Bind: q.Bind, Width: q.Width, Height: q.Height, Depth: q.Depth,
		ArraySize: q.ArraySize, LastLevel: q.LastLevel, Samples: q.Samples,
	}, uint64(q.DataSize))
	if err != nil {
		return fmt.Errorf("handle %d: %w", q.Handle, err)
	}
	name := q.Handle
	if c.version >= 3 {
		name = id
		c.answer(m.Command, id)
	}
	c.names[name] = &owned{id: id, mem: uint64(q.DataSize)}
	if mem != nil {
		c.out.replyFD(mem)
	}
	return nil
}

func (c *client) resourceCreateBlob(m *message) error {
	var q Blob
	q.decode(m.body)
	if q.Type < BlobGuest || q.Type > BlobHost3DGuest {
		return protocol("type %d, want 1 to 3", q.Type)
	}
	if q.Size == 0 || q.Size > maxShm {
		return fmt.Errorf("size %d bytes: %w %d", q.Size, ErrLimit, maxShm)
	}
	id, mem, err := c.ctx.CreateBlob(&virgl.BlobArgs{Mem: q.Type, Flags: q.Flags, BlobID: q.ID, Size: q.Size})
	if err != nil {
		return fmt.Errorf("blob_id %d: %w", q.ID, err)
	}
	o := &owned{id: id}
	if q.Type != BlobHost3D {
		o.mem = q.Size
	}
	c.names[id] = o
	c.answer(ResourceCreateBlob, id)
	c.out.replyFD(mem)
	return nil
}

func (c *client) resourceUnref(m *message) error {
	handle := word(m.body, 0)
	r, err := c.own(handle)
	if err != nil {
		return err
	}
	delete(c.names, handle)
	c.ctx.Unref(r.id)
	return nil
}

// transfer checks what a transfer names.
func (c *client) transfer(q *Transfer) (*virgl.Transfer, *owned, error) {
	r, err := c.own(q.Handle)
	if err != nil {
		return nil, nil, err
	}
	return &virgl.Transfer{
		Resource: r.id, Level: q.Level, Stride: q.Stride, LayerStride: q.LayerStride,
		Box: virgl.Box{X: q.X, Y: q.Y, Z: q.Z, W: q.W, H: q.H, D: q.D}, Offset: uint64(q.Offset),
	}, r, nil
}

// transferGet answers with the bytes alone: there is no header.
func (c *client) transferGet(m *message) error {
	var q Transfer
	q.decode(m.body)
	t, r, err := c.transfer(&q)
	if err != nil {
		return err
	}
	if q.DataSize > maxInline {
		return fmt.Errorf("data_size %d bytes: %w %d", q.DataSize, ErrLimit, maxInline)
	}
	if q.DataSize == 0 {
		if r.mem == 0 {
			return errNoMemory
		}
		return c.ctx.FromHost(t, nil)
	}
	b := append(c.out.room(), make([]byte, q.DataSize)...)
	if err := c.ctx.FromHost(t, b); err != nil {
		return err
	}
	c.out.reply(b)
	return nil
}

func (c *client) transferPut(m *message) error {
	var q Transfer
	q.decode(m.body)
	t, r, err := c.transfer(&q)
	if err != nil {
		return err
	}
	if q.DataSize == 0 {
		if r.mem == 0 {
			return errNoMemory
		}
		return c.ctx.ToHost(t, nil)
	}
	return c.ctx.ToHost(t, m.data)
}

// transfer2 checks what the second kind of transfers names.
func (c *client) transfer2(m *message) (*virgl.Transfer, error) {
	var q Transfer
	q.decode2(m.body)
	t, r, err := c.transfer(&q)
	if err != nil {
		return nil, err
	}
	if r.mem == 0 {
		return nil, errNoMemory
	}
	if uint64(q.Offset) >= r.mem {
		return nil, protocol("offset %d, the memory has %d bytes", q.Offset, r.mem)
	}
	return t, nil
}

func (c *client) transferGet2(m *message) error {
	t, err := c.transfer2(m)
	if err != nil {
		return err
	}
	return c.ctx.FromHost(t, nil)
}

func (c *client) transferPut2(m *message) error {
	t, err := c.transfer2(m)
	if err != nil {
		return err
	}
	return c.ctx.ToHost(t, nil)
}
