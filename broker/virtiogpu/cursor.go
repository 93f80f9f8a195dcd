package virtiogpu

// SizeUpdateCursor is the size of both cursor commands, in bytes.
const SizeUpdateCursor = 56

// UpdateCursor is UPDATE_CURSOR or, with only the position valid, MOVE_CURSOR.
type UpdateCursor struct {
	CtrlHdr
	ScanoutID  uint32
	X, Y       uint32 // pixels of the scanout; guests send negative values too, as 2^32-n
	ResourceID uint32 // 0 hides the cursor
	HotX, HotY uint32 // pixels of the cursor
}

func (c *UpdateCursor) wire(x *codec) {
	x.hdr(&c.CtrlHdr)
	x.u32(&c.ScanoutID)
	x.u32(&c.X)
	x.u32(&c.Y)
	x.pad(4)
	x.u32(&c.ResourceID)
	x.u32(&c.HotX)
	x.u32(&c.HotY)
	x.pad(4)
}

// Decode reads the command at the start of p.
func (c *UpdateCursor) Decode(p []byte) error {
	x, err := reader(p, SizeUpdateCursor, CmdUpdateCursor)
	if err != nil {
		return err
	}
	c.wire(&x)
	return nil
}

// Append appends the command to dst; the caller sets Type.
func (c *UpdateCursor) Append(dst []byte) []byte {
	x := writer(dst, &c.CtrlHdr, CmdUpdateCursor)
	c.wire(&x)
	return x.p
}
