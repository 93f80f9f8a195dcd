package broker_test

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
)

// The commands that the fuzzer sends; what is beyond the list stops and resets
// the device.
var fuzzCommands = []virtiogpu.Type{
	virtiogpu.CmdResourceCreateBlob, virtiogpu.CmdResourceMapBlob, virtiogpu.CmdResourceUnmapBlob, virtiogpu.CmdSetScanoutBlob,
	virtiogpu.CmdResourceUnref, virtiogpu.CmdResourceFlush, virtiogpu.CmdSetScanout, virtiogpu.CmdTransferToHost2D,
	virtiogpu.CmdResourceAttachBacking, virtiogpu.CmdResourceDetachBacking, virtiogpu.CmdResourceAssignUUID,
	virtiogpu.CmdCtxCreate, virtiogpu.CmdCtxDestroy, virtiogpu.CmdCtxAttachResource, virtiogpu.CmdCtxDetachResource,
	virtiogpu.CmdTransferToHost3D, virtiogpu.CmdTransferFromHost3D, virtiogpu.CmdSubmit3D,
}

const (
	fuzzStop  = 0xfe // stop and continue
	fuzzReset = 0xff
	fuzzMost  = 48 // commands of one run
	fuzzHead  = 4  // bytes before a command's body: its kind, context, flags and length
)

// fuzzStep encodes a command as the fuzzer's input has it.
func fuzzStep(dst, cmd []byte) []byte {
	t := virtiogpu.Type(binary.LittleEndian.Uint32(cmd))
	for i, known := range fuzzCommands {
		if known == t {
			body := cmd[virtiogpu.SizeCtrlHdr:]
			dst = append(dst, byte(i), cmd[16], cmd[4], byte(len(body)))
			return append(dst, body...)
		}
	}
	panic(t)
}

// FuzzBlobCommands sends sequences of commands to a device of mode B. Whatever a
// guest sends, the device answers, and a reset leaves nothing.
func FuzzBlobCommands(f *testing.F) {
	var seed []byte
	for _, cmd := range [][]byte{
		mapBlob(blobFree, 0), scanoutBlob(0, blobMapped, blobW, blobH, blobW*4, 0, virtiogpu.FormatB8G8R8X8),
		(&virtiogpu.ResourceFlush{R: rect(0, 0, blobW, blobH), ResourceID: blobMapped}).Append(nil),
		scanoutBlob(1, blobGuest, blobW, blobH, 512, 4096, virtiogpu.FormatX8R8G8B8),
		(&virtiogpu.ResourceFlush{R: rect(3, 3, 9, 9), ResourceID: blobGuest}).Append(nil),
		unmapBlob(blobFree), (&virtiogpu.ResourceUnref{ResourceID: blobMapped}).Append(nil),
		createBlob(virtiogpu.CtrlHdr{}, none, virtiogpu.BlobMemHost3D, virtiogpu.BlobFlagMappable, 0, 8192, nil), mapBlob(none, blobMappedAt),
		createBlob(ctxHdr(ctxA), 98, virtiogpu.BlobMemHost3D, virtiogpu.BlobFlagMappable, 4, 8192, nil), mapBlob(98, 0),
	} {
		seed = fuzzStep(seed, cmd)
	}
	f.Add(seed)
	f.Add(append(append([]byte{fuzzStop, 0, 0, 0}, seed...), fuzzReset, 0, 0, 0))
	var contexts []byte
	attach := typed(&virtiogpu.CtxResource{CtrlHdr: ctxHdr(ctxB), ResourceID: blobGuest}, virtiogpu.CmdCtxAttachResource)
	for _, cmd := range [][]byte{
		attach, submit(ctxHdr(ctxB), make([]byte, 8)), attach,
		typed(&virtiogpu.TransferHost3D{CtrlHdr: ctxHdr(ctxB), ResourceID: blobGuest, Box: virtiogpu.Box{W: 4, H: 4, D: 1}}, virtiogpu.CmdTransferToHost3D),
		typed(&virtiogpu.CtxResource{CtrlHdr: ctxHdr(ctxB), ResourceID: blobGuest}, virtiogpu.CmdCtxDetachResource),
		(&virtiogpu.CtrlHdr{Type: virtiogpu.CmdCtxDestroy, CtxID: ctxB}).Append(nil),
		(&virtiogpu.ResourceUnref{ResourceID: blobGuest}).Append(nil),
	} {
		contexts = fuzzStep(contexts, cmd)
	}
	f.Add(contexts)
	f.Fuzz(func(t *testing.T, data []byte) {
		m := newMachine(t, machineConfig{profile: vhostusertest.QEMU11B, outOfBounds: true, ram: 4 << 20})
		malformedBlobState(m)
		for range fuzzMost {
			if len(data) < fuzzHead {
				break
			}
			data = m.fuzzStep(data)
		}
		m.ok((&virtiogpu.CtrlHdr{Type: virtiogpu.CmdGetDisplayInfo}).Append(nil))
		m.reboot()
		if n := len(m.FE.Mappings()); n != 0 {
			t.Errorf("%d mappings after a reset", n)
		}
		if st := m.dev.Status(true); len(st.Resources)+len(st.Contexts)+len(st.Scanouts) != 0 || st.Window.Placements != 0 {
			t.Errorf("after a reset: %d resources, %d contexts, %d scanouts, window %+v", len(st.Resources), len(st.Contexts), len(st.Scanouts), st.Window)
		}
		for _, p := range m.FE.Problems() {
			// Neither can be helped: a request may be on its way when the device stops,
			// and what was mapped at a start is QEMU's until it is unmapped.
			if !strings.Contains(p, "while the device is stopped") && !strings.Contains(p, "at the next start") {
				t.Error(p)
			}
		}
	})
}

func (m *machine) reboot() {
	m.t.Helper()
	if err := m.Reset(); err != nil {
		m.t.Fatal(err)
	}
	if err := m.Boot(); err != nil {
		m.t.Fatal(err)
	}
}

// fuzzStep does the first step of data and returns the rest.
func (m *machine) fuzzStep(data []byte) []byte {
	m.t.Helper()
	kind, ctx, flags, n := data[0], data[1], data[2], int(data[3])
	data = data[fuzzHead:]
	switch kind {
	case fuzzReset:
		m.reboot()
		return data
	case fuzzStop:
		if err := m.Stop(); err != nil {
			m.t.Fatal(err)
		}
		if err := m.Cont(); err != nil {
			m.t.Fatal(err)
		}
		return data
	}
	n = min(n, len(data))
	hdr := virtiogpu.CtrlHdr{
		Type: fuzzCommands[int(kind)%len(fuzzCommands)], CtxID: uint32(ctx), FenceID: 5,
		Flags: uint32(flags) & (virtiogpu.FlagFence | virtiogpu.FlagInfoRingIdx),
	}
	m.do(append(hdr.Append(nil), data[:n]...))
	return data[n:]
}
