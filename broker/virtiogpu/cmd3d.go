package virtiogpu

import (
	"bytes"
	"fmt"
)

// Sizes of the 3D commands' structs, header included, in bytes.
const (
	SizeGetCapsetInfo    = 32
	SizeGetCapset        = 32
	SizeCtxCreate        = 96
	SizeCtxResource      = 32
	SizeResourceCreate3D = 72
	SizeTransferHost3D   = 72
	SizeSubmit3D         = 32
)

// GetCapsetInfo is GET_CAPSET_INFO: ask about the capset at an index.
type GetCapsetInfo struct {
	CtrlHdr
	CapsetIndex uint32 // below config's num_capsets
}

func (c *GetCapsetInfo) wire(x *codec) {
	x.resource(&c.CtrlHdr, &c.CapsetIndex)
}

// Decode reads the command at the start of p.
func (c *GetCapsetInfo) Decode(p []byte) error {
	x, err := reader(p, SizeGetCapsetInfo, CmdGetCapsetInfo)
	if err != nil {
		return err
	}
	c.wire(&x)
	return nil
}

// Append appends the command to dst; a Type of 0 becomes its own.
func (c *GetCapsetInfo) Append(dst []byte) []byte {
	x := writer(dst, &c.CtrlHdr, CmdGetCapsetInfo)
	c.wire(&x)
	return x.p
}

// GetCapset is GET_CAPSET: ask for a capset's bytes.
type GetCapset struct {
	CtrlHdr
	CapsetID      uint32
	CapsetVersion uint32
}

func (c *GetCapset) wire(x *codec) {
	x.hdr(&c.CtrlHdr)
	x.u32(&c.CapsetID)
	x.u32(&c.CapsetVersion)
}

// Decode reads the command at the start of p.
func (c *GetCapset) Decode(p []byte) error {
	x, err := reader(p, SizeGetCapset, CmdGetCapset)
	if err != nil {
		return err
	}
	c.wire(&x)
	return nil
}

// Append appends the command to dst; a Type of 0 becomes its own.
func (c *GetCapset) Append(dst []byte) []byte {
	x := writer(dst, &c.CtrlHdr, CmdGetCapset)
	c.wire(&x)
	return x.p
}

// CtxCreate is CTX_CREATE; the new context's id is in the header.
type CtxCreate struct {
	CtrlHdr
	NLen        uint32   // bytes of Name in use
	ContextInit uint32   // capset id under ContextInitCapsetMask
	Name        [64]byte // for debugging
}

func (c *CtxCreate) wire(x *codec) {
	x.hdr(&c.CtrlHdr)
	x.u32(&c.NLen)
	x.u32(&c.ContextInit)
	x.bytes(c.Name[:])
}

// Decode reads the command at the start of p.
func (c *CtxCreate) Decode(p []byte) error {
	x, err := reader(p, SizeCtxCreate, CmdCtxCreate)
	if err != nil {
		return err
	}
	c.wire(&x)
	return nil
}

// Append appends the command to dst; a Type of 0 becomes its own.
func (c *CtxCreate) Append(dst []byte) []byte {
	x := writer(dst, &c.CtrlHdr, CmdCtxCreate)
	c.wire(&x)
	return x.p
}

// CtxResource is CTX_ATTACH_RESOURCE or CTX_DETACH_RESOURCE.
type CtxResource struct {
	CtrlHdr
	ResourceID uint32
}

func (c *CtxResource) wire(x *codec) {
	x.resource(&c.CtrlHdr, &c.ResourceID)
}

// Decode reads the command at the start of p.
func (c *CtxResource) Decode(p []byte) error {
	x, err := reader(p, SizeCtxResource, CmdCtxAttachResource)
	if err != nil {
		return err
	}
	c.wire(&x)
	return nil
}

// Append appends the command to dst; the caller sets Type.
func (c *CtxResource) Append(dst []byte) []byte {
	x := writer(dst, &c.CtrlHdr, CmdCtxAttachResource)
	c.wire(&x)
	return x.p
}

// ResourceCreate3D is RESOURCE_CREATE_3D; the values are virgl's.
type ResourceCreate3D struct {
	CtrlHdr
	ResourceID uint32 // chosen by the guest, not 0
	Target     uint32
	Format     uint32 // a virgl format
	Bind       uint32
	Width      uint32
	Height     uint32
	Depth      uint32
	ArraySize  uint32
	LastLevel  uint32
	NrSamples  uint32
	Flags      uint32 // ResourceFlagY0Top
}

func (c *ResourceCreate3D) wire(x *codec) {
	x.hdr(&c.CtrlHdr)
	x.u32(&c.ResourceID)
	x.u32(&c.Target)
	x.u32(&c.Format)
	x.u32(&c.Bind)
	x.u32(&c.Width)
	x.u32(&c.Height)
	x.u32(&c.Depth)
	x.u32(&c.ArraySize)
	x.u32(&c.LastLevel)
	x.u32(&c.NrSamples)
	x.u32(&c.Flags)
	x.pad(4)
}

// Decode reads the command at the start of p.
func (c *ResourceCreate3D) Decode(p []byte) error {
	x, err := reader(p, SizeResourceCreate3D, CmdResourceCreate3D)
	if err != nil {
		return err
	}
	c.wire(&x)
	return nil
}

// Append appends the command to dst; a Type of 0 becomes its own.
func (c *ResourceCreate3D) Append(dst []byte) []byte {
	x := writer(dst, &c.CtrlHdr, CmdResourceCreate3D)
	c.wire(&x)
	return x.p
}

// TransferHost3D is TRANSFER_TO_HOST_3D or TRANSFER_FROM_HOST_3D.
type TransferHost3D struct {
	CtrlHdr
	Box         Box
	Offset      uint64 // bytes into the backing
	ResourceID  uint32
	Level       uint32
	Stride      uint32 // bytes, 0 = packed
	LayerStride uint32 // bytes, 0 = packed
}

func (c *TransferHost3D) wire(x *codec) {
	x.hdr(&c.CtrlHdr)
	x.u32(&c.Box.X)
	x.u32(&c.Box.Y)
	x.u32(&c.Box.Z)
	x.u32(&c.Box.W)
	x.u32(&c.Box.H)
	x.u32(&c.Box.D)
	x.u64(&c.Offset)
	x.u32(&c.ResourceID)
	x.u32(&c.Level)
	x.u32(&c.Stride)
	x.u32(&c.LayerStride)
}

// Decode reads the command at the start of p.
func (c *TransferHost3D) Decode(p []byte) error {
	x, err := reader(p, SizeTransferHost3D, CmdTransferToHost3D)
	if err != nil {
		return err
	}
	c.wire(&x)
	return nil
}

// Append appends the command to dst; the caller sets Type.
func (c *TransferHost3D) Append(dst []byte) []byte {
	x := writer(dst, &c.CtrlHdr, CmdTransferToHost3D)
	c.wire(&x)
	return x.p
}

// Submit3D is SUBMIT_3D: Size bytes of command stream follow, see
// [Submit3D.Stream].
type Submit3D struct {
	CtrlHdr
	Size uint32 // bytes, limit MaxCommandSize
}

func (c *Submit3D) wire(x *codec) {
	x.resource(&c.CtrlHdr, &c.Size)
}

// Decode reads the command at the start of p.
func (c *Submit3D) Decode(p []byte) error {
	x, err := reader(p, SizeSubmit3D, CmdSubmit3D)
	if err != nil {
		return err
	}
	c.wire(&x)
	return nil
}

// Append appends the command to dst; a Type of 0 becomes its own.
func (c *Submit3D) Append(dst []byte) []byte {
	x := writer(dst, &c.CtrlHdr, CmdSubmit3D)
	c.wire(&x)
	return x.p
}

// DebugName returns the guest's name for the context: Name up to NLen, its end
// or its first NUL.
func (c *CtxCreate) DebugName() string {
	b := c.Name[:min(int(min(c.NLen, 64)), len(c.Name))]
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// Stream returns the command stream that follows the struct in p, Size bytes
// of it. It allocates nothing; the result is part of p.
func (c *Submit3D) Stream(p []byte) ([]byte, error) {
	if len(p) < SizeSubmit3D || uint64(c.Size) > uint64(len(p)-SizeSubmit3D) {
		return nil, &OpError{Op: "decode", Type: CmdSubmit3D, Err: fmt.Errorf("%w: size %d bytes, %d follow",
			ErrInvalidParameter, c.Size, max(len(p)-SizeSubmit3D, 0))}
	}
	return p[SizeSubmit3D : SizeSubmit3D+int(c.Size)], nil
}
