package proxy

import "github.com/gpubroker/gpubroker/broker/wayland/proto"

// handlers are the messages that the proxy does more with than translate ids. The
// descriptors of all other messages are refused, because none is allowed that has any.
var handlers = []struct {
	iface  proto.InterfaceID
	event  bool
	opcode uint16
	f      func(c *client, m *message) error
}{
	{proto.IWlDisplay, false, proto.OpWlDisplayGetRegistry, getRegistry},
	{proto.IWlDisplay, true, proto.EvWlDisplayError, displayError},
	{proto.IWlDisplay, true, proto.EvWlDisplayDeleteId, displayDelete},
	{proto.IWlRegistry, false, proto.OpWlRegistryBind, bind},
	{proto.IWlFixes, false, proto.OpWlFixesDestroyRegistry, destroyRegistry},

	{proto.IWlShm, false, proto.OpWlShmCreatePool, createPool},
	{proto.IWlShm, true, proto.EvWlShmFormat, shmFormat},
	{proto.IWlShmPool, false, proto.OpWlShmPoolCreateBuffer, poolCreateBuffer},
	{proto.IWlShmPool, false, proto.OpWlShmPoolResize, poolResize},
	{proto.IWlShmPool, false, proto.OpWlShmPoolDestroy, poolDestroy},
	{proto.IWlBuffer, false, proto.OpWlBufferDestroy, bufferDestroy},
	{proto.IWlBuffer, true, proto.EvWlBufferRelease, bufferRelease},

	{proto.IZwpLinuxDmabufV1, false, proto.OpZwpLinuxDmabufV1Destroy, virtual},
	{proto.IZwpLinuxDmabufV1, false, proto.OpZwpLinuxDmabufV1CreateParams, createParams},
	{proto.IZwpLinuxDmabufV1, false, proto.OpZwpLinuxDmabufV1GetDefaultFeedback, getFeedback},
	{proto.IZwpLinuxDmabufV1, false, proto.OpZwpLinuxDmabufV1GetSurfaceFeedback, getFeedback},
	{proto.IZwpLinuxDmabufFeedbackV1, false, proto.OpZwpLinuxDmabufFeedbackV1Destroy, destroyFeedback},
	{proto.IZwpLinuxBufferParamsV1, false, proto.OpZwpLinuxBufferParamsV1Destroy, virtual},
	{proto.IZwpLinuxBufferParamsV1, false, proto.OpZwpLinuxBufferParamsV1Add, paramsAdd},
	{proto.IZwpLinuxBufferParamsV1, false, proto.OpZwpLinuxBufferParamsV1Create, paramsCreate},
	{proto.IZwpLinuxBufferParamsV1, false, proto.OpZwpLinuxBufferParamsV1CreateImmed, paramsCreateImmed},
	{proto.IZwpLinuxBufferParamsV1, false, proto.OpZwpLinuxBufferParamsV1SetSamplingDevice, setSamplingDevice},

	{proto.IWlCompositor, false, proto.OpWlCompositorCreateSurface, createSurface},
	{proto.IWlSurface, false, proto.OpWlSurfaceAttach, attach},
	{proto.IWlSurface, false, proto.OpWlSurfaceDamage, damageSurface},
	{proto.IWlSurface, false, proto.OpWlSurfaceDamageBuffer, damageBuffer},
	{proto.IWlSurface, false, proto.OpWlSurfaceSetBufferScale, setBufferScale},
	{proto.IWlSurface, false, proto.OpWlSurfaceSetBufferTransform, setBufferTransform},
	{proto.IWlSurface, false, proto.OpWlSurfaceGetRelease, getRelease},
	{proto.IWlSurface, false, proto.OpWlSurfaceCommit, commit},
	{proto.IWpViewporter, false, proto.OpWpViewporterGetViewport, getViewport},

	{proto.IWlSubcompositor, false, proto.OpWlSubcompositorGetSubsurface, getSubsurface},
	{proto.IXdgWmBase, false, proto.OpXdgWmBaseGetXdgSurface, getXdgSurface},
	{proto.IXdgSurface, false, proto.OpXdgSurfaceGetToplevel, getToplevel},
	{proto.IXdgSurface, false, proto.OpXdgSurfaceGetPopup, getPopup},
	{proto.IXdgToplevel, false, proto.OpXdgToplevelSetTitle, setTitle},
	{proto.IXdgToplevel, false, proto.OpXdgToplevelSetAppId, setAppID},

	{proto.IWlKeyboard, true, proto.EvWlKeyboardKeymap, keymap},
	{proto.IWlDataOffer, false, proto.OpWlDataOfferReceive, receive},
	{proto.IWlDataSource, true, proto.EvWlDataSourceSend, sendSelection},
	{proto.IZwpPrimarySelectionOfferV1, false, proto.OpZwpPrimarySelectionOfferV1Receive, receive},
	{proto.IZwpPrimarySelectionSourceV1, true, proto.EvZwpPrimarySelectionSourceV1Send, sendSelection},
	{proto.IWpImageDescriptionCreatorIccV1, false, proto.OpWpImageDescriptionCreatorIccV1SetIccFile, setICC},
	{proto.IWpImageDescriptionInfoV1, true, proto.EvWpImageDescriptionInfoV1IccFile, iccFile},

	{proto.IWpPresentation, true, proto.EvWpPresentationClockId, presentationClock},
	{proto.IWpPresentationFeedback, true, proto.EvWpPresentationFeedbackPresented, presented},
	{proto.IWpCommitTimerV1, false, proto.OpWpCommitTimerV1SetTimestamp, setTimestamp},
}

// virtual handles requests of objects that the compositor does not know.
func virtual(*client, *message) error { return nil }
