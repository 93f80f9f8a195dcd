package wayland

import (
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

// lowWater is the unsent bytes above which nothing new is said: a compositor that
// does not read gets its frames when it does, and then only the newest.
const lowWater = 4096

// session is one connection to a compositor, from connect to its end.
type session struct {
	l    *loop
	s    *Sink
	conn *wire.Conn
	objs *objects

	registry proto.WlRegistry
	globals  []proto.WlRegistryGlobalEvent // until they are bound
	sync     wire.ID                       // the wl_callback that ends the current phase
	bound    bool                          // the globals are bound
	ready    bool                          // formats are known, windows can be made

	compositor    proto.WlCompositor
	subcompositor proto.WlSubcompositor
	shm           proto.WlShm
	wm            proto.XdgWmBase
	viewporter    proto.WpViewporter
	decorations   proto.ZxdgDecorationManagerV1
	syncobjs      proto.WpLinuxDrmSyncobjManagerV1
	explicit      *explicit // nil if frames go out with implicit fences
	fractional    proto.WpFractionalScaleManagerV1
	surfaceScales bool               // surfaces hear of their scale without wl_output
	outputs       map[uint32]*output // by global name
	dmabuf        proto.ZwpLinuxDmabufV1
	dmabufVersion uint32
	shmFormats    map[proto.WlShmFormat]struct{}
	formats       *dmabufFormats
	refused       map[layout]struct{} // layouts whose import failed
	seats         map[uint32]*seat    // by global name
	imports       map[importKey]*imported
	sweeping      bool // some import is dropped
}

func newSession(l *loop, conn *wire.Conn) *session {
	se := &session{
		l: l, s: l.s, conn: conn,
		shmFormats: map[proto.WlShmFormat]struct{}{},
		refused:    map[layout]struct{}{},
		seats:      map[uint32]*seat{},
		outputs:    map[uint32]*output{},
		imports:    map[importKey]*imported{},
	}
	se.objs = newObjects(se)
	se.formats = newDMABufFormats(se)
	display := proto.WlDisplay(wire.DisplayID)
	se.registry = proto.WlRegistry(se.objs.add(proto.IWlRegistry, se))
	display.GetRegistry(se.out(), se.registry)
	se.roundtrip()
	return se
}

func (se *session) out() *wire.Writer { return &se.conn.Out }

func (se *session) roundtrip() {
	se.sync = se.objs.add(proto.IWlCallback, se)
	proto.WlDisplay(wire.DisplayID).Sync(se.out(), proto.WlCallback(se.sync))
}

// receive reads once from the socket and dispatches what is complete.
func (se *session) receive() error {
	if _, err := se.conn.Receive(); err != nil {
		return err
	}
	for {
		m, ok, err := se.conn.Next()
		if err != nil || !ok {
			return err
		}
		if err := se.objs.dispatch(m); err != nil {
			return err
		}
	}
}

// receiveRest reads what the compositor said before it hung up.
func (se *session) receiveRest() error {
	for range 16 {
		if err := se.receive(); err != nil {
			if errors.Is(err, wire.ErrClosed) {
				return nil
			}
			return err
		}
	}
	return nil
}

// event handles the events of the objects that have no owner of their own.
func (se *session) event(id wire.ID, iface proto.InterfaceID, m wire.Message) error {
	switch iface {
	case proto.IWlDisplay:
		return se.displayEvent(m)
	case proto.IWlRegistry:
		return se.registryEvent(m)
	case proto.IWlCallback:
		if id == se.sync {
			return se.nextPhase()
		}
	case proto.IWlShm:
		var ev proto.WlShmFormatEvent
		if m.Opcode != proto.EvWlShmFormat {
			return nil
		}
		if err := ev.Decode(m); err != nil {
			return err
		}
		se.shmFormats[ev.Format] = struct{}{}
	case proto.IXdgWmBase:
		var ev proto.XdgWmBasePingEvent
		if err := ev.Decode(m); err != nil {
			return err
		}
		se.wm.Pong(se.out(), ev.Serial)
	}
	return nil
}

func (se *session) displayEvent(m wire.Message) error {
	if m.Opcode == proto.EvWlDisplayDeleteId {
		var ev proto.WlDisplayDeleteIdEvent
		if err := ev.Decode(m); err != nil {
			return err
		}
		return se.objs.deleted(wire.ID(ev.Id))
	}
	var ev proto.WlDisplayErrorEvent
	if err := ev.Decode(m); err != nil {
		return err
	}
	obj := se.objs.find(ev.ObjectId)
	se.blame(ev.ObjectId)
	return &OpError{Op: "use the compositor", Object: obj.iface.String(),
		Err: fmt.Errorf("%w: it reports error %d: %s", ErrProtocol, ev.Code, ev.Message)}
}

// blame remembers the layout of the import that made the compositor end the
// connection, so that the next one does not end the same way.
func (se *session) blame(id wire.ID) {
	for _, imp := range se.imports {
		if imp.params != 0 && wire.ID(imp.params) == id {
			se.l.refused[imp.layout] = struct{}{}
		}
	}
}

func (se *session) registryEvent(m wire.Message) error {
	if m.Opcode == proto.EvWlRegistryGlobalRemove {
		var ev proto.WlRegistryGlobalRemoveEvent
		if err := ev.Decode(m); err != nil {
			return err
		}
		se.removeSeat(ev.Name)
		se.removeOutput(ev.Name)
		return nil
	}
	var ev proto.WlRegistryGlobalEvent
	if err := ev.Decode(m); err != nil {
		return err
	}
	if se.bound {
		switch ev.Interface {
		case "wl_seat":
			se.addSeat(ev.Name, ev.Version)
		case "wl_output":
			se.addOutput(ev.Name, ev.Version)
		}
		return nil
	}
	if len(se.globals) >= maxGlobals {
		return fmt.Errorf("%w: more than %d globals", ErrProtocol, maxGlobals)
	}
	se.globals = append(se.globals, ev)
	return nil
}

// maxGlobals bounds what a compositor may announce; real ones have 20 to 60.
const maxGlobals = 1024

// nextPhase runs when the compositor has answered everything asked so far.
func (se *session) nextPhase() error {
	se.sync = 0
	if !se.bound {
		se.bound = true
		if err := se.bindAll(); err != nil {
			return err
		}
		se.roundtrip() // brings the formats
		return nil
	}
	se.ready = true
	se.publishFormats()
	se.s.log.Info("connected to the compositor", zap.String("socket", se.s.path),
		zap.Uint32("linux_dmabuf", se.dmabufVersion), zap.Int("dmabuf_layouts", len(se.s.formats.Load().set)),
		zap.Bool("viewporter", se.viewporter != 0))
	for i := range se.l.heads {
		se.l.heads[i].restore()
	}
	select {
	case se.s.first <- nil:
	default:
	}
	if se.l.before {
		se.s.stats.Reconnects.Add(1)
	}
	if se.l.before || se.s.cfg.Wait {
		se.refresh()
	}
	se.l.before = true
	return nil
}

// bindAll binds the globals that the sink uses, each at the highest version that
// it was written for.
func (se *session) bindAll() error {
	var compositorVersion, shmVersion, wmVersion uint32
	for _, g := range se.globals {
		switch g.Interface {
		case "wl_compositor":
			compositorVersion = g.Version
			se.compositor = proto.WlCompositor(se.bind(g, proto.IWlCompositor, 6, nil))
		case "wl_subcompositor":
			se.subcompositor = proto.WlSubcompositor(se.bind(g, proto.IWlSubcompositor, 1, nil))
		case "wl_shm":
			shmVersion = g.Version
			se.shm = proto.WlShm(se.bind(g, proto.IWlShm, 1, se))
		case "xdg_wm_base":
			wmVersion = g.Version
			se.wm = proto.XdgWmBase(se.bind(g, proto.IXdgWmBase, 6, se))
		case "wp_viewporter":
			se.viewporter = proto.WpViewporter(se.bind(g, proto.IWpViewporter, 1, nil))
		case "zxdg_decoration_manager_v1":
			se.decorations = proto.ZxdgDecorationManagerV1(se.bind(g, proto.IZxdgDecorationManagerV1, 1, nil))
		case "wp_fractional_scale_manager_v1":
			se.fractional = proto.WpFractionalScaleManagerV1(se.bind(g, proto.IWpFractionalScaleManagerV1, 1, nil))
		case "wp_linux_drm_syncobj_manager_v1":
			se.bindExplicit(g)
		case "zwp_linux_dmabuf_v1":
			se.bindDMABuf(g)
		case "wl_seat":
			se.addSeat(g.Name, g.Version)
		}
	}
	if se.viewporter == 0 {
		se.fractional = 0 // of no use without
	}
	se.surfaceScales = se.fractional != 0 || compositorVersion >= 6
	for _, g := range se.globals {
		if g.Interface == "wl_output" {
			se.addOutput(g.Name, g.Version)
		}
	}
	se.globals = nil
	if compositorVersion < 4 || shmVersion < 1 || wmVersion < 1 {
		return &OpError{Op: "use", Object: se.s.path,
			Err: fmt.Errorf("%w: it has wl_compositor %d (4 needed), wl_shm %d (1), xdg_wm_base %d (1)", ErrMissing, compositorVersion, shmVersion, wmVersion)}
	}
	return nil
}

func (se *session) bind(g proto.WlRegistryGlobalEvent, iface proto.InterfaceID, limit uint32, h handler) wire.ID {
	if h == nil {
		h = ignore{}
	}
	id := se.objs.add(iface, h)
	se.registry.Bind(se.out(), g.Name, g.Interface, min(g.Version, limit), id)
	return id
}

func (se *session) bindDMABuf(g proto.WlRegistryGlobalEvent) {
	se.dmabufVersion = min(g.Version, 5)
	se.dmabuf = proto.ZwpLinuxDmabufV1(se.bind(g, proto.IZwpLinuxDmabufV1, 5, se.formats))
	if se.dmabufVersion >= 4 {
		id := se.objs.add(proto.IZwpLinuxDmabufFeedbackV1, se.formats)
		se.dmabuf.GetDefaultFeedback(se.out(), proto.ZwpLinuxDmabufFeedbackV1(id))
	}
}

// ignore handles the events of objects whose events do not matter.
type ignore struct{}

func (ignore) event(wire.ID, proto.InterfaceID, wire.Message) error { return nil }

// publishFormats makes the answer of Accepts.
func (se *session) publishFormats() {
	if !se.bound {
		return
	}
	se.s.formats.Store(se.formats.snapshot(se.refused, se.l.refused))
	se.forgetFailures()
}

func (se *session) refresh() {
	if se.s.cfg.Events != nil {
		se.s.cfg.Events.Refresh()
	}
}

// close ends every import and the connection.
func (se *session) close() {
	for _, imp := range se.imports {
		imp.abandon()
	}
	_ = se.conn.Close()
}
