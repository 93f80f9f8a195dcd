package hostile

import (
	"encoding/binary"

	"github.com/gpubroker/gpubroker/broker/virtiogpu"
)

// The objects that every command of these tables finds.
const (
	res2D    = 1  // 64x32, with backing
	resBare  = 2  // 64x32, no backing
	resBig   = 3  // 1024x1024: too large for a cursor
	res3D    = 4  // 64x32, with backing, attached to ctxA
	resAlien = 5  // 3D, attached to no context
	resBuf   = 6  // a 3D buffer of 4096 bytes, attached to ctxA
	ctxA     = 10 //
	ctxB     = 11 // has nothing
	none     = 99 // never exists

	resW, resH = 64, 32
	resBytes   = resW * resH * 4
)

const bgra = virtiogpu.FormatB8G8R8A8

var whole = rect(0, 0, resW, resH)

func state2D(v *VM) error {
	b, err := v.Block(resBytes)
	if err != nil {
		return err
	}
	return v.OK(create2D(res2D, bgra, resW, resH), attachBlock(res2D, b), create2D(resBare, bgra, resW, resH),
		create2D(resBig, bgra, 1024, 1024))
}

func commandCases() []Case {
	out := commands("2d", Both, nil, state2D, table2D)
	out = append(out, commands("size", Both, nil, state2D, tableSizes)...)
	return append(out, commands("cursor", Both, nil, state2D, tableCursor)...)
}

func table2D(*VM) ([]Command, error) {
	page := virtiogpu.MemEntry{Addr: 4096, Length: 4096}
	return []Command{
		{"unknown command", bare(0x1ff, 0), unspec, false},
		{"command type 0", bare(0, 0), unspec, false},
		{"response as a command", bare(virtiogpu.RespOKNoData, 0), unspec, false},
		{"command type all ones", bare(virtiogpu.Type(huge), 0), unspec, false},
		{"cursor command on the control queue", cursor(virtiogpu.CmdUpdateCursor, virtiogpu.UpdateCursor{ResourceID: res2D}), unspec, false},
		{"control command on the cursor queue", create2D(none, bgra, 8, 8), unspec, true},

		{"create with id 0", create2D(0, bgra, 8, 8), noResource, false},
		{"create with a taken id", create2D(res2D, bgra, 8, 8), noResource, false},
		{"create with the largest id", create2D(huge, bgra, 8, 8), fine, false},
		{"create with format 0", create2D(none, 0, 8, 8), bad, false},
		{"create with format all ones", create2D(none, virtiogpu.Format(huge), 8, 8), bad, false},
		{"create with width 0", create2D(none, bgra, 0, 8), bad, false},
		{"create with height 0", create2D(none, bgra, 8, 0), bad, false},
		{"create one pixel too wide", create2D(none, bgra, 16385, 8), bad, false},
		{"create with all ones", create2D(none, bgra, huge, huge), bad, false},
		{"create whose size wraps to 0", create2D(none, bgra, 0x8000, 0x8000), bad, false},
		{"create whose stride wraps", create2D(none, bgra, 0x4000_0001, 1), bad, false},
		{"create the largest there is", create2D(none, bgra, 16384, 16384), anAnswer, false},

		{"unref what is not there", unref(none), noResource, false},
		{"unref resource 0", unref(0), noResource, false},

		{"scanout beyond the last head", scanout(2, res2D, whole), noScanout, false},
		{"scanout 16", scanout(16, res2D, whole), noScanout, false},
		{"scanout all ones", scanout(huge, res2D, whole), noScanout, false},
		{"scanout of what is not there", scanout(0, none, whole), noResource, false},
		{"scanout wider than the resource", scanout(0, res2D, rect(0, 0, 65, 32)), bad, false},
		{"scanout outside of the resource", scanout(0, res2D, rect(64, 32, 1, 1)), bad, false},
		{"scanout whose right edge wraps", scanout(0, res2D, rect(huge, 0, 2, 2)), bad, false},
		{"scanout whose lower edge wraps", scanout(0, res2D, rect(0, huge, 2, 2)), bad, false},
		{"scanout of height 0", scanout(0, res2D, rect(0, 0, 64, 0)), bad, false},
		{"scanout without backing", scanout(0, resBare, whole), fine, false},

		{"flush what is not there", flush(none, whole), noResource, false},
		{"flush beyond the resource", flush(res2D, rect(1, 0, 64, 32)), bad, false},
		{"flush whose edge wraps", flush(res2D, rect(1, huge, 1, 1)), bad, false},
		{"flush all ones", flush(res2D, rect(huge, huge, huge, huge)), bad, false},
		{"flush nothing", flush(res2D, rect(64, 32, 0, 0)), anAnswer, false},

		{"transfer to what is not there", transfer2D(none, whole, 0), noResource, false},
		{"transfer without backing", transfer2D(resBare, whole, 0), unspec, false},
		{"transfer beyond the resource", transfer2D(res2D, rect(0, 1, 64, 32), 0), bad, false},
		{"transfer whose edge wraps", transfer2D(res2D, rect(huge-1, 0, 8, 8), 0), bad, false},
		{"transfer of all ones", transfer2D(res2D, rect(huge, huge, huge, huge), ^uint64(0)), bad, false},
		{"transfer from one byte beyond the backing", transfer2D(res2D, whole, 1), bad, false},
		{"transfer from far beyond the backing", transfer2D(res2D, rect(0, 0, 1, 1), 1<<40), bad, false},
		{"transfer whose offset wraps", transfer2D(res2D, whole, ^uint64(0)-16), bad, false},
		{"transfer whose offset is negative", transfer2D(res2D, whole, 1<<63), bad, false},
		{"transfer of nothing at the end", transfer2D(res2D, rect(64, 32, 0, 0), ^uint64(0)), anAnswer, false},

		{"attach to what is not there", attach(none, 1, page), noResource, false},
		{"attach a second backing", attach(res2D, 1, page), unspec, false},
		{"attach no entries", attach(resBare, 0), bad, false},
		{"attach fewer entries than told", attach(resBare, 2, page), bad, false},
		{"attach more entries than told", attach(resBare, 1, page, page, page), anAnswer, false},
		{"attach a count of all ones", attach(resBare, huge, page), bad, false},
		{"attach a count that wraps to one", attach(resBare, 0x1000_0001, page), bad, false},
		{"attach a count just above the limit", attach(resBare, virtiogpu.MaxMemEntries+1), bad, false},
		{"attach memory that is not there", attach(resBare, 1, virtiogpu.MemEntry{Addr: 1 << 46, Length: 4096}), bad, false},
		{"attach memory past the end", attach(resBare, 1, virtiogpu.MemEntry{Addr: ramSize - 4096, Length: 8192}), bad, false},
		{"attach a length of all ones", attach(resBare, 1, virtiogpu.MemEntry{Addr: 4096, Length: huge}), bad, false},
		{"attach memory whose end wraps", attach(resBare, 1, virtiogpu.MemEntry{Addr: ^uint64(0) - 100, Length: 4096}), bad, false},
		{"attach good then bad memory", attach(resBare, 2, page, virtiogpu.MemEntry{Addr: 1 << 46, Length: 1}), bad, false},
		{"attach entries of no bytes", attach(resBare, 2, virtiogpu.MemEntry{Addr: 4096}, virtiogpu.MemEntry{Addr: 8192}), anAnswer, false},
		{"attach the rings", attach(resBare, 1, virtiogpu.MemEntry{Addr: 0, Length: 1 << 20}), fine, false},
		{"detach from what is not there", detach(none), noResource, false},
		{"detach without backing", detach(resBare), unspec, false},

		{"EDID of a head that is not there", (&virtiogpu.GetEDID{Scanout: 2}).Append(nil), bad, false},
		{"EDID of head all ones", (&virtiogpu.GetEDID{Scanout: huge}).Append(nil), bad, false},
		{"UUID of what is not there", (&virtiogpu.ResourceAssignUUID{ResourceID: none}).Append(nil), noResource, false},
		{"capset info all ones", (&virtiogpu.GetCapsetInfo{CapsetIndex: huge}).Append(nil), bad, false},
		{"capset unknown", (&virtiogpu.GetCapset{CapsetID: 77}).Append(nil), bad, false},
		{"half a header", make([]byte, 12), bad, false},
		{"one byte", []byte{1}, bad, false},
	}, nil
}

// tableSizes cuts every command short and makes it long.
func tableSizes(*VM) ([]Command, error) {
	var out []Command
	for _, c := range virtiogpu.Commands {
		p := make([]byte, c.MinSize)
		copy(p, bare(c.Type, none))
		onCursor := c.Queue == virtiogpu.CursorQueue
		if c.MinSize > virtiogpu.SizeCtrlHdr {
			out = append(out, Command{c.Name + " one byte short", p[:c.MinSize-1], anError, onCursor},
				Command{c.Name + " with its header only", p[:virtiogpu.SizeCtrlHdr], anError, onCursor})
		}
		ones := append([]byte(nil), p...)
		for i := virtiogpu.SizeCtrlHdr; i < len(ones); i++ {
			ones[i] = 0xff
		}
		want := anError
		if c.Type == virtiogpu.CmdGetDisplayInfo {
			want = Want(virtiogpu.RespOKDisplayInfo)
		}
		out = append(out, Command{c.Name + " of zeros with 64 KiB behind", append(p, make([]byte, 64<<10)...), zeroWant(c.Type), onCursor},
			Command{c.Name + " of ones", ones, want, onCursor})
	}
	return out, nil
}

// zeroWant is the answer to a command whose fields are all 0, too long.
func zeroWant(t virtiogpu.Type) Want {
	switch t {
	case virtiogpu.CmdGetDisplayInfo, virtiogpu.CmdGetEDID, virtiogpu.CmdSetScanout, virtiogpu.CmdSetScanoutBlob,
		virtiogpu.CmdGetCapsetInfo, virtiogpu.CmdCtxCreate, virtiogpu.CmdUpdateCursor, virtiogpu.CmdMoveCursor:
		return anAnswer // resource 0 turns a head or its cursor off; context none is as good as any
	}
	return anError
}

func tableCursor(*VM) ([]Command, error) {
	up := func(c virtiogpu.UpdateCursor) []byte { return cursor(virtiogpu.CmdUpdateCursor, c) }
	return []Command{
		{"on a head that is not there", up(virtiogpu.UpdateCursor{ScanoutID: 2, ResourceID: res2D}), noScanout, true},
		{"on head all ones", up(virtiogpu.UpdateCursor{ScanoutID: huge, ResourceID: res2D}), noScanout, true},
		{"of what is not there", up(virtiogpu.UpdateCursor{ResourceID: none}), noResource, true},
		{"too large", up(virtiogpu.UpdateCursor{ResourceID: resBig}), bad, true},
		{"without backing", up(virtiogpu.UpdateCursor{ResourceID: resBare}), anAnswer, true},
		{"with a hot spot of all ones", up(virtiogpu.UpdateCursor{ResourceID: res2D, HotX: huge, HotY: huge}), anAnswer, true},
		{"at a place of all ones", up(virtiogpu.UpdateCursor{ResourceID: res2D, X: huge, Y: huge}), anAnswer, true},
		{"moved on a head that is not there", cursor(virtiogpu.CmdMoveCursor, virtiogpu.UpdateCursor{ScanoutID: 16}), noScanout, true},
		{"moved to all ones", cursor(virtiogpu.CmdMoveCursor, virtiogpu.UpdateCursor{X: huge, Y: huge}), anAnswer, true},
	}, nil
}

func headerOf(cmd []byte) virtiogpu.Type { return virtiogpu.Type(binary.LittleEndian.Uint32(cmd)) }
