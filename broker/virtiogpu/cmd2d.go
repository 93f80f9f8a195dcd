package virtiogpu

// Sizes of the 2D commands' structs, header included, in bytes.
const (
	SizeResourceCreate2D      = 40
	SizeResourceUnref         = 32
	SizeSetScanout            = 48
	SizeResourceFlush         = 48
	SizeTransferToHost2D      = 56
	SizeResourceAttachBacking = 32
	SizeResourceDetachBacking = 32
	SizeGetEDID               = 32
	SizeResourceAssignUUID    = 32
)

// ResourceCreate2D is RESOURCE_CREATE_2D: make a 2D resource.
type ResourceCreate2D struct {
	CtrlHdr
	ResourceID uint32 // chosen by the guest, not 0
	Format     Format
	Width      uint32 // pixels
	Height     uint32 // pixels
}

func (c *ResourceCreate2D) wire(x *codec) {
	x.hdr(&c.CtrlHdr)
	x.u32(&c.ResourceID)
	x.u32((*uint32)(&c.Format))
	x.u32(&c.Width)
	x.u32(&c.Height)
}

// Decode reads the command at the start of p.
func (c *ResourceCreate2D) Decode(p []byte) error {
	x, err := reader(p, SizeResourceCreate2D, CmdResourceCreate2D)
	if err != nil {
		return err
	}
	c.wire(&x)
	return nil
}

// Append appends the command to dst; a Type of 0 becomes its own.
func (c *ResourceCreate2D) Append(dst []byte) []byte {
	x := writer(dst, &c.CtrlHdr, CmdResourceCreate2D)
	c.wire(&x)
	return x.p
}

// ResourceUnref is RESOURCE_UNREF: destroy a resource.
type ResourceUnref struct {
	CtrlHdr
	ResourceID uint32
}

func (c *ResourceUnref) wire(x *codec) {
	x.resource(&c.CtrlHdr, &c.ResourceID)
}

// Decode reads the command at the start of p.
func (c *ResourceUnref) Decode(p []byte) error {
	x, err := reader(p, SizeResourceUnref, CmdResourceUnref)
	if err != nil {
		return err
	}
	c.wire(&x)
	return nil
}

// Append appends the command to dst; a Type of 0 becomes its own.
func (c *ResourceUnref) Append(dst []byte) []byte {
	x := writer(dst, &c.CtrlHdr, CmdResourceUnref)
	c.wire(&x)
	return x.p
}

// SetScanout is SET_SCANOUT: show a rectangle of a resource on a scanout.
type SetScanout struct {
	CtrlHdr
	R          Rect // pixels of the resource
	ScanoutID  uint32
	ResourceID uint32 // 0 turns the scanout off
}

func (c *SetScanout) wire(x *codec) {
	x.hdr(&c.CtrlHdr)
	x.rect(&c.R)
	x.u32(&c.ScanoutID)
	x.u32(&c.ResourceID)
}

// Decode reads the command at the start of p.
func (c *SetScanout) Decode(p []byte) error {
	x, err := reader(p, SizeSetScanout, CmdSetScanout)
	if err != nil {
		return err
	}
	c.wire(&x)
	return nil
}

// Append appends the command to dst; a Type of 0 becomes its own.
func (c *SetScanout) Append(dst []byte) []byte {
	x := writer(dst, &c.CtrlHdr, CmdSetScanout)
	c.wire(&x)
	return x.p
}

// ResourceFlush is RESOURCE_FLUSH: a rectangle of a resource is ready to be
// shown wherever it is scanned out.
type ResourceFlush struct {
	CtrlHdr
	R          Rect // pixels of the resource
	ResourceID uint32
}

func (c *ResourceFlush) wire(x *codec) {
	x.hdr(&c.CtrlHdr)
	x.rect(&c.R)
	x.u32(&c.ResourceID)
	x.pad(4)
}

// Decode reads the command at the start of p.
func (c *ResourceFlush) Decode(p []byte) error {
	x, err := reader(p, SizeResourceFlush, CmdResourceFlush)
	if err != nil {
		return err
	}
	c.wire(&x)
	return nil
}

// Append appends the command to dst; a Type of 0 becomes its own.
func (c *ResourceFlush) Append(dst []byte) []byte {
	x := writer(dst, &c.CtrlHdr, CmdResourceFlush)
	c.wire(&x)
	return x.p
}

// TransferToHost2D is TRANSFER_TO_HOST_2D: copy a rectangle from the backing.
type TransferToHost2D struct {
	CtrlHdr
	R          Rect   // pixels of the resource
	Offset     uint64 // bytes into the backing, of the rectangle's first pixel
	ResourceID uint32
}

func (c *TransferToHost2D) wire(x *codec) {
	x.hdr(&c.CtrlHdr)
	x.rect(&c.R)
	x.u64(&c.Offset)
	x.u32(&c.ResourceID)
	x.pad(4)
}

// Decode reads the command at the start of p.
func (c *TransferToHost2D) Decode(p []byte) error {
	x, err := reader(p, SizeTransferToHost2D, CmdTransferToHost2D)
	if err != nil {
		return err
	}
	c.wire(&x)
	return nil
}

// Append appends the command to dst; a Type of 0 becomes its own.
func (c *TransferToHost2D) Append(dst []byte) []byte {
	x := writer(dst, &c.CtrlHdr, CmdTransferToHost2D)
	c.wire(&x)
	return x.p
}

// ResourceAttachBacking is RESOURCE_ATTACH_BACKING: give a resource guest
// pages. NrEntries memory entries follow the struct, see [DecodeEntries].
type ResourceAttachBacking struct {
	CtrlHdr
	ResourceID uint32
	NrEntries  uint32 // limit MaxMemEntries
}

func (c *ResourceAttachBacking) wire(x *codec) {
	x.hdr(&c.CtrlHdr)
	x.u32(&c.ResourceID)
	x.u32(&c.NrEntries)
}

// Decode reads the command at the start of p.
func (c *ResourceAttachBacking) Decode(p []byte) error {
	x, err := reader(p, SizeResourceAttachBacking, CmdResourceAttachBacking)
	if err != nil {
		return err
	}
	c.wire(&x)
	return nil
}

// Append appends the command to dst; a Type of 0 becomes its own.
func (c *ResourceAttachBacking) Append(dst []byte) []byte {
	x := writer(dst, &c.CtrlHdr, CmdResourceAttachBacking)
	c.wire(&x)
	return x.p
}

// ResourceDetachBacking is RESOURCE_DETACH_BACKING: take the pages away.
type ResourceDetachBacking struct {
	CtrlHdr
	ResourceID uint32
}

func (c *ResourceDetachBacking) wire(x *codec) {
	x.resource(&c.CtrlHdr, &c.ResourceID)
}

// Decode reads the command at the start of p.
func (c *ResourceDetachBacking) Decode(p []byte) error {
	x, err := reader(p, SizeResourceDetachBacking, CmdResourceDetachBacking)
	if err != nil {
		return err
	}
	c.wire(&x)
	return nil
}

// Append appends the command to dst; a Type of 0 becomes its own.
func (c *ResourceDetachBacking) Append(dst []byte) []byte {
	x := writer(dst, &c.CtrlHdr, CmdResourceDetachBacking)
	c.wire(&x)
	return x.p
}

// GetEDID is GET_EDID: ask for a scanout's EDID.
type GetEDID struct {
	CtrlHdr
	Scanout uint32
}

func (c *GetEDID) wire(x *codec) {
	x.resource(&c.CtrlHdr, &c.Scanout)
}

// Decode reads the command at the start of p.
func (c *GetEDID) Decode(p []byte) error {
	x, err := reader(p, SizeGetEDID, CmdGetEDID)
	if err != nil {
		return err
	}
	c.wire(&x)
	return nil
}

// Append appends the command to dst; a Type of 0 becomes its own.
func (c *GetEDID) Append(dst []byte) []byte {
	x := writer(dst, &c.CtrlHdr, CmdGetEDID)
	c.wire(&x)
	return x.p
}

// ResourceAssignUUID is RESOURCE_ASSIGN_UUID: name a resource for other virtio
// devices.
type ResourceAssignUUID struct {
	CtrlHdr
	ResourceID uint32
}

func (c *ResourceAssignUUID) wire(x *codec) {
	x.resource(&c.CtrlHdr, &c.ResourceID)
}

// Decode reads the command at the start of p.
func (c *ResourceAssignUUID) Decode(p []byte) error {
	x, err := reader(p, SizeResourceAssignUUID, CmdResourceAssignUUID)
	if err != nil {
		return err
	}
	c.wire(&x)
	return nil
}

// Append appends the command to dst; a Type of 0 becomes its own.
func (c *ResourceAssignUUID) Append(dst []byte) []byte {
	x := writer(dst, &c.CtrlHdr, CmdResourceAssignUUID)
	c.wire(&x)
	return x.p
}
