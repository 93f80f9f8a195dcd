package hostile

import (
	"encoding/binary"

	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
)

// Encoders for the commands that cases send.

const huge = ^uint32(0)

func rect(x, y, w, h uint32) virtiogpu.Rect {
	return virtiogpu.Rect{X: x, Y: y, Width: w, Height: h}
}

func ctxHdr(ctx uint32) virtiogpu.CtrlHdr { return virtiogpu.CtrlHdr{CtxID: ctx} }

// typed encodes a struct that serves several commands.
func typed(c interface{ Append([]byte) []byte }, t virtiogpu.Type) []byte {
	p := c.Append(nil)
	binary.LittleEndian.PutUint32(p, uint32(t))
	return p
}

// bare is a command that is its header alone.
func bare(t virtiogpu.Type, ctx uint32) []byte {
	return (&virtiogpu.CtrlHdr{Type: t, CtxID: ctx}).Append(nil)
}

func withFlags(cmd []byte, flags uint32, fence uint64, ring uint8) []byte {
	cmd = append([]byte(nil), cmd...)
	binary.LittleEndian.PutUint32(cmd[4:], flags)
	binary.LittleEndian.PutUint64(cmd[8:], fence)
	cmd[20] = ring
	return cmd
}

func create2D(id uint32, f virtiogpu.Format, w, h uint32) []byte {
	return (&virtiogpu.ResourceCreate2D{ResourceID: id, Format: f, Width: w, Height: h}).Append(nil)
}

// texture is a plain B8G8R8A8 render target.
func texture(id, w, h uint32) virtiogpu.ResourceCreate3D {
	return virtiogpu.ResourceCreate3D{ResourceID: id, Target: 2, Format: 1, Bind: 1<<1 | 1<<3,
		Width: w, Height: h, Depth: 1, ArraySize: 1}
}

// buffer is a vertex buffer.
func buffer(id, bytes uint32) virtiogpu.ResourceCreate3D {
	return virtiogpu.ResourceCreate3D{ResourceID: id, Target: 0, Format: 64, Bind: 1 << 4,
		Width: bytes, Height: 1, Depth: 1, ArraySize: 1}
}

func create3D(c virtiogpu.ResourceCreate3D) []byte { return c.Append(nil) }

func unref(id uint32) []byte { return (&virtiogpu.ResourceUnref{ResourceID: id}).Append(nil) }

// attach is RESOURCE_ATTACH_BACKING with any entries, told to be n.
func attach(id, n uint32, entries ...virtiogpu.MemEntry) []byte {
	p := (&virtiogpu.ResourceAttachBacking{ResourceID: id, NrEntries: n}).Append(nil)
	return appendEntries(p, entries)
}

func appendEntries(p []byte, entries []virtiogpu.MemEntry) []byte {
	for _, e := range entries {
		p = e.Append(p)
	}
	return p
}

func entriesOf(b *fakeguest.Block) []virtiogpu.MemEntry {
	out := make([]virtiogpu.MemEntry, len(b.Entries))
	for i, e := range b.Entries {
		out[i] = virtiogpu.MemEntry{Addr: e.Addr, Length: e.Len}
	}
	return out
}

func attachBlock(id uint32, b *fakeguest.Block) []byte {
	return attach(id, uint32(len(b.Entries)), entriesOf(b)...)
}

func detach(id uint32) []byte { return (&virtiogpu.ResourceDetachBacking{ResourceID: id}).Append(nil) }

func transfer2D(id uint32, r virtiogpu.Rect, off uint64) []byte {
	return (&virtiogpu.TransferToHost2D{ResourceID: id, R: r, Offset: off}).Append(nil)
}

func transfer3D(t virtiogpu.Type, c virtiogpu.TransferHost3D) []byte { return typed(&c, t) }

func scanout(head, id uint32, r virtiogpu.Rect) []byte {
	return (&virtiogpu.SetScanout{ScanoutID: head, ResourceID: id, R: r}).Append(nil)
}

func flush(id uint32, r virtiogpu.Rect) []byte {
	return (&virtiogpu.ResourceFlush{ResourceID: id, R: r}).Append(nil)
}

func cursor(t virtiogpu.Type, c virtiogpu.UpdateCursor) []byte { return typed(&c, t) }

func createCtx(id uint32) []byte { return (&virtiogpu.CtxCreate{CtrlHdr: ctxHdr(id)}).Append(nil) }

func ctxRes(t virtiogpu.Type, ctx, id uint32) []byte {
	return typed(&virtiogpu.CtxResource{CtrlHdr: ctxHdr(ctx), ResourceID: id}, t)
}

func submit(ctx uint32, stream []byte) []byte {
	return append((&virtiogpu.Submit3D{CtrlHdr: ctxHdr(ctx), Size: uint32(len(stream))}).Append(nil), stream...)
}

// createBlob is RESOURCE_CREATE_BLOB with any entries, told to be n.
func createBlob(ctx uint32, c virtiogpu.ResourceCreateBlob, n uint32, entries ...virtiogpu.MemEntry) []byte {
	c.CtrlHdr, c.NrEntries = ctxHdr(ctx), n
	return appendEntries(c.Append(nil), entries)
}

func mapBlob(id uint32, offset uint64) []byte {
	return (&virtiogpu.ResourceMapBlob{ResourceID: id, Offset: offset}).Append(nil)
}

func unmapBlob(id uint32) []byte { return (&virtiogpu.ResourceUnmapBlob{ResourceID: id}).Append(nil) }

// dwords is a command stream as it lies in memory.
func dwords(v ...uint32) []byte {
	p := make([]byte, 0, 4*len(v))
	for _, x := range v {
		p = binary.LittleEndian.AppendUint32(p, x)
	}
	return p
}
