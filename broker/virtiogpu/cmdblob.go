package virtiogpu

// Sizes of the blob commands' structs, header included, in bytes.
const (
	SizeResourceCreateBlob = 56
	SizeSetScanoutBlob     = 96
	SizeResourceMapBlob    = 40
	SizeResourceUnmapBlob  = 32
)

// ResourceCreateBlob is RESOURCE_CREATE_BLOB: make a resource that is bytes.
// NrEntries memory entries follow the struct, see [DecodeEntries].
type ResourceCreateBlob struct {
	CtrlHdr
	ResourceID uint32
	BlobMem    uint32 // BlobMemGuest, …
	BlobFlags  uint32 // BlobFlagMappable, …
	NrEntries  uint32 // limit MaxMemEntries
	BlobID     uint64 // what the context calls it
	Size       uint64 // bytes
}

func (c *ResourceCreateBlob) wire(x *codec) {
	x.hdr(&c.CtrlHdr)
	x.u32(&c.ResourceID)
	x.u32(&c.BlobMem)
	x.u32(&c.BlobFlags)
	x.u32(&c.NrEntries)
	x.u64(&c.BlobID)
	x.u64(&c.Size)
}

// Decode reads the command at the start of p.
func (c *ResourceCreateBlob) Decode(p []byte) error {
	x, err := reader(p, SizeResourceCreateBlob, CmdResourceCreateBlob)
	if err != nil {
		return err
	}
	c.wire(&x)
	return nil
}

// Append appends the command to dst; a Type of 0 becomes its own.
func (c *ResourceCreateBlob) Append(dst []byte) []byte {
	x := writer(dst, &c.CtrlHdr, CmdResourceCreateBlob)
	c.wire(&x)
	return x.p
}

// SetScanoutBlob is SET_SCANOUT_BLOB: show a rectangle of a blob, whose layout
// it tells.
type SetScanoutBlob struct {
	CtrlHdr
	R          Rect // pixels
	ScanoutID  uint32
	ResourceID uint32 // 0 turns the scanout off
	Width      uint32 // pixels
	Height     uint32 // pixels
	Format     Format
	Strides    [4]uint32 // bytes from row to row, per plane
	Offsets    [4]uint32 // bytes from the start of the blob, per plane
}

func (c *SetScanoutBlob) wire(x *codec) {
	x.hdr(&c.CtrlHdr)
	x.rect(&c.R)
	x.u32(&c.ScanoutID)
	x.u32(&c.ResourceID)
	x.u32(&c.Width)
	x.u32(&c.Height)
	x.u32((*uint32)(&c.Format))
	x.pad(4)
	for i := range c.Strides {
		x.u32(&c.Strides[i])
	}
	for i := range c.Offsets {
		x.u32(&c.Offsets[i])
	}
}

// Decode reads the command at the start of p.
func (c *SetScanoutBlob) Decode(p []byte) error {
	x, err := reader(p, SizeSetScanoutBlob, CmdSetScanoutBlob)
	if err != nil {
		return err
	}
	c.wire(&x)
	return nil
}

// Append appends the command to dst; a Type of 0 becomes its own.
func (c *SetScanoutBlob) Append(dst []byte) []byte {
	x := writer(dst, &c.CtrlHdr, CmdSetScanoutBlob)
	c.wire(&x)
	return x.p
}

// ResourceMapBlob is RESOURCE_MAP_BLOB: map a blob into the host-visible window.
type ResourceMapBlob struct {
	CtrlHdr
	ResourceID uint32
	Offset     uint64 // bytes into the window
}

func (c *ResourceMapBlob) wire(x *codec) {
	x.hdr(&c.CtrlHdr)
	x.u32(&c.ResourceID)
	x.pad(4)
	x.u64(&c.Offset)
}

// Decode reads the command at the start of p.
func (c *ResourceMapBlob) Decode(p []byte) error {
	x, err := reader(p, SizeResourceMapBlob, CmdResourceMapBlob)
	if err != nil {
		return err
	}
	c.wire(&x)
	return nil
}

// Append appends the command to dst; a Type of 0 becomes its own.
func (c *ResourceMapBlob) Append(dst []byte) []byte {
	x := writer(dst, &c.CtrlHdr, CmdResourceMapBlob)
	c.wire(&x)
	return x.p
}

// ResourceUnmapBlob is RESOURCE_UNMAP_BLOB: take it out of the window.
type ResourceUnmapBlob struct {
	CtrlHdr
	ResourceID uint32
}

func (c *ResourceUnmapBlob) wire(x *codec) {
	x.resource(&c.CtrlHdr, &c.ResourceID)
}

// Decode reads the command at the start of p.
func (c *ResourceUnmapBlob) Decode(p []byte) error {
	x, err := reader(p, SizeResourceUnmapBlob, CmdResourceUnmapBlob)
	if err != nil {
		return err
	}
	c.wire(&x)
	return nil
}

// Append appends the command to dst; a Type of 0 becomes its own.
func (c *ResourceUnmapBlob) Append(dst []byte) []byte {
	x := writer(dst, &c.CtrlHdr, CmdResourceUnmapBlob)
	c.wire(&x)
	return x.p
}
