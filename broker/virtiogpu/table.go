package virtiogpu

// QueueKind is the queue that a command belongs to; its value is the index of
// the virtqueue.
type QueueKind uint8

// The two queues of a virtio-gpu device.
const (
	ControlQueue QueueKind = 0
	CursorQueue  QueueKind = 1
)

// NumCommands is the number of commands that exist; [Type.Index] is below it.
const NumCommands = 26

// Command describes one command on the wire.
type Command struct {
	Type Type
	Name string
	// MinSize is the size of the fixed struct, header included, in bytes.
	// Memory entries or a command stream may follow it.
	MinSize int
	// Resp is the response on success and RespSize its size in bytes; a capset's
	// bytes follow the 24 of RespOKCapset.
	Resp     Type
	RespSize int
	Queue    QueueKind
}

// Commands lists every command in the order of [Type.Index]. Do not change it.
var Commands = [NumCommands]Command{
	{CmdGetDisplayInfo, "GET_DISPLAY_INFO", SizeCtrlHdr, RespOKDisplayInfo, SizeDisplayInfo, ControlQueue},
	{CmdResourceCreate2D, "RESOURCE_CREATE_2D", SizeResourceCreate2D, RespOKNoData, SizeCtrlHdr, ControlQueue},
	{CmdResourceUnref, "RESOURCE_UNREF", SizeResourceUnref, RespOKNoData, SizeCtrlHdr, ControlQueue},
	{CmdSetScanout, "SET_SCANOUT", SizeSetScanout, RespOKNoData, SizeCtrlHdr, ControlQueue},
	{CmdResourceFlush, "RESOURCE_FLUSH", SizeResourceFlush, RespOKNoData, SizeCtrlHdr, ControlQueue},
	{CmdTransferToHost2D, "TRANSFER_TO_HOST_2D", SizeTransferToHost2D, RespOKNoData, SizeCtrlHdr, ControlQueue},
	{CmdResourceAttachBacking, "RESOURCE_ATTACH_BACKING", SizeResourceAttachBacking, RespOKNoData, SizeCtrlHdr, ControlQueue},
	{CmdResourceDetachBacking, "RESOURCE_DETACH_BACKING", SizeResourceDetachBacking, RespOKNoData, SizeCtrlHdr, ControlQueue},
	{CmdGetCapsetInfo, "GET_CAPSET_INFO", SizeGetCapsetInfo, RespOKCapsetInfo, SizeCapsetInfo, ControlQueue},
	{CmdGetCapset, "GET_CAPSET", SizeGetCapset, RespOKCapset, SizeCtrlHdr, ControlQueue},
	{CmdGetEDID, "GET_EDID", SizeGetEDID, RespOKEDID, SizeEDID, ControlQueue},
	{CmdResourceAssignUUID, "RESOURCE_ASSIGN_UUID", SizeResourceAssignUUID, RespOKResourceUUID, SizeResourceUUID, ControlQueue},
	{CmdResourceCreateBlob, "RESOURCE_CREATE_BLOB", SizeResourceCreateBlob, RespOKNoData, SizeCtrlHdr, ControlQueue},
	{CmdSetScanoutBlob, "SET_SCANOUT_BLOB", SizeSetScanoutBlob, RespOKNoData, SizeCtrlHdr, ControlQueue},

	{CmdCtxCreate, "CTX_CREATE", SizeCtxCreate, RespOKNoData, SizeCtrlHdr, ControlQueue},
	{CmdCtxDestroy, "CTX_DESTROY", SizeCtrlHdr, RespOKNoData, SizeCtrlHdr, ControlQueue},
	{CmdCtxAttachResource, "CTX_ATTACH_RESOURCE", SizeCtxResource, RespOKNoData, SizeCtrlHdr, ControlQueue},
	{CmdCtxDetachResource, "CTX_DETACH_RESOURCE", SizeCtxResource, RespOKNoData, SizeCtrlHdr, ControlQueue},
	{CmdResourceCreate3D, "RESOURCE_CREATE_3D", SizeResourceCreate3D, RespOKNoData, SizeCtrlHdr, ControlQueue},
	{CmdTransferToHost3D, "TRANSFER_TO_HOST_3D", SizeTransferHost3D, RespOKNoData, SizeCtrlHdr, ControlQueue},
	{CmdTransferFromHost3D, "TRANSFER_FROM_HOST_3D", SizeTransferHost3D, RespOKNoData, SizeCtrlHdr, ControlQueue},
	{CmdSubmit3D, "SUBMIT_3D", SizeSubmit3D, RespOKNoData, SizeCtrlHdr, ControlQueue},
	{CmdResourceMapBlob, "RESOURCE_MAP_BLOB", SizeResourceMapBlob, RespOKMapInfo, SizeMapInfo, ControlQueue},
	{CmdResourceUnmapBlob, "RESOURCE_UNMAP_BLOB", SizeResourceUnmapBlob, RespOKNoData, SizeCtrlHdr, ControlQueue},

	{CmdUpdateCursor, "UPDATE_CURSOR", SizeUpdateCursor, RespOKNoData, SizeCtrlHdr, CursorQueue},
	{CmdMoveCursor, "MOVE_CURSOR", SizeUpdateCursor, RespOKNoData, SizeCtrlHdr, CursorQueue},
}

// Index returns the command's place in [Commands], for a table of handlers, or
// -1 if t is no command.
func (t Type) Index() int {
	switch {
	case t >= CmdGetDisplayInfo && t <= CmdSetScanoutBlob:
		return int(t - CmdGetDisplayInfo)
	case t >= CmdCtxCreate && t <= CmdResourceUnmapBlob:
		return int(t-CmdCtxCreate) + 14
	case t >= CmdUpdateCursor && t <= CmdMoveCursor:
		return int(t-CmdUpdateCursor) + 24
	}
	return -1
}

// Lookup returns the command's description, nil if t is no command.
func Lookup(t Type) *Command {
	i := t.Index()
	if i < 0 {
		return nil
	}
	return &Commands[i]
}
