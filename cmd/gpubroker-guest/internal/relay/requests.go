package relay

import (
	"errors"
	"fmt"

	"github.com/gpubroker/gpubroker/broker/link"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/shm"
)

// handler does what a request needs besides passing it on; forward says whether the
// host gets it. New objects of the request exist already.
type handler func(c *Client, o *object, m wire.Message) (forward bool, err error)

func key(iface proto.InterfaceID, opcode int) uint32 { return uint32(iface)<<16 | uint32(opcode) }

// requests are those that are more than bytes to pass on.
var requests = map[uint32]handler{
	key(proto.IWlDisplay, proto.OpWlDisplayGetRegistry): getRegistry,
	key(proto.IWlRegistry, proto.OpWlRegistryBind):      bind,
	key(proto.IWlFixes, proto.OpWlFixesDestroyRegistry): destroyRegistry,

	key(proto.IWlShm, proto.OpWlShmCreatePool):           createPool,
	key(proto.IWlShmPool, proto.OpWlShmPoolCreateBuffer): createBuffer,
	key(proto.IWlShmPool, proto.OpWlShmPoolResize):       resizePool,
	key(proto.IWlShmPool, proto.OpWlShmPoolDestroy):      destroyPool,
	key(proto.IWlBuffer, proto.OpWlBufferDestroy):        destroyBuffer,

	key(proto.IWlSurface, proto.OpWlSurfaceDestroy):            surfaceDestroy,
	key(proto.IWlSurface, proto.OpWlSurfaceAttach):             surfaceAttach,
	key(proto.IWlSurface, proto.OpWlSurfaceDamage):             surfaceDamage,
	key(proto.IWlSurface, proto.OpWlSurfaceDamageBuffer):       surfaceDamageBuffer,
	key(proto.IWlSurface, proto.OpWlSurfaceCommit):             surfaceCommit,
	key(proto.IWlSurface, proto.OpWlSurfaceSetBufferTransform): surfaceTransform,
	key(proto.IWlSurface, proto.OpWlSurfaceSetBufferScale):     surfaceScale,
	key(proto.IWlSurface, proto.OpWlSurfaceOffset):             surfaceOffset,

	key(proto.IWpViewporter, proto.OpWpViewporterGetViewport): getViewport,
	key(proto.IWpViewport, proto.OpWpViewportSetSource):       viewportSet,
	key(proto.IWpViewport, proto.OpWpViewportSetDestination):  viewportSet,
	key(proto.IWpViewport, proto.OpWpViewportDestroy):         viewportDestroy,

	key(proto.IZwpLinuxBufferParamsV1, proto.OpZwpLinuxBufferParamsV1Add):         addPlane,
	key(proto.IZwpLinuxBufferParamsV1, proto.OpZwpLinuxBufferParamsV1Create):      paramsCreate,
	key(proto.IZwpLinuxBufferParamsV1, proto.OpZwpLinuxBufferParamsV1CreateImmed): paramsCreateImmed,

	key(proto.IWlDataOffer, proto.OpWlDataOfferReceive):                                          receivePipe,
	key(proto.IZwpPrimarySelectionOfferV1, proto.OpZwpPrimarySelectionOfferV1Receive):            receivePipe,
	key(proto.IWpImageDescriptionCreatorIccV1, proto.OpWpImageDescriptionCreatorIccV1SetIccFile): setICC,

	key(proto.IXdgToplevel, proto.OpXdgToplevelSetTitle): setTitle,
	key(proto.IXdgToplevel, proto.OpXdgToplevelSetAppId): setAppID,
	key(proto.IXdgToplevel, proto.OpXdgToplevelDestroy):  closeWindow,

	key(proto.IWpLinuxDrmSyncobjManagerV1, proto.OpWpLinuxDrmSyncobjManagerV1GetSurface):      syncGetSurface,
	key(proto.IWpLinuxDrmSyncobjManagerV1, proto.OpWpLinuxDrmSyncobjManagerV1ImportTimeline):  syncImport,
	key(proto.IWpLinuxDrmSyncobjTimelineV1, proto.OpWpLinuxDrmSyncobjTimelineV1Destroy):       timelineDestroy,
	key(proto.IWpLinuxDrmSyncobjSurfaceV1, proto.OpWpLinuxDrmSyncobjSurfaceV1Destroy):         syncSurfaceDestroy,
	key(proto.IWpLinuxDrmSyncobjSurfaceV1, proto.OpWpLinuxDrmSyncobjSurfaceV1SetAcquirePoint): syncSetPoint,
	key(proto.IWpLinuxDrmSyncobjSurfaceV1, proto.OpWpLinuxDrmSyncobjSurfaceV1SetReleasePoint): syncSetPoint,
}

// request handles one message of the client. Errors that are not the client's are
// *OpError or of the host's connection.
func (c *Client) request(m wire.Message) error {
	o, err := c.objects.live(m.Object)
	if err != nil {
		return err
	}
	desc := o.iface.Request(m.Opcode)
	if desc == nil || desc.Since > o.version {
		return displayError(codeInvalidMethod, "%v %d, version %d, has no request %d", o.iface, o.id, o.version, m.Opcode)
	}
	c.newIDs, err = walk(desc.Name, desc, m, c.newIDs)
	if err != nil {
		var op *wire.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		return displayError(codeInvalidMethod, "%v.%s: %v", o.iface, desc.Name, err)
	}
	for _, n := range c.newIDs {
		if err := c.create(o, n); err != nil {
			return err
		}
	}
	forward := !o.local
	if h := requests[key(o.iface, int(m.Opcode))]; h != nil {
		fwd, err := h(c, o, m)
		if errors.Is(err, wire.ErrMalformed) || errors.Is(err, wire.ErrDescriptors) {
			return displayError(codeInvalidMethod, "%v", err)
		}
		if err != nil {
			return err
		}
		forward = forward && fwd
	} else if desc.FDs > 0 {
		return displayError(codeImplementation, "%v.%s carries a descriptor, which cannot leave the guest", o.iface, desc.Name)
	}
	if forward {
		c.forward(m)
	}
	if desc.Destructor && c.objects.destroy(o) {
		return c.deleteID(o.id)
	}
	return nil
}

// create makes the object that a request asks for.
func (c *Client) create(parent *object, n newID) error {
	iface, version, local := n.iface, parent.version, parent.local
	if n.iface == 0 { // wl_registry.bind
		iface, version = proto.Lookup(n.name), n.version
		local = iface == proto.IWpLinuxDrmSyncobjManagerV1
		if iface == 0 {
			return displayError(codeInvalidObject, "%q is not an interface that was offered", n.name)
		}
		if version == 0 || version > proto.Interfaces[iface].Version {
			return displayError(codeInvalidObject, "version %d of %s, offered were at most %d", version, n.name, proto.Interfaces[iface].Version)
		}
	}
	o, err := c.objects.add(n.id, iface, version, local)
	if err != nil {
		return err
	}
	switch iface {
	case proto.IWlSurface:
		o.data = &surface{id: o.id, scale: 1}
	case proto.IZwpLinuxBufferParamsV1:
		o.data = &params{}
	}
	return nil
}

// deleteID tells the client that an id is free which the host never knew.
func (c *Client) deleteID(id wire.ID) error {
	return c.out.write(func(w *wire.Writer) {
		proto.WlDisplay(wire.DisplayID).SendDeleteId(w, uint32(id))
	})
}

func getRegistry(c *Client, _ *object, m wire.Message) (bool, error) {
	var req proto.WlDisplayGetRegistryRequest
	if err := req.Decode(m); err != nil {
		return false, err
	}
	return true, c.offerSync(wire.ID(req.Registry))
}

func bind(c *Client, _ *object, m wire.Message) (bool, error) {
	var req proto.WlRegistryBindRequest
	if err := req.Decode(m); err != nil {
		return false, err
	}
	switch iface := proto.Lookup(req.Iface); iface {
	case proto.IWpLinuxDrmSyncobjManagerV1:
		if req.Name != syncName || c.sync == nil {
			return false, displayError(codeInvalidObject, "%v was not offered", iface)
		}
		return false, nil
	case proto.IWpSecurityContextManagerV1:
		return false, displayError(codeInvalidObject, "%v was not offered", iface)
	case proto.IWlShm:
		c.shm = wire.ID(req.Id)
	}
	return true, nil
}

// destroyRegistry ends a registry by wl_fixes, whose message it is.
func destroyRegistry(c *Client, _ *object, m wire.Message) (bool, error) {
	var req proto.WlFixesDestroyRegistryRequest
	if err := req.Decode(m); err != nil {
		return false, err
	}
	o, err := c.objects.live(wire.ID(req.Registry))
	if err != nil || o.iface != proto.IWlRegistry {
		return false, displayError(codeInvalidObject, "object %d is no wl_registry", req.Registry)
	}
	c.objects.destroy(o)
	return true, nil
}

// receivePipe passes the write end of a client's pipe on.
func receivePipe(c *Client, o *object, m wire.Message) (bool, error) {
	fd := m.FDs.Take()
	if fd == nil {
		return false, fmt.Errorf("%w: %v.receive carries one, none arrived", wire.ErrDescriptors, o.iface)
	}
	id, err := c.host.NamePipe(fd)
	if err != nil {
		// The client reads the end of data.
		c.cfg.Log.Warn("no pipe for a client's data", "client", c.cfg.Name, "why", err)
		return false, nil
	}
	c.item(link.Item{Kind: link.ItemPipe, ID: id})
	return true, nil
}

// surface returns what is known of a wl_surface.
func (c *Client) surface(id wire.ID) (*surface, error) {
	o, err := c.objects.live(id)
	if err != nil {
		return nil, err
	}
	s, ok := o.data.(*surface)
	if !ok {
		return nil, displayError(codeInvalidObject, "object %d is a %v and not a wl_surface", id, o.iface)
	}
	return s, nil
}

func surfaceDestroy(c *Client, o *object, _ wire.Message) (bool, error) {
	s := o.data.(*surface)
	s.gone = true
	s.current.unhold()
	s.current, s.pending = nil, pendingState{}
	if s.sync != nil {
		s.sync.s = nil
		s.sync.dropPoints()
		s.sync = nil
	}
	return true, nil
}

func surfaceAttach(c *Client, o *object, m wire.Message) (bool, error) {
	var req proto.WlSurfaceAttachRequest
	if err := req.Decode(m); err != nil {
		return false, err
	}
	s := o.data.(*surface)
	p := &s.pending
	p.attached, p.buffer, p.id = true, nil, wire.ID(req.Buffer)
	p.moved = p.moved || req.X != 0 || req.Y != 0
	if req.Buffer == 0 {
		return true, nil
	}
	bo, err := c.objects.live(wire.ID(req.Buffer))
	if err != nil {
		return false, err
	}
	if bo.iface != proto.IWlBuffer {
		return false, displayError(codeInvalidObject, "object %d is a %v and not a wl_buffer", req.Buffer, bo.iface)
	}
	p.buffer, _ = c.objects.data(bo).(*buffer)
	return true, nil
}

func surfaceDamage(_ *Client, o *object, m wire.Message) (bool, error) {
	var req proto.WlSurfaceDamageRequest
	if err := req.Decode(m); err != nil {
		return false, err
	}
	o.data.(*surface).pending.surface.add(rect(req.X, req.Y, req.Width, req.Height))
	return true, nil
}

func surfaceDamageBuffer(_ *Client, o *object, m wire.Message) (bool, error) {
	var req proto.WlSurfaceDamageBufferRequest
	if err := req.Decode(m); err != nil {
		return false, err
	}
	o.data.(*surface).pending.buf.add(rect(req.X, req.Y, req.Width, req.Height))
	return true, nil
}

func surfaceTransform(_ *Client, o *object, m wire.Message) (bool, error) {
	var req proto.WlSurfaceSetBufferTransformRequest
	if err := req.Decode(m); err != nil {
		return false, err
	}
	s, turned := o.data.(*surface), req.Transform != 0
	s.changed = s.changed || s.transform != turned
	s.transform = turned
	return true, nil
}

func surfaceScale(_ *Client, o *object, m wire.Message) (bool, error) {
	var req proto.WlSurfaceSetBufferScaleRequest
	if err := req.Decode(m); err != nil {
		return false, err
	}
	s := o.data.(*surface)
	s.changed = s.changed || s.scale != req.Scale
	s.scale = req.Scale
	return true, nil
}

func surfaceOffset(_ *Client, o *object, m wire.Message) (bool, error) {
	var req proto.WlSurfaceOffsetRequest
	if err := req.Decode(m); err != nil {
		return false, err
	}
	p := &o.data.(*surface).pending
	p.moved = p.moved || req.X != 0 || req.Y != 0
	return true, nil
}

// surfaceCommit holds the commit back until its pixels are with the host.
func surfaceCommit(c *Client, o *object, _ wire.Message) (bool, error) {
	s := o.data.(*surface)
	release, err := c.syncCommit(s)
	if err != nil {
		return false, err
	}
	attached, id := s.pending.attached, s.pending.id
	b, stale := s.commit()
	if attached {
		s.bufferID = id
	}
	if b == nil {
		return true, nil
	}
	if attached {
		b.use(release)
		c.counted(b)
	}
	if b.shm == nil || b.dead() {
		return true, nil
	}
	return true, c.copyOut(s.bufferID, b, stale)
}

// counted counts a frame.
func (c *Client) counted(b *buffer) {
	switch {
	case b.shm != nil:
		c.stats.Frames[b.shm.Tier].Add(1)
		if why := c.cfg.Store.Why(); b.shm.Tier != shm.TierImport && why != "" {
			c.stats.Why.Store(&why)
		}
	default:
		c.stats.DMABuf.Add(1)
	}
}

// viewport is what is known of a wp_viewport.
type viewport struct {
	s    *surface
	last [2]string // bodies of set_source and set_destination
}

func getViewport(c *Client, _ *object, m wire.Message) (bool, error) {
	var req proto.WpViewporterGetViewportRequest
	if err := req.Decode(m); err != nil {
		return false, err
	}
	s, err := c.surface(wire.ID(req.Surface))
	if err != nil {
		return false, err
	}
	s.viewport = true
	c.objects.get(wire.ID(req.Id)).data = &viewport{s: s}
	return true, nil
}

func viewportSet(_ *Client, o *object, m wire.Message) (bool, error) {
	v := o.data.(*viewport)
	if last := &v.last[m.Opcode-proto.OpWpViewportSetSource]; *last != string(m.Body) {
		*last = string(m.Body)
		v.s.changed = true
	}
	return true, nil
}

func viewportDestroy(_ *Client, o *object, _ wire.Message) (bool, error) {
	v := o.data.(*viewport)
	v.s.viewport, v.s.changed = false, true
	return true, nil
}

func setTitle(c *Client, o *object, m wire.Message) (bool, error) {
	var req proto.XdgToplevelSetTitleRequest
	if err := req.Decode(m); err != nil {
		return false, err
	}
	c.stats.name(o.id, func(w *window) { w.title = req.Title })
	return true, nil
}

func setAppID(c *Client, o *object, m wire.Message) (bool, error) {
	var req proto.XdgToplevelSetAppIdRequest
	if err := req.Decode(m); err != nil {
		return false, err
	}
	c.stats.name(o.id, func(w *window) { w.app = req.AppId })
	return true, nil
}

func closeWindow(c *Client, o *object, _ wire.Message) (bool, error) {
	c.stats.name(o.id, nil)
	return true, nil
}
