package soak

import (
	"encoding/binary"

	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

// Ids that are used again and again, so that a slot that is not free shows.
const ids = 50

func unref(id uint32) []byte { return (&virtiogpu.ResourceUnref{ResourceID: id}).Append(nil) }

func texture(id, w, h uint32) []byte {
	return (&virtiogpu.ResourceCreate3D{ResourceID: id, Target: virglcmd.TargetTexture2D, Format: virglcmd.FormatB8G8R8A8,
		Bind: virglcmd.BindRenderTarget | virglcmd.BindSamplerView, Width: w, Height: h, Depth: 1, ArraySize: 1}).Append(nil)
}

func ctxRes(t virtiogpu.Type, ctx, id uint32) []byte {
	p := (&virtiogpu.CtxResource{CtrlHdr: virtiogpu.CtrlHdr{CtxID: ctx}, ResourceID: id}).Append(nil)
	binary.LittleEndian.PutUint32(p, uint32(t))
	return p
}

func createCtx(id uint32) []byte {
	return (&virtiogpu.CtxCreate{CtrlHdr: virtiogpu.CtrlHdr{CtxID: id}}).Append(nil)
}

func destroyCtx(id uint32) []byte {
	return (&virtiogpu.CtrlHdr{Type: virtiogpu.CmdCtxDestroy, CtxID: id}).Append(nil)
}

func submit(h virtiogpu.CtrlHdr, stream []byte) []byte {
	return append((&virtiogpu.Submit3D{CtrlHdr: h, Size: uint32(len(stream))}).Append(nil), stream...)
}

func (s *soaker) sendAll(cmds ...[]byte) error {
	for _, cmd := range cmds {
		if err := s.send(cmd); err != nil {
			return err
		}
	}
	return nil
}

// resources2D makes pictures with backing, uploads to one in ten, and drops them.
func (s *soaker) resources2D(n int) error {
	const w, h = 16, 16
	b, err := s.g.Pages.Scattered(w * h * 4)
	if err != nil {
		return err
	}
	defer b.Free()
	entry := virtiogpu.MemEntry{Addr: b.Entries[0].Addr, Length: uint32(b.Size)}
	for i := range n {
		id := uint32(1 + i%ids)
		if err := s.sendAll((&virtiogpu.ResourceCreate2D{ResourceID: id, Format: virtiogpu.FormatB8G8R8X8, Width: w, Height: h}).Append(nil),
			entry.Append((&virtiogpu.ResourceAttachBacking{ResourceID: id, NrEntries: 1}).Append(nil))); err != nil {
			return err
		}
		if i%10 == 0 {
			if err := s.send((&virtiogpu.TransferToHost2D{ResourceID: id, R: virtiogpu.Rect{Width: w, Height: h}}).Append(nil)); err != nil {
				return err
			}
		}
		if err := s.send(unref(id)); err != nil {
			return err
		}
	}
	return s.drain()
}

// blobs makes host blobs and maps one in a hundred.
func (s *soaker) blobs(n int) error {
	for i := range n {
		id := uint32(1 + i%ids)
		c := virtiogpu.ResourceCreateBlob{ResourceID: id, BlobMem: virtiogpu.BlobMemHost3D, BlobFlags: virtiogpu.BlobFlagMappable, Size: 4096}
		if err := s.send(c.Append(nil)); err != nil {
			return err
		}
		if i%100 == 0 {
			if err := s.sendAll((&virtiogpu.ResourceMapBlob{ResourceID: id}).Append(nil)); err != nil {
				return err
			}
			if err := s.drain(); err != nil { // the next may want the same place
				return err
			}
			if err := s.send((&virtiogpu.ResourceUnmapBlob{ResourceID: id}).Append(nil)); err != nil {
				return err
			}
			if err := s.drain(); err != nil {
				return err
			}
		}
		if err := s.send(unref(id)); err != nil {
			return err
		}
	}
	return s.drain()
}

// resources3D makes textures for a context and draws on one in a hundred.
func (s *soaker) resources3D(n int) error {
	if err := s.send(createCtx(1)); err != nil {
		return err
	}
	for i := range n {
		id := uint32(1 + i%ids)
		if err := s.sendAll(texture(id, 16, 16), ctxRes(virtiogpu.CmdCtxAttachResource, 1, id)); err != nil {
			return err
		}
		if i%100 == 0 {
			if err := s.send(submit(virtiogpu.CtrlHdr{CtxID: 1}, clearing(id))); err != nil {
				return err
			}
		}
		if err := s.sendAll(ctxRes(virtiogpu.CmdCtxDetachResource, 1, id), unref(id)); err != nil {
			return err
		}
	}
	if err := s.send(destroyCtx(1)); err != nil {
		return err
	}
	return s.drain()
}

// clearing makes a surface, clears it and destroys it.
func clearing(id uint32) []byte {
	var b virglcmd.Builder
	b.CreateSurface(1, id, virglcmd.FormatB8G8R8A8, 0, 0)
	b.SetFramebuffer(1)
	b.Clear(virglcmd.ClearColor0, [4]float32{1, 0, 0, 1}, 0, 0)
	b.SetFramebuffer(0)
	b.DestroyObject(virglcmd.ObjectSurface, 1)
	return b.Bytes()
}

// fences draws with a fence on each command.
func (s *soaker) fences(n int) error {
	if err := s.sendAll(createCtx(1), texture(1, 16, 16), ctxRes(virtiogpu.CmdCtxAttachResource, 1, 1)); err != nil {
		return err
	}
	stream := clearing(1)
	for i := range n {
		h := virtiogpu.CtrlHdr{CtxID: 1, Flags: virtiogpu.FlagFence, FenceID: uint64(i)}
		if i%4 == 3 {
			h.Flags |= virtiogpu.FlagInfoRingIdx
			h.RingIdx = uint8(i / 4)
		}
		if err := s.send(submit(h, stream)); err != nil {
			return err
		}
	}
	if err := s.sendAll(unref(1), destroyCtx(1)); err != nil {
		return err
	}
	return s.drain()
}

// contexts makes contexts that draw once each, with what they made left to them.
func (s *soaker) contexts(n int) error {
	if err := s.send(texture(1, 16, 16)); err != nil {
		return err
	}
	for i := range n {
		id := uint32(1 + i%8)
		var b virglcmd.Builder
		b.CreateSurface(1, 1, virglcmd.FormatB8G8R8A8, 0, 0)
		b.SetFramebuffer(1)
		b.CreateBlend(2)
		b.BindObject(virglcmd.ObjectBlend, 2)
		b.CreateShader(3, virglcmd.StageFragment, virglcmd.FragmentShader)
		b.Clear(virglcmd.ClearColor0, [4]float32{0, 1, 0, 1}, 0, 0)
		if err := s.sendAll(createCtx(id), ctxRes(virtiogpu.CmdCtxAttachResource, id, 1),
			submit(virtiogpu.CtrlHdr{CtxID: id}, b.Bytes()), destroyCtx(id)); err != nil {
			return err
		}
	}
	if err := s.send(unref(1)); err != nil {
		return err
	}
	return s.drain()
}
