package relay

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/link"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// errHost says that the host's end sent what makes no sense.
var errHost = errors.New("the host sent nonsense")

// eventHandler does what an event needs besides passing it on.
type eventHandler func(c *Client, o *object, m wire.Message) error

// events are those that are more than bytes to pass on, but for wl_registry.global.
var events = map[uint32]eventHandler{
	key(proto.IWlBuffer, proto.EvWlBufferRelease):                             bufferRelease,
	key(proto.IZwpLinuxBufferParamsV1, proto.EvZwpLinuxBufferParamsV1Created): paramsCreated,
	key(proto.IZwpLinuxBufferParamsV1, proto.EvZwpLinuxBufferParamsV1Failed):  paramsFailed,
	key(proto.IWlDisplay, proto.EvWlDisplayDeleteId):                          deleteID,
	key(proto.IWlDisplay, proto.EvWlDisplayError):                             hostError,
}

// event passes one message of the host on; its items are the first of items.
func (c *Client) event(m wire.Message, items *[]link.Item) error {
	o := c.objects.get(m.Object)
	if o == nil {
		return fmt.Errorf("%w: event %d for object %d, which does not exist", errHost, m.Opcode, m.Object)
	}
	desc := o.iface.Event(m.Opcode)
	if desc == nil {
		return fmt.Errorf("%w: %v has no event %d", errHost, o.iface, m.Opcode)
	}
	ids, err := walk(desc.Name, desc, m, c.eventIDs)
	c.eventIDs = ids
	if err != nil {
		return fmt.Errorf("%w: %v.%w", errHost, o.iface, err)
	}
	for _, n := range ids {
		if err := c.objects.addServer(n.id, n.iface, o.version, nil); err != nil {
			return fmt.Errorf("%w: %v.%s: %w", errHost, o.iface, desc.Name, err)
		}
	}
	if o.iface == proto.IWlRegistry && m.Opcode == proto.EvWlRegistryGlobal {
		return c.global(m)
	}
	if h := events[key(o.iface, int(m.Opcode))]; h != nil {
		if err := h(c, o, m); err != nil {
			return err
		}
	}
	if desc.Destructor {
		c.objects.destroy(o)
	}
	fds, err := c.takeItems(items, desc.FDs, o.iface.String()+"."+desc.Name)
	if errors.Is(err, link.ErrTooMany) || errors.Is(err, unix.EMFILE) {
		// The host hears that nobody writes, and the client hears nothing.
		c.cfg.Log.Warn("a message is lost", "client", c.cfg.Name, "message", desc.Name, "why", err)
		return nil
	}
	if err != nil {
		return err
	}
	return c.out.message(m, fds)
}

// takeItems turns the first n items into descriptors.
func (c *Client) takeItems(items *[]link.Item, n int, name string) (fds []*dmabuf.FD, err error) {
	for range n {
		if len(*items) == 0 {
			err = fmt.Errorf("%w: %s came without its item", errHost, name)
			break
		}
		it := (*items)[0]
		*items = (*items)[1:]
		var fd *dmabuf.FD
		switch it.Kind {
		case link.ItemPipe:
			fd, err = c.host.AcceptPipe(it.ID)
		case link.ItemBytes:
			fd, err = sealed(name, it.Bytes)
		default:
			err = fmt.Errorf("%w: %s came with an item %v", errHost, name, it.Kind)
		}
		if err != nil {
			break
		}
		fds = append(fds, fd)
	}
	if err != nil {
		for _, fd := range fds {
			_ = fd.Close()
		}
		return nil, err
	}
	return fds, nil
}

// global passes a global on that the tables know, in a version that they know.
func (c *Client) global(m wire.Message) error {
	var ev proto.WlRegistryGlobalEvent
	if err := ev.Decode(m); err != nil {
		return fmt.Errorf("%w: %w", errHost, err)
	}
	iface := proto.Lookup(ev.Interface)
	if iface == 0 || iface == proto.IWpLinuxDrmSyncobjManagerV1 || iface == proto.IWpSecurityContextManagerV1 || ev.Name == syncName {
		return nil
	}
	version := min(ev.Version, proto.Interfaces[iface].Version)
	return c.out.write(func(w *wire.Writer) {
		proto.WlRegistry(m.Object).SendGlobal(w, ev.Name, ev.Interface, version)
	})
}

func bufferRelease(c *Client, o *object, _ wire.Message) error {
	if b, ok := c.objects.data(o).(*buffer); ok {
		b.release()
	}
	return nil
}

// deleteID frees an id before the client hears of it and may use it again.
func deleteID(c *Client, _ *object, m wire.Message) error {
	id := wire.ID(binary.LittleEndian.Uint32(m.Body))
	o := c.objects.get(id)
	if o == nil || o.local {
		return fmt.Errorf("%w: delete_id %d, which does not exist", errHost, id)
	}
	c.objects.forget(id)
	if p, ok := c.objects.data(o).(*params); ok {
		closePlanes(p.take())
	}
	return nil
}

func hostError(c *Client, _ *object, m wire.Message) error {
	var ev proto.WlDisplayErrorEvent
	if err := ev.Decode(m); err != nil {
		return fmt.Errorf("%w: %w", errHost, err)
	}
	c.told.Store(true)
	c.cfg.Log.Warn("the host ends a client", "client", c.cfg.Name, "object", ev.ObjectId, "code", ev.Code, "why", ev.Message)
	return nil
}
