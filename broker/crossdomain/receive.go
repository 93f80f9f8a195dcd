package crossdomain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Blob is host memory that RESOURCE_CREATE_BLOB makes a resource of.
type Blob struct {
	FD       *dmabuf.FD // owned by whoever has the Blob
	Size     uint64     // bytes that the resource may have: whole pages
	ReadOnly bool       // it must not be mapped for writing
	MapInfo  uint32
	DMABuf   bool
}

// Blob finds what the guest calls blob_id. What came with a RECEIVE can be had once,
// an image as often as asked. size is that of the resource, in bytes.
func (c *Context) Blob(blobID, size uint64) (Blob, error) {
	bad := func(format string, args ...any) (Blob, error) {
		return Blob{}, &OpError{c.cfg.ID, 0, refused(format, args...)}
	}
	if blobID > math.MaxUint32 {
		return bad("blob_id %#x, limit %#x", blobID, uint32(math.MaxUint32))
	}
	id := uint32(blobID)
	if t := c.templates[id]; t != nil {
		if size != t.layout.Size {
			return bad("blob_id %d: size %d, want %d", id, size, t.layout.Size)
		}
		im, err := c.image(t)
		if err != nil {
			return Blob{}, &OpError{c.cfg.ID, 0, err}
		}
		return Blob{FD: im.FD, Size: im.Size, MapInfo: im.MapInfo}, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b, ok := c.blobs[id]
	switch {
	case !ok:
		return bad("blob_id %d is not known, or was used before", id)
	case size == 0 || size > b.Size:
		return bad("blob_id %d: size %d, limit %d", id, size, b.Size)
	}
	delete(c.blobs, id)
	return b, nil
}

// mapCached is VIRTIO_GPU_MAP_CACHE_CACHED.
const mapCached = 1

// guest is a context as the proxy of Wayland clients sees it.
type guest struct{ c *Context }

var _ proxy.Guest = (*guest)(nil)

// Dialect implements proxy.Guest: those who speak this know what dma-buf feedback
// means in their guest, and nothing of clocks.
func (g *guest) Dialect() proxy.Dialect {
	return proxy.Dialect{FeedbackRaw: true, Transport: "cross-domain", Name: g.c.cfg.Name}
}

// Recv implements proxy.Guest.
func (g *guest) Recv(ctx context.Context) (proxy.Chunk, error) {
	s, err := g.c.in.pop(ctx)
	if errors.Is(err, ErrClosed) {
		err = io.EOF
	}
	if err != nil {
		return proxy.Chunk{}, err
	}
	g.c.room()
	return proxy.Chunk{Data: s.data, Items: s.items}, nil
}

// Send implements proxy.Guest.
func (g *guest) Send(ctx context.Context, chunk proxy.Chunk) error {
	items := chunk.Items
	defer func() {
		for i := range items {
			items[i].Close()
		}
	}()
	if chunk.Update != nil {
		return &OpError{g.c.cfg.ID, CmdReceive, refused("an update is not for a guest")}
	}
	data := chunk.Data
	for len(data) > 0 || len(items) > 0 {
		hold, err := g.c.takePoll(ctx)
		if err != nil {
			return err
		}
		g.c.mu.Lock()
		slots := g.c.slots
		g.c.mu.Unlock()
		nids := min(len(items), slots)
		later := (len(items) - nids + slots - 1) / slots // messages that need a byte each
		n := min(len(data)-later, g.c.roomFor(sizeOf(slots)))
		m := message{slots: slots}
		if n < 1 {
			err = refused("%d descriptors with %d bytes", len(items), len(data))
		} else {
			m.data = data[:n]
			err = g.c.offer(items[:nids], &m)
		}
		if err != nil {
			g.c.putBack(hold)
			return &OpError{g.c.cfg.ID, CmdReceive, err}
		}
		items, data = items[nids:], data[n:]
		g.c.deliver(hold, func(int) []byte { return appendReceive(nil, &m) })
	}
	return nil
}

// putBack returns a poll that nothing was delivered with.
func (c *Context) putBack(hold uint64) {
	select {
	case c.polls <- hold:
	default: // the guest filled it meanwhile; it gets an answer that means nothing
		c.dev.Release(hold)
	}
}

// offer gives items their numbers; it takes them.
func (c *Context) offer(items []proxy.Item, m *message) error {
	for i := range items {
		x, err := c.offerItem(&items[i])
		if err != nil {
			return err // what was offered before stays until the context ends
		}
		m.ids = append(m.ids, x)
	}
	return nil
}

func (c *Context) offerItem(it *proxy.Item) (id, error) {
	switch it.Kind {
	case proxy.ItemPipe:
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.failed != nil {
			return id{}, c.failed
		}
		if len(c.writes) >= maxPipes {
			return id{}, refused("%d pipes are open, which is the limit", maxPipes)
		}
		n := c.nextID()
		if n == 0 {
			return id{}, errNumbers
		}
		w := newWritePipe(c, it.FD)
		it.FD = nil
		c.writes[n] = w
		c.goRun(w.pump)
		return id{id: n, typ: IDWritePipe}, nil
	case proxy.ItemBytes:
		return c.offerBytes(it.Bytes)
	}
	return id{}, refused("an item of kind %d is not for a guest", it.Kind)
}

var errNumbers = fmt.Errorf("%w: all numbers are used", ErrRefused)

// offerBytes makes a blob of bytes that the guest only reads.
func (c *Context) offerBytes(p []byte) (id, error) {
	if uint64(len(p)) > math.MaxUint32 {
		return id{}, refused("%d bytes, limit %d", len(p), uint32(math.MaxUint32))
	}
	size := dmabuf.PageAlign(max(int64(len(p)), 1))
	fd, err := dmabuf.NewMemfd("for a guest to read", size)
	if err != nil {
		return id{}, err
	}
	if _, err = unix.Pwrite(fd.Int(), p, 0); err == nil {
		_, err = unix.FcntlInt(uintptr(fd.Int()), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SEAL)
	}
	if err != nil {
		_ = fd.Close()
		return id{}, fmt.Errorf("fill memory for the guest: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := uint32(0)
	switch {
	case c.failed != nil:
		err = c.failed
	case len(c.blobs) >= maxBlobs:
		err = refused("the guest has %d blobs to take, which is the limit", maxBlobs)
	default:
		if n = c.nextID(); n == 0 {
			err = errNumbers
		}
	}
	if err != nil {
		_ = fd.Close()
		return id{}, err
	}
	c.blobs[n] = Blob{FD: fd, Size: uint64(size), ReadOnly: true, MapInfo: mapCached}
	return id{id: n, typ: IDBlob, size: uint32(max(len(p), 1))}, nil
}

// Fail implements proxy.Guest. The protocol has no words for it.
func (g *guest) Fail(error) {}

// Close implements proxy.Guest; the guest hears of it when what serves the channel
// returns.
func (g *guest) Close() error {
	g.c.fail(ErrClosed)
	return nil
}
