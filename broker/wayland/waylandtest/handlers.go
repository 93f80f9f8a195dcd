package waylandtest

import (
	"fmt"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

type request struct {
	iface  proto.InterfaceID
	opcode uint16
}

// handlers are the requests that do more than make or destroy an object.
var handlers map[request]func(cl *client, o *object, m wire.Message) error

func init() {
	handlers = map[request]func(cl *client, o *object, m wire.Message) error{
		{proto.IWlDisplay, proto.OpWlDisplaySync}:                                                           displaySync,
		{proto.IWlDisplay, proto.OpWlDisplayGetRegistry}:                                                    getRegistry,
		{proto.IWlRegistry, proto.OpWlRegistryBind}:                                                         bind,
		{proto.IWlCompositor, proto.OpWlCompositorCreateSurface}:                                            createSurface,
		{proto.IWlCompositor, proto.OpWlCompositorCreateRegion}:                                             createRegion,
		{proto.IWlRegion, proto.OpWlRegionAdd}:                                                              regionAdd,
		{proto.IWlSurface, proto.OpWlSurfaceAttach}:                                                         attach,
		{proto.IWlSurface, proto.OpWlSurfaceDamageBuffer}:                                                   damageBuffer,
		{proto.IWlSurface, proto.OpWlSurfaceFrame}:                                                          surfaceFrame,
		{proto.IWlSurface, proto.OpWlSurfaceSetOpaqueRegion}:                                                setOpaque,
		{proto.IWlSurface, proto.OpWlSurfaceSetBufferTransform}:                                             setTransform,
		{proto.IWlSurface, proto.OpWlSurfaceCommit}:                                                         commit,
		{proto.IWlSurface, proto.OpWlSurfaceDestroy}:                                                        destroySurface,
		{proto.IWlShm, proto.OpWlShmCreatePool}:                                                             createPool,
		{proto.IWlShmPool, proto.OpWlShmPoolCreateBuffer}:                                                   poolCreateBuffer,
		{proto.IWlShmPool, proto.OpWlShmPoolResize}:                                                         resizePool,
		{proto.IWlShmPool, proto.OpWlShmPoolDestroy}:                                                        destroyPool,
		{proto.IWlBuffer, proto.OpWlBufferDestroy}:                                                          destroyBuffer,
		{proto.IXdgWmBase, proto.OpXdgWmBaseGetXdgSurface}:                                                  getXdgSurface,
		{proto.IXdgWmBase, proto.OpXdgWmBasePong}:                                                           pong,
		{proto.IXdgSurface, proto.OpXdgSurfaceGetToplevel}:                                                  getToplevel,
		{proto.IXdgSurface, proto.OpXdgSurfaceAckConfigure}:                                                 ackConfigure,
		{proto.IXdgSurface, proto.OpXdgSurfaceSetWindowGeometry}:                                            setGeometry,
		{proto.IXdgToplevel, proto.OpXdgToplevelSetTitle}:                                                   setTitle,
		{proto.IXdgToplevel, proto.OpXdgToplevelSetAppId}:                                                   setAppID,
		{proto.IXdgToplevel, proto.OpXdgToplevelSetMinSize}:                                                 setMin,
		{proto.IXdgToplevel, proto.OpXdgToplevelSetMaxSize}:                                                 setMax,
		{proto.IXdgToplevel, proto.OpXdgToplevelDestroy}:                                                    destroyToplevel,
		{proto.IWlSubcompositor, proto.OpWlSubcompositorGetSubsurface}:                                      getSubsurface,
		{proto.IWlSubsurface, proto.OpWlSubsurfaceSetPosition}:                                              setPosition,
		{proto.IWpViewporter, proto.OpWpViewporterGetViewport}:                                              getViewport,
		{proto.IWpViewport, proto.OpWpViewportSetSource}:                                                    setSource,
		{proto.IZwpLinuxDmabufV1, proto.OpZwpLinuxDmabufV1CreateParams}:                                     createParams,
		{proto.IZwpLinuxDmabufV1, proto.OpZwpLinuxDmabufV1GetDefaultFeedback}:                               defaultFeedback,
		{proto.IZwpLinuxBufferParamsV1, proto.OpZwpLinuxBufferParamsV1Add}:                                  paramsAdd,
		{proto.IZwpLinuxBufferParamsV1, proto.OpZwpLinuxBufferParamsV1Create}:                               paramsCreate,
		{proto.IZwpLinuxBufferParamsV1, proto.OpZwpLinuxBufferParamsV1Destroy}:                              paramsDestroy,
		{proto.IWpViewport, proto.OpWpViewportSetDestination}:                                               setDestination,
		{proto.IWlSurface, proto.OpWlSurfaceSetBufferScale}:                                                 setBufferScale,
		{proto.IXdgToplevel, proto.OpXdgToplevelSetFullscreen}:                                              setFullscreen,
		{proto.IWlSubsurface, proto.OpWlSubsurfacePlaceBelow}:                                               placeBelow,
		{proto.IWpFractionalScaleManagerV1, proto.OpWpFractionalScaleManagerV1GetFractionalScale}:           getFractional,
		{proto.IWpLinuxDrmSyncobjManagerV1, proto.OpWpLinuxDrmSyncobjManagerV1ImportTimeline}:               importTimeline,
		{proto.IWpLinuxDrmSyncobjManagerV1, proto.OpWpLinuxDrmSyncobjManagerV1GetSurface}:                   getSyncSurface,
		{proto.IWpLinuxDrmSyncobjSurfaceV1, proto.OpWpLinuxDrmSyncobjSurfaceV1SetAcquirePoint}:              setAcquire,
		{proto.IWpLinuxDrmSyncobjSurfaceV1, proto.OpWpLinuxDrmSyncobjSurfaceV1SetReleasePoint}:              setRelease,
		{proto.IWpLinuxDrmSyncobjSurfaceV1, proto.OpWpLinuxDrmSyncobjSurfaceV1Destroy}:                      destroySyncSurface,
		{proto.IWlSeat, proto.OpWlSeatGetKeyboard}:                                                          getKeyboard,
		{proto.IWlSeat, proto.OpWlSeatGetTouch}:                                                             getTouch,
		{proto.IWlSeat, proto.OpWlSeatGetPointer}:                                                           getPointer,
		{proto.IWlPointer, proto.OpWlPointerSetCursor}:                                                      setCursor,
		{proto.IZxdgDecorationManagerV1, proto.OpZxdgDecorationManagerV1GetToplevelDecoration}:              getDecoration,
		{proto.IWlSurface, proto.OpWlSurfaceDamage}:                                                         damageSurface,
		{proto.IWpSecurityContextManagerV1, proto.OpWpSecurityContextManagerV1CreateListener}:               createListener,
		{proto.IWpSecurityContextV1, proto.OpWpSecurityContextV1SetSandboxEngine}:                           setEngine,
		{proto.IWpSecurityContextV1, proto.OpWpSecurityContextV1SetAppId}:                                   setSandboxApp,
		{proto.IWpSecurityContextV1, proto.OpWpSecurityContextV1SetInstanceId}:                              setInstance,
		{proto.IWpSecurityContextV1, proto.OpWpSecurityContextV1Commit}:                                     commitContext,
		{proto.IWpPresentation, proto.OpWpPresentationFeedback}:                                             feedback,
		{proto.IWpCommitTimerV1, proto.OpWpCommitTimerV1SetTimestamp}:                                       timestamp,
		{proto.IWlDataDeviceManager, proto.OpWlDataDeviceManagerCreateDataSource}:                           createSource(false),
		{proto.IWlDataDeviceManager, proto.OpWlDataDeviceManagerGetDataDevice}:                              getDevice(false),
		{proto.IWlDataDevice, proto.OpWlDataDeviceSetSelection}:                                             setSelection,
		{proto.IWlDataSource, proto.OpWlDataSourceOffer}:                                                    offerType,
		{proto.IWlDataOffer, proto.OpWlDataOfferReceive}:                                                    receiveOffer,
		{proto.IZwpPrimarySelectionDeviceManagerV1, proto.OpZwpPrimarySelectionDeviceManagerV1CreateSource}: createSource(true),
		{proto.IZwpPrimarySelectionDeviceManagerV1, proto.OpZwpPrimarySelectionDeviceManagerV1GetDevice}:    getDevice(true),
		{proto.IZwpPrimarySelectionDeviceV1, proto.OpZwpPrimarySelectionDeviceV1SetSelection}:               setSelection,
		{proto.IZwpPrimarySelectionSourceV1, proto.OpZwpPrimarySelectionSourceV1Offer}:                      offerType,
		{proto.IZwpPrimarySelectionOfferV1, proto.OpZwpPrimarySelectionOfferV1Receive}:                      receiveOffer,
		{proto.IWpImageDescriptionCreatorIccV1, proto.OpWpImageDescriptionCreatorIccV1SetIccFile}:           setICC,
		{proto.IWpImageDescriptionV1, proto.OpWpImageDescriptionV1GetInformation}:                           getInformation,
	}
}

func displaySync(cl *client, _ *object, m wire.Message) error {
	var a proto.WlDisplaySyncRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	cl.done(wire.ID(a.Callback))
	return nil
}

// global is an interface that the registry offers; its name is its index + 1.
type global struct {
	iface   proto.InterfaceID
	version uint32
}

func (c *Compositor) globals() []global {
	out := []global{{proto.IWlCompositor, or(c.cfg.Compositor, 6)}, {proto.IWlSubcompositor, 1}, {proto.IWlShm, 1}}
	if !c.cfg.NoXdgShell {
		out = append(out, global{proto.IXdgWmBase, 6})
	}
	if !c.cfg.NoViewporter {
		out = append(out, global{proto.IWpViewporter, 1})
	}
	if c.cfg.DMABuf > 0 {
		out = append(out, global{proto.IZwpLinuxDmabufV1, c.cfg.DMABuf})
	}
	if c.cfg.Seat {
		out = append(out, global{proto.IWlSeat, or(c.cfg.SeatVersion, 7)})
	}
	if c.cfg.Sync != nil {
		out = append(out, global{proto.IWpLinuxDrmSyncobjManagerV1, 1})
	}
	if c.cfg.Fractional != 0 {
		out = append(out, global{proto.IWpFractionalScaleManagerV1, 1})
	}
	if c.cfg.Scale != 0 {
		out = append(out, global{proto.IWlOutput, 4})
	}
	if c.cfg.Decorations {
		out = append(out, global{proto.IZxdgDecorationManagerV1, 1})
	}
	if c.cfg.Presentation {
		out = append(out, global{proto.IWpPresentation, 2}, global{proto.IWpCommitTimingManagerV1, 1})
	}
	if c.cfg.Selection {
		out = append(out, global{proto.IWlDataDeviceManager, 3}, global{proto.IZwpPrimarySelectionDeviceManagerV1, 1})
	}
	if c.cfg.ICC != "" {
		out = append(out, global{proto.IWpColorManagerV1, 1})
	}
	for _, g := range c.cfg.More {
		if id := proto.Lookup(g.Name); id != 0 {
			out = append(out, global{id, g.Version})
		}
	}
	if c.cfg.Security {
		out = append(out, global{proto.IWpSecurityContextManagerV1, 1})
	}
	return out
}

func getRegistry(cl *client, _ *object, m wire.Message) error {
	var a proto.WlDisplayGetRegistryRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	for i, g := range cl.c.globals() {
		if g.iface == proto.IWpSecurityContextManagerV1 && cl.sandbox != nil {
			continue
		}
		a.Registry.SendGlobal(cl.out(), uint32(i+1), g.iface.String(), g.version)
	}
	for i, g := range cl.c.cfg.More {
		if proto.Lookup(g.Name) == 0 {
			a.Registry.SendGlobal(cl.out(), uint32(i+1000), g.Name, g.Version)
		}
	}
	return nil
}

func bind(cl *client, _ *object, m wire.Message) error {
	var a proto.WlRegistryBindRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	list := cl.c.globals()
	if a.Name == 0 || int(a.Name) > len(list) || list[a.Name-1].iface.String() != a.Iface || a.Version == 0 || a.Version > list[a.Name-1].version {
		return fmt.Errorf("no global %d of %s version %d", a.Name, a.Iface, a.Version)
	}
	switch list[a.Name-1].iface {
	case proto.IWlShm:
		shm := proto.WlShm(a.Id)
		shm.SendFormat(cl.out(), proto.WlShmFormatArgb8888)
		shm.SendFormat(cl.out(), proto.WlShmFormatXrgb8888)
		for _, f := range cl.c.cfg.ShmFormats {
			shm.SendFormat(cl.out(), proto.WlShmFormat(f))
		}
	case proto.IXdgWmBase:
		cl.wmBase = a.Id
	case proto.IZwpLinuxDmabufV1:
		cl.dmabuf = a.Id
		cl.sendModifiers(a.Version)
	case proto.IWlSeat:
		proto.WlSeat(a.Id).SendCapabilities(cl.out(), cl.c.cfg.Devices|proto.WlSeatCapabilityPointer)
	case proto.IWpPresentation:
		proto.WpPresentation(a.Id).SendClockId(cl.out(), cl.c.cfg.Clock)
	case proto.IWlOutput:
		cl.output = proto.WlOutput(a.Id)
		cl.output.SendScale(cl.out(), cl.c.cfg.Scale)
		cl.output.SendDone(cl.out())
	}
	return nil
}

func pong(cl *client, _ *object, m wire.Message) error {
	var a proto.XdgWmBasePongRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	cl.pongs = append(cl.pongs, a.Serial)
	return nil
}

func getPointer(cl *client, _ *object, m wire.Message) error {
	var a proto.WlSeatGetPointerRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	cl.pointer = wire.ID(a.Id)
	return nil
}

func getKeyboard(cl *client, _ *object, m wire.Message) error {
	var a proto.WlSeatGetKeyboardRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	cl.keyboard = a.Id
	text := cl.c.cfg.Keymap
	a.Id.SendKeymap(cl.out(), proto.WlKeyboardKeymapFormatXkbV1, memfdOf("keymap", text), uint32(len(text)))
	return nil
}

func getTouch(cl *client, _ *object, m wire.Message) error {
	var a proto.WlSeatGetTouchRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	cl.touch = a.Id
	return nil
}

// or returns v, or other if v is 0.
func or(v, other uint32) uint32 {
	if v == 0 {
		return other
	}
	return v
}

func setCursor(cl *client, _ *object, m wire.Message) error {
	var a proto.WlPointerSetCursorRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	cl.c.mu.Lock()
	cl.c.cursors = append(cl.c.cursors, Pointer{a.Serial, uint32(a.Surface)})
	cl.c.mu.Unlock()
	return nil
}

// region is a wl_region that grew by one rectangle, which is all we need.
type region struct{ rect display.Rect }

func createRegion(cl *client, _ *object, m wire.Message) error {
	var a proto.WlCompositorCreateRegionRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	cl.objects[wire.ID(a.Id)].data = &region{}
	return nil
}

func regionAdd(_ *client, o *object, m wire.Message) error {
	var a proto.WlRegionAddRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	o.data.(*region).rect = rect(a.X, a.Y, a.Width, a.Height)
	return nil
}

func rect(x, y, w, h int32) display.Rect {
	return display.Rect{X: uint32(x), Y: uint32(y), W: uint32(w), H: uint32(h)}
}

// pool is a wl_shm_pool.
type pool struct {
	fd   *dmabuf.FD
	size int32
}
