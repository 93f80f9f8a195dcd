package virtiogpu

import "fmt"

// Type is the type field of a header: a command or a response (enum
// virtio_gpu_ctrl_type).
type Type uint32

// Commands of the 2D set, on the control queue.
const (
	CmdGetDisplayInfo Type = 0x0100 + iota
	CmdResourceCreate2D
	CmdResourceUnref
	CmdSetScanout
	CmdResourceFlush
	CmdTransferToHost2D
	CmdResourceAttachBacking
	CmdResourceDetachBacking
	CmdGetCapsetInfo
	CmdGetCapset
	CmdGetEDID
	CmdResourceAssignUUID
	CmdResourceCreateBlob
	CmdSetScanoutBlob
)

// Commands of the 3D set, on the control queue.
const (
	CmdCtxCreate Type = 0x0200 + iota
	CmdCtxDestroy
	CmdCtxAttachResource
	CmdCtxDetachResource
	CmdResourceCreate3D
	CmdTransferToHost3D
	CmdTransferFromHost3D
	CmdSubmit3D
	CmdResourceMapBlob
	CmdResourceUnmapBlob
)

// Commands of the cursor queue.
const (
	CmdUpdateCursor Type = 0x0300 + iota
	CmdMoveCursor
)

// Responses that say yes.
const (
	RespOKNoData Type = 0x1100 + iota
	RespOKDisplayInfo
	RespOKCapsetInfo
	RespOKCapset
	RespOKEDID
	RespOKResourceUUID
	RespOKMapInfo
)

// Responses that say no.
const (
	RespErrUnspec Type = 0x1200 + iota
	RespErrOutOfMemory
	RespErrInvalidScanoutID
	RespErrInvalidResourceID
	RespErrInvalidContextID
	RespErrInvalidParameter
)

// IsOK reports whether t is one of RESP_OK_*.
func (t Type) IsOK() bool { return t >= RespOKNoData && t <= RespOKMapInfo }

var respNames = map[Type]string{
	RespOKNoData:             "RESP_OK_NODATA",
	RespOKDisplayInfo:        "RESP_OK_DISPLAY_INFO",
	RespOKCapsetInfo:         "RESP_OK_CAPSET_INFO",
	RespOKCapset:             "RESP_OK_CAPSET",
	RespOKEDID:               "RESP_OK_EDID",
	RespOKResourceUUID:       "RESP_OK_RESOURCE_UUID",
	RespOKMapInfo:            "RESP_OK_MAP_INFO",
	RespErrUnspec:            "RESP_ERR_UNSPEC",
	RespErrOutOfMemory:       "RESP_ERR_OUT_OF_MEMORY",
	RespErrInvalidScanoutID:  "RESP_ERR_INVALID_SCANOUT_ID",
	RespErrInvalidResourceID: "RESP_ERR_INVALID_RESOURCE_ID",
	RespErrInvalidContextID:  "RESP_ERR_INVALID_CONTEXT_ID",
	RespErrInvalidParameter:  "RESP_ERR_INVALID_PARAMETER",
}

// String returns the name without its VIRTIO_GPU_ or VIRTIO_GPU_CMD_ prefix:
// "RESOURCE_FLUSH", "RESP_OK_NODATA", or "type(0x…)".
func (t Type) String() string {
	if c := Lookup(t); c != nil {
		return c.Name
	}
	if s, ok := respNames[t]; ok {
		return s
	}
	return fmt.Sprintf("type(%#x)", uint32(t))
}

// Feature bits (virtio spec 5.7.3).
const (
	FeatureVirgl        = 0
	FeatureEDID         = 1
	FeatureResourceUUID = 2
	FeatureResourceBlob = 3
	FeatureContextInit  = 4
)

// Flags of a header.
const (
	FlagFence       = 1 << 0 // answer when the work is done; fence_id is valid
	FlagInfoRingIdx = 1 << 1 // ring_idx is valid (needs FeatureContextInit)
)

// MaxScanouts is VIRTIO_GPU_MAX_SCANOUTS.
const MaxScanouts = 16

// EventDisplay is VIRTIO_GPU_EVENT_DISPLAY in events_read: the guest should ask
// for the display info again.
const EventDisplay = 1 << 0

// ResourceFlagY0Top is VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP of RESOURCE_CREATE_3D.
const ResourceFlagY0Top = 1 << 0

// ContextInitCapsetMask selects the capset id in CTX_CREATE's context_init.
const ContextInitCapsetMask = 0xff

// Values of RESOURCE_CREATE_BLOB's blob_mem.
const (
	BlobMemGuest       = 1
	BlobMemHost3D      = 2
	BlobMemHost3DGuest = 3
)

// Bits of RESOURCE_CREATE_BLOB's blob_flags.
const (
	BlobFlagMappable    = 1 << 0
	BlobFlagShareable   = 1 << 1
	BlobFlagCrossDevice = 1 << 2
)

// Values of RESP_OK_MAP_INFO's map_info under MapCacheMask.
const (
	MapCacheMask     = 0x0f
	MapCacheNone     = 0
	MapCacheCached   = 1
	MapCacheUncached = 2
	MapCacheWC       = 3
)

// ShmIDHostVisible is VIRTIO_GPU_SHM_ID_HOST_VISIBLE, the shared memory region
// that RESOURCE_MAP_BLOB maps into.
const ShmIDHostVisible = 1
