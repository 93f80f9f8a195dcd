package broker_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/virgl/virgltest"
)

// The state that every malformed command meets.
const (
	res2D    = 1  // 64x32, with backing
	resBare  = 2  // 64x32, no backing
	res3D    = 3  // 64x32, with backing, attached to ctxA
	resAlien = 4  // 3D, attached to no context
	resBuf   = 5  // a 3D buffer, which no scanout can show
	resBig   = 6  // 2D, 1024x1024: too large for a cursor
	ctxA     = 10 // has res3D
	ctxB     = 11
	none     = 99 // never exists
)

func malformedState(m *machine) {
	m.create2D(res2D, 64, 32)
	m.attach(res2D, 64*32*4)
	m.create2D(resBare, 64, 32)
	m.createCtx(ctxA)
	m.createCtx(ctxB)
	m.create3D(res3D, 64, 32)
	m.attach(res3D, 64*32*4)
	m.attachCtx(ctxA, res3D)
	m.create3D(resAlien, 64, 32)
	m.attach(resAlien, 64*32*4)
	m.ok((&virtiogpu.ResourceCreate3D{ResourceID: resBuf, Target: 0, Format: 64, Bind: 16, Width: 4096, Height: 1, Depth: 1, ArraySize: 1}).Append(nil))
	m.create2D(resBig, 1024, 1024)
}

type malformed struct {
	name   string
	cmd    []byte
	want   virtiogpu.Type
	cursor bool // on the cursor queue
}

func rect(x, y, w, h uint32) virtiogpu.Rect {
	return virtiogpu.Rect{X: x, Y: y, Width: w, Height: h}
}

const (
	bad         = virtiogpu.RespErrInvalidParameter
	noResource  = virtiogpu.RespErrInvalidResourceID
	noContext   = virtiogpu.RespErrInvalidContextID
	noScanout   = virtiogpu.RespErrInvalidScanoutID
	unspec      = virtiogpu.RespErrUnspec
	outOfMemory = virtiogpu.RespErrOutOfMemory
	huge        = ^uint32(0)
)

func malformedCases() []malformed {
	hdr := func(t virtiogpu.Type) []byte { return (&virtiogpu.CtrlHdr{Type: t}).Append(nil) }
	create2D := func(id uint32, f virtiogpu.Format, w, h uint32) []byte {
		return (&virtiogpu.ResourceCreate2D{ResourceID: id, Format: f, Width: w, Height: h}).Append(nil)
	}
	attach := func(id, n uint32, entries ...virtiogpu.MemEntry) []byte {
		p := (&virtiogpu.ResourceAttachBacking{ResourceID: id, NrEntries: n}).Append(nil)
		for _, e := range entries {
			p = e.Append(p)
		}
		return p
	}
	transfer2D := func(id uint32, r virtiogpu.Rect, off uint64) []byte {
		return (&virtiogpu.TransferToHost2D{ResourceID: id, R: r, Offset: off}).Append(nil)
	}
	transfer3D := func(t virtiogpu.Type, ctx, id uint32, b virtiogpu.Box, off uint64) []byte {
		return typed(&virtiogpu.TransferHost3D{CtrlHdr: ctxHdr(ctx), ResourceID: id, Box: b, Offset: off}, t)
	}
	scanout := func(head, id uint32, r virtiogpu.Rect) []byte {
		return (&virtiogpu.SetScanout{ScanoutID: head, ResourceID: id, R: r}).Append(nil)
	}
	flush := func(id uint32, r virtiogpu.Rect) []byte {
		return (&virtiogpu.ResourceFlush{ResourceID: id, R: r}).Append(nil)
	}
	cursor := func(t virtiogpu.Type, head, id uint32) []byte {
		return typed(&virtiogpu.UpdateCursor{ScanoutID: head, ResourceID: id}, t)
	}
	ctxRes := func(t virtiogpu.Type, ctx, id uint32) []byte {
		return typed(&virtiogpu.CtxResource{CtrlHdr: ctxHdr(ctx), ResourceID: id}, t)
	}
	box := virtiogpu.Box{W: 64, H: 32, D: 1}
	whole := rect(0, 0, 64, 32)
	const bgra = virtiogpu.FormatB8G8R8A8

	cases := []malformed{
		{"unknown command", hdr(0x1ff), unspec, false},
		{"command type 0", hdr(0), unspec, false},
		{"response as a command", hdr(virtiogpu.RespOKNoData), unspec, false},
		{"huge command type", hdr(virtiogpu.Type(huge)), unspec, false},
		{"cursor command on the control queue", cursor(virtiogpu.CmdUpdateCursor, 0, res2D), unspec, false},
		{"control command on the cursor queue", create2D(none, bgra, 8, 8), unspec, true},
		{"blob without the feature", (&virtiogpu.ResourceCreateBlob{ResourceID: none}).Append(nil), unspec, false},
		{"map without the feature", typed(&virtiogpu.ResourceMapBlob{ResourceID: res3D}, virtiogpu.CmdResourceMapBlob), unspec, false},

		{"create 2D with id 0", create2D(0, bgra, 8, 8), noResource, false},
		{"create 2D with a taken id", create2D(res2D, bgra, 8, 8), noResource, false},
		{"create 2D with a 3D resource's id", create2D(res3D, bgra, 8, 8), noResource, false},
		{"create 2D with format 0", create2D(none, 0, 8, 8), bad, false},
		{"create 2D with an unknown format", create2D(none, 0xdead, 8, 8), bad, false},
		{"create 2D with width 0", create2D(none, bgra, 0, 8), bad, false},
		{"create 2D with height 0", create2D(none, bgra, 8, 0), bad, false},
		{"create 2D too wide", create2D(none, bgra, 16385, 8), bad, false},
		{"create 2D huge", create2D(none, bgra, huge, huge), bad, false},
		{"create 2D whose size overflows 32 bits", create2D(none, bgra, 0x8000, 0x8000), bad, false},

		{"unref an unknown resource", (&virtiogpu.ResourceUnref{ResourceID: none}).Append(nil), noResource, false},
		{"unref resource 0", (&virtiogpu.ResourceUnref{}).Append(nil), noResource, false},

		{"scanout beyond the last head", scanout(2, res2D, whole), noScanout, false},
		{"scanout 16", scanout(16, res2D, whole), noScanout, false},
		{"scanout huge", scanout(huge, res2D, whole), noScanout, false},
		{"scanout of an unknown resource", scanout(0, none, whole), noResource, false},
		{"scanout wider than the resource", scanout(0, res2D, rect(0, 0, 65, 32)), bad, false},
		{"scanout outside of the resource", scanout(0, res2D, rect(64, 32, 1, 1)), bad, false},
		{"scanout whose edge overflows", scanout(0, res2D, rect(huge, 0, 2, 2)), bad, false},
		{"scanout of height 0", scanout(0, res2D, rect(0, 0, 64, 0)), bad, false},
		{"scanout of a buffer", scanout(0, resBuf, rect(0, 0, 1, 1)), bad, false},

		{"flush an unknown resource", flush(none, whole), noResource, false},
		{"flush beyond the resource", flush(res2D, rect(1, 0, 64, 32)), bad, false},
		{"flush whose edge overflows", flush(res2D, rect(1, huge, 1, 1)), bad, false},

		{"transfer to an unknown resource", transfer2D(none, whole, 0), noResource, false},
		{"transfer without backing", transfer2D(resBare, whole, 0), unspec, false},
		{"transfer beyond the resource", transfer2D(res2D, rect(0, 1, 64, 32), 0), bad, false},
		{"transfer whose edge overflows", transfer2D(res2D, rect(huge-1, 0, 8, 8), 0), bad, false},
		{"transfer from beyond the backing", transfer2D(res2D, whole, 1), bad, false},
		{"transfer from far beyond the backing", transfer2D(res2D, rect(0, 0, 1, 1), 1<<40), bad, false},
		{"transfer whose offset overflows", transfer2D(res2D, whole, ^uint64(0)-16), bad, false},

		{"attach to an unknown resource", attach(none, 1, virtiogpu.MemEntry{Addr: 4096, Length: 4096}), noResource, false},
		{"attach a second backing", attach(res2D, 1, virtiogpu.MemEntry{Addr: 4096, Length: 4096}), unspec, false},
		{"attach no entries", attach(resBare, 0), bad, false},
		{"attach with fewer entries than said", attach(resBare, 2, virtiogpu.MemEntry{Addr: 4096, Length: 4096}), bad, false},
		{"attach an absurd count", attach(resBare, huge, virtiogpu.MemEntry{Addr: 4096, Length: 4096}), bad, false},
		{"attach a count just above the limit", attach(resBare, virtiogpu.MaxMemEntries+1), bad, false},
		{"attach memory that is not there", attach(resBare, 1, virtiogpu.MemEntry{Addr: 1 << 46, Length: 4096}), bad, false},
		{"attach memory that runs past the end", attach(resBare, 1, virtiogpu.MemEntry{Addr: 4096, Length: huge}), bad, false},
		{"attach memory whose end overflows", attach(resBare, 1, virtiogpu.MemEntry{Addr: ^uint64(0) - 100, Length: 4096}), bad, false},
		{"attach good then bad memory", attach(resBare, 2, virtiogpu.MemEntry{Addr: 4096, Length: 4096}, virtiogpu.MemEntry{Addr: 1 << 46, Length: 1}), bad, false},
		{"detach from an unknown resource", (&virtiogpu.ResourceDetachBacking{ResourceID: none}).Append(nil), noResource, false},
		{"detach without backing", (&virtiogpu.ResourceDetachBacking{ResourceID: resBare}).Append(nil), unspec, false},

		{"capset info beyond the last", (&virtiogpu.GetCapsetInfo{CapsetIndex: 2}).Append(nil), bad, false},
		{"capset info huge", (&virtiogpu.GetCapsetInfo{CapsetIndex: huge}).Append(nil), bad, false},
		{"capset unknown", (&virtiogpu.GetCapset{CapsetID: 77}).Append(nil), bad, false},
		{"capset version too high", (&virtiogpu.GetCapset{CapsetID: 1, CapsetVersion: 9}).Append(nil), bad, false},
		{"EDID of a head that is not there", (&virtiogpu.GetEDID{Scanout: 2}).Append(nil), bad, false},
		{"UUID of an unknown resource", (&virtiogpu.ResourceAssignUUID{ResourceID: none}).Append(nil), noResource, false},

		{"context 0", (&virtiogpu.CtxCreate{}).Append(nil), noContext, false},
		{"context that exists", (&virtiogpu.CtxCreate{CtrlHdr: ctxHdr(ctxA)}).Append(nil), noContext, false},
		{"destroy an unknown context", (&virtiogpu.CtrlHdr{Type: virtiogpu.CmdCtxDestroy, CtxID: none}).Append(nil), noContext, false},
		{"attach to an unknown context", ctxRes(virtiogpu.CmdCtxAttachResource, none, res3D), noContext, false},
		{"attach an unknown resource to a context", ctxRes(virtiogpu.CmdCtxAttachResource, ctxA, none), noResource, false},
		{"detach from an unknown context", ctxRes(virtiogpu.CmdCtxDetachResource, none, res3D), noContext, false},
		{"detach a resource that is not attached", ctxRes(virtiogpu.CmdCtxDetachResource, ctxB, res3D), noResource, false},

		{"create 3D with id 0", create3D(0, 8, 8), noResource, false},
		{"create 3D with a taken id", create3D(res2D, 8, 8), noResource, false},
		{"transfer 3D to an unknown resource", transfer3D(virtiogpu.CmdTransferToHost3D, ctxA, none, box, 0), noResource, false},
		{"transfer 3D to a 2D resource", transfer3D(virtiogpu.CmdTransferToHost3D, 0, res2D, box, 0), noResource, false},
		{"transfer 3D in an unknown context", transfer3D(virtiogpu.CmdTransferToHost3D, none, res3D, box, 0), noContext, false},
		{"transfer 3D in a foreign context", transfer3D(virtiogpu.CmdTransferToHost3D, ctxB, res3D, box, 0), noResource, false},
		{"transfer 3D without backing", transfer3D(virtiogpu.CmdTransferToHost3D, 0, resBuf, virtiogpu.Box{W: 1, H: 1, D: 1}, 0), unspec, false},
		{"transfer 3D beyond the resource", transfer3D(virtiogpu.CmdTransferToHost3D, ctxA, res3D, virtiogpu.Box{X: 1, W: 64, H: 32, D: 1}, 0), bad, false},
		{"transfer 3D whose edge overflows", transfer3D(virtiogpu.CmdTransferToHost3D, ctxA, res3D, virtiogpu.Box{X: huge, W: 2, H: 1, D: 1}, 0), bad, false},
		{"transfer 3D from beyond the backing", transfer3D(virtiogpu.CmdTransferToHost3D, ctxA, res3D, box, 1<<40), bad, false},
		{"read back beyond the backing", transfer3D(virtiogpu.CmdTransferFromHost3D, ctxA, res3D, box, 8192), bad, false},
		{"read back an unknown resource", transfer3D(virtiogpu.CmdTransferFromHost3D, ctxA, none, box, 0), noResource, false},

		{"submit to an unknown context", submit(ctxHdr(none), make([]byte, 8)), noContext, false},
		{"submit to context 0", submit(ctxHdr(0), make([]byte, 8)), noContext, false},
		{"submit an odd size", submit(ctxHdr(ctxA), make([]byte, 7)), bad, false},
		{"submit more than there is", (&virtiogpu.Submit3D{CtrlHdr: ctxHdr(ctxA), Size: 64}).Append(nil), bad, false},
		{"submit an absurd size", (&virtiogpu.Submit3D{CtrlHdr: ctxHdr(ctxA), Size: huge}).Append(nil), bad, false},
		{"submit above the limit", submit(ctxHdr(ctxA), make([]byte, virtiogpu.MaxCommandSize)), outOfMemory, false},
		{"submit what the renderer refuses", submit(ctxHdr(ctxA), []byte("refused!")), bad, false},

		{"cursor on a head that is not there", cursor(virtiogpu.CmdUpdateCursor, 2, res2D), noScanout, true},
		{"cursor of an unknown resource", cursor(virtiogpu.CmdUpdateCursor, 0, none), noResource, true},
		{"cursor of a buffer", cursor(virtiogpu.CmdUpdateCursor, 0, resBuf), bad, true},
		{"cursor too large", cursor(virtiogpu.CmdUpdateCursor, 0, resBig), bad, true},
		{"move a cursor that is not there", cursor(virtiogpu.CmdMoveCursor, 16, 0), noScanout, true},
	}
	// Every command, cut one byte short, and its header alone.
	for _, c := range virtiogpu.Commands {
		if c.Type == virtiogpu.CmdGetDisplayInfo || c.Type == virtiogpu.CmdCtxDestroy ||
			c.Type >= virtiogpu.CmdResourceMapBlob && c.Type <= virtiogpu.CmdResourceUnmapBlob ||
			c.Type == virtiogpu.CmdResourceCreateBlob || c.Type == virtiogpu.CmdSetScanoutBlob {
			continue // no body, or refused before it is looked at
		}
		want := bad
		p := make([]byte, c.MinSize)
		h := virtiogpu.CtrlHdr{Type: c.Type, CtxID: ctxA}
		copy(p, h.Append(nil))
		cur := c.Queue == virtiogpu.CursorQueue
		cases = append(cases,
			malformed{c.Name + " one byte short", p[:c.MinSize-1], want, cur},
			malformed{c.Name + " with its header only", p[:virtiogpu.SizeCtrlHdr], want, cur})
	}
	return append(cases,
		malformed{"half a header", make([]byte, 12), bad, false},
		malformed{"one byte", []byte{1}, bad, false},
	)
}

// TestMalformed sends every malformed command, fenced and not, and a good one
// after each: the right error comes, the fence comes back whole, nothing is lost.
func TestMalformed(t *testing.T) {
	m := newMachine(t, machineConfig{profile: vhostusertest.QEMU11A, outOfBounds: true, fake: virgltest.Config{
		OnSubmit: func(_ *virgltest.Fake, _ uint32, cmds []byte) error {
			if bytes.Equal(cmds, []byte("refused!")) {
				return virtiogpu.ErrUnspec // any error will do: the device maps it
			}
			return nil
		},
	}})
	malformedState(m)
	before := m.dev.Status(true)
	cases := malformedCases()
	if len(cases) < 60 {
		t.Fatalf("%d cases, want 60 or more", len(cases))
	}
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m.t = t
			q := m.Ctrl
			if c.cursor {
				q = m.Cursor
			}
			for _, fence := range []uint64{0, 1<<40 | uint64(i)} {
				cmd := bytes.Clone(c.cmd)
				if fence != 0 && len(cmd) >= virtiogpu.SizeCtrlHdr {
					binary.LittleEndian.PutUint32(cmd[4:], virtiogpu.FlagFence)
					binary.LittleEndian.PutUint64(cmd[8:], fence)
				}
				n, err := q.Do(cmd, m.resp)
				if err != nil {
					t.Fatal(err)
				}
				var h virtiogpu.CtrlHdr
				if err := h.Decode(m.resp[:n]); err != nil {
					t.Fatal(err)
				}
				if h.Type != c.want {
					t.Errorf("answered with %v, want %v", h.Type, c.want)
				}
				if fence != 0 && len(cmd) >= virtiogpu.SizeCtrlHdr && h.FenceID != fence {
					t.Errorf("fence id %#x came back, want %#x", h.FenceID, fence)
				}
			}
			m.ok((&virtiogpu.CtrlHdr{Type: virtiogpu.CmdGetDisplayInfo}).Append(nil))
			m.ok((&virtiogpu.TransferToHost2D{ResourceID: res2D, R: rect(0, 0, 64, 32)}).Append(nil))
		})
	}
	m.t = t
	after := m.dev.Status(true)
	if len(after.Resources) != len(before.Resources) || len(after.Contexts) != len(before.Contexts) {
		t.Errorf("%d resources and %d contexts, want %d and %d", len(after.Resources), len(after.Contexts), len(before.Resources), len(before.Contexts))
	}
	if after.Errors != uint64(2*len(cases)) {
		t.Errorf("%d errors counted, want %d", after.Errors, 2*len(cases))
	}
}
