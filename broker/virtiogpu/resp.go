package virtiogpu

import "fmt"

// Sizes of the responses' structs, header included, in bytes.
const (
	SizeDisplayInfo  = 408
	SizeCapsetInfo   = 40
	SizeEDID         = 1056
	SizeResourceUUID = 40
	SizeMapInfo      = 32
)

// MaxEDID is the most bytes of EDID that a response carries.
const MaxEDID = 1024

// DisplayMode is struct virtio_gpu_display_one.
type DisplayMode struct {
	R       Rect // pixels
	Enabled uint32
	Flags   uint32
}

// DisplayInfo is RESP_OK_DISPLAY_INFO.
type DisplayInfo struct {
	CtrlHdr
	Modes [MaxScanouts]DisplayMode
}

func (r *DisplayInfo) wire(x *codec) {
	x.hdr(&r.CtrlHdr)
	for i := range r.Modes {
		m := &r.Modes[i]
		x.rect(&m.R)
		x.u32(&m.Enabled)
		x.u32(&m.Flags)
	}
}

// Decode reads the response at the start of p.
func (r *DisplayInfo) Decode(p []byte) error {
	x, err := reader(p, SizeDisplayInfo, RespOKDisplayInfo)
	if err != nil {
		return err
	}
	r.wire(&x)
	return nil
}

// Append appends the response to dst; a Type of 0 becomes its own.
func (r *DisplayInfo) Append(dst []byte) []byte {
	x := writer(dst, &r.CtrlHdr, RespOKDisplayInfo)
	r.wire(&x)
	return x.p
}

// CapsetInfo is RESP_OK_CAPSET_INFO.
type CapsetInfo struct {
	CtrlHdr
	CapsetID         uint32
	CapsetMaxVersion uint32
	CapsetMaxSize    uint32 // bytes
}

func (r *CapsetInfo) wire(x *codec) {
	x.hdr(&r.CtrlHdr)
	x.u32(&r.CapsetID)
	x.u32(&r.CapsetMaxVersion)
	x.u32(&r.CapsetMaxSize)
	x.pad(4)
}

// Decode reads the response at the start of p.
func (r *CapsetInfo) Decode(p []byte) error {
	x, err := reader(p, SizeCapsetInfo, RespOKCapsetInfo)
	if err != nil {
		return err
	}
	r.wire(&x)
	return nil
}

// Append appends the response to dst; a Type of 0 becomes its own.
func (r *CapsetInfo) Append(dst []byte) []byte {
	x := writer(dst, &r.CtrlHdr, RespOKCapsetInfo)
	r.wire(&x)
	return x.p
}

// EDID is RESP_OK_EDID.
type EDID struct {
	CtrlHdr
	Size uint32 // bytes of Data in use
	Data [MaxEDID]byte
}

func (r *EDID) wire(x *codec) {
	x.hdr(&r.CtrlHdr)
	x.u32(&r.Size)
	x.pad(4)
	x.bytes(r.Data[:])
}

// Decode reads the response at the start of p and checks Size against Data.
func (r *EDID) Decode(p []byte) error {
	x, err := reader(p, SizeEDID, RespOKEDID)
	if err != nil {
		return err
	}
	r.wire(&x)
	if r.Size > MaxEDID {
		return &OpError{Op: "decode", Type: RespOKEDID, Err: fmt.Errorf("%w: size %d bytes, limit %d",
			ErrInvalidParameter, r.Size, MaxEDID)}
	}
	return nil
}

// Append appends the response to dst; a Type of 0 becomes its own.
func (r *EDID) Append(dst []byte) []byte {
	x := writer(dst, &r.CtrlHdr, RespOKEDID)
	r.wire(&x)
	return x.p
}

// Bytes returns the EDID itself, a part of r.
func (r *EDID) Bytes() []byte { return r.Data[:min(r.Size, MaxEDID)] }

// ResourceUUID is RESP_OK_RESOURCE_UUID.
type ResourceUUID struct {
	CtrlHdr
	UUID [16]byte
}

func (r *ResourceUUID) wire(x *codec) {
	x.hdr(&r.CtrlHdr)
	x.bytes(r.UUID[:])
}

// Decode reads the response at the start of p.
func (r *ResourceUUID) Decode(p []byte) error {
	x, err := reader(p, SizeResourceUUID, RespOKResourceUUID)
	if err != nil {
		return err
	}
	r.wire(&x)
	return nil
}

// Append appends the response to dst; a Type of 0 becomes its own.
func (r *ResourceUUID) Append(dst []byte) []byte {
	x := writer(dst, &r.CtrlHdr, RespOKResourceUUID)
	r.wire(&x)
	return x.p
}

// MapInfo is RESP_OK_MAP_INFO.
type MapInfo struct {
	CtrlHdr
	MapInfo uint32 // MapCacheCached, …
}

func (r *MapInfo) wire(x *codec) { x.resource(&r.CtrlHdr, &r.MapInfo) }

// Decode reads the response at the start of p.
func (r *MapInfo) Decode(p []byte) error {
	x, err := reader(p, SizeMapInfo, RespOKMapInfo)
	if err != nil {
		return err
	}
	r.wire(&x)
	return nil
}

// Append appends the response to dst; a Type of 0 becomes its own.
func (r *MapInfo) Append(dst []byte) []byte {
	x := writer(dst, &r.CtrlHdr, RespOKMapInfo)
	r.wire(&x)
	return x.p
}
