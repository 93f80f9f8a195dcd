package waylandtest

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// client is one connection.
type client struct {
	c       *Compositor
	conn    *wire.Conn
	objects map[wire.ID]*object
	nextID  wire.ID // the compositor's own ids
	serial  uint32
	dead    bool

	wmBase    wire.ID
	pointer   wire.ID
	keyboard  proto.WlKeyboard
	touch     proto.WlTouch
	output    proto.WlOutput
	timelines []*dmabuf.Timeline
	feedback  wire.ID
	dmabuf    wire.ID
	pongs     []uint32
	held      []*Buffer // releases held back
	callbacks []wire.ID // frame callbacks held back

	highest wire.ID  // id that it made
	sandbox *Sandbox // nil without a security context
	device  wire.ID  // wl_data_device
	primary wire.ID  // zwp_primary_selection_device_v1
}

// object is one protocol object; data is what its handlers keep.
type object struct {
	id      wire.ID
	iface   proto.InterfaceID
	version uint32
	data    any
}

func newClient(c *Compositor, conn *wire.Conn) *client {
	cl := &client{c: c, conn: conn, nextID: wire.ServerIDs, objects: map[wire.ID]*object{}}
	cl.objects[wire.DisplayID] = &object{id: wire.DisplayID, iface: proto.IWlDisplay, version: 1}
	return cl
}

func (cl *client) out() *wire.Writer { return &cl.conn.Out }

func (cl *client) receive() error {
	if _, err := cl.conn.Receive(); err != nil {
		return err
	}
	for !cl.dead {
		m, ok, err := cl.conn.Next()
		if err != nil || !ok {
			return err
		}
		if err := cl.dispatch(m); err != nil {
			cl.displayError(m.Object, 0, err.Error())
			return fmt.Errorf("%v: %w", cl.name(m), err)
		}
	}
	return nil
}

func (cl *client) name(m wire.Message) string {
	if o := cl.objects[m.Object]; o != nil {
		if d := o.iface.Request(m.Opcode); d != nil {
			return fmt.Sprintf("%v#%d.%s", o.iface, m.Object, d.Name)
		}
	}
	return fmt.Sprintf("request %d for id %#x", m.Opcode, uint32(m.Object))
}

// dispatch checks a request against the tables, makes the objects that it
// creates, runs its handler and removes what it destroys.
func (cl *client) dispatch(m wire.Message) error {
	o := cl.objects[m.Object]
	if o == nil {
		return fmt.Errorf("no such object")
	}
	desc := o.iface.Request(m.Opcode)
	if desc == nil || desc.Since > o.version {
		return fmt.Errorf("not in version %d of %v", o.version, o.iface)
	}
	if err := cl.walk(o, desc, m); err != nil {
		return err
	}
	fds := m.FDs.Len()
	if h := handlers[request{o.iface, m.Opcode}]; h != nil {
		if err := h(cl, o, m); err != nil {
			return err
		}
	}
	if taken := fds - m.FDs.Len(); taken < desc.FDs {
		if err := m.FDs.Skip(desc.FDs - taken); err != nil {
			return err
		}
	}
	if desc.Destructor {
		cl.destroy(o)
	}
	return nil
}

// walk reads the arguments by the tables alone: every object must exist, be of
// the right interface, and every new id must be free.
func (cl *client) walk(parent *object, desc *proto.Message, m wire.Message) error {
	d := m.Decoder()
	for _, a := range desc.Args {
		iface, version := a.Interface, parent.version
		switch a.Type {
		case proto.String:
			d.StringBytes()
		case proto.Array:
			d.Array()
		case proto.FD:
		case proto.Object:
			if err := cl.checkObject(a, d.OptObject()); err != nil {
				return err
			}
		case proto.NewID:
			if iface == 0 {
				iface = proto.Lookup(d.String())
				version = d.Uint()
			}
			if err := cl.create(d.Object(), iface, version); err != nil {
				return err
			}
		default:
			d.Uint()
		}
	}
	return d.Done(desc.Name)
}

func (cl *client) checkObject(a proto.Arg, id wire.ID) error {
	if id == 0 {
		if !a.Nullable {
			return fmt.Errorf("argument %s is null", a.Name)
		}
		return nil
	}
	o := cl.objects[id]
	if o == nil || (a.Interface != 0 && o.iface != a.Interface) {
		return fmt.Errorf("argument %s is %#x, which is no %v", a.Name, uint32(id), a.Interface)
	}
	return nil
}

func (cl *client) create(id wire.ID, iface proto.InterfaceID, version uint32) error {
	if iface == 0 || id == 0 || id >= wire.ServerIDs || cl.objects[id] != nil {
		return fmt.Errorf("new id %#x of %v is not free", uint32(id), iface)
	}
	cl.objects[id] = &object{id: id, iface: iface, version: version}
	cl.highest = max(cl.highest, id)
	return nil
}

// createServer makes an object with an id of ours.
func (cl *client) createServer(iface proto.InterfaceID, version uint32) *object {
	o := &object{id: cl.nextID, iface: iface, version: version}
	cl.nextID++
	cl.objects[o.id] = o
	return o
}

func (cl *client) destroy(o *object) {
	delete(cl.objects, o.id)
	if o.id < wire.ServerIDs {
		proto.WlDisplay(wire.DisplayID).SendDeleteId(cl.out(), uint32(o.id))
	}
}

// done answers a wl_callback and removes it.
func (cl *client) done(id wire.ID) {
	o := cl.objects[id]
	if o == nil {
		return
	}
	cl.serial++
	proto.WlCallback(id).SendDone(cl.out(), cl.serial)
	cl.destroy(o)
}

// surfaces returns the surfaces by id.
func (cl *client) surfaces() []*surface {
	var out []*surface
	for _, o := range cl.objects {
		if s, ok := o.data.(*surface); ok && o.iface == proto.IWlSurface {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b *surface) int { return int(a.id) - int(b.id) })
	return out
}

// raw sends bytes as they are, after what is waiting.
func (cl *client) raw(b []byte) {
	_ = cl.conn.Flush()
	_, _ = unix.Write(cl.conn.FD(), b)
}

// close frees everything of the client.
func (cl *client) close() {
	for _, o := range cl.objects {
		switch data := o.data.(type) {
		case *pool:
			_ = data.fd.Close()
		case *Buffer:
			_ = data.mem.Close()
		case *params:
			data.close()
		}
	}
	for _, tl := range cl.timelines {
		tl.Destroy()
	}
	_ = cl.conn.Close()
}
