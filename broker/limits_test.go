package broker_test

import (
	"testing"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
)

// TestLimits: what is one too many is refused for lack of memory, and taken once
// something else has gone.
func TestLimits(t *testing.T) {
	blob := func(id uint32, size uint64) []byte {
		return createBlob(virtiogpu.CtrlHdr{}, id, virtiogpu.BlobMemHost3D, virtiogpu.BlobFlagMappable, 0, size, nil)
	}
	create := func(id, w uint32) []byte {
		return (&virtiogpu.ResourceCreate2D{ResourceID: id, Format: virtiogpu.FormatB8G8R8X8, Width: w, Height: 1}).Append(nil)
	}
	unref := func(id uint32) []byte { return (&virtiogpu.ResourceUnref{ResourceID: id}).Append(nil) }
	pieces := func(id uint32, n uint64) []byte {
		cmd := (&virtiogpu.ResourceAttachBacking{ResourceID: id, NrEntries: uint32(n)}).Append(nil)
		for i := range n {
			cmd = virtiogpu.MemEntry{Addr: 1<<20 + i*8192, Length: 4096}.Append(cmd)
		}
		return cmd
	}
	for _, tt := range []struct {
		name   string
		limits broker.Limits
		fill   [][]byte // taken
		over   []byte   // refused
		free   []byte   // makes room
	}{
		{"resources", broker.Limits{Resources: 2}, [][]byte{create(1, 8), create3D(2, 8, 8)}, blob(3, 4096), unref(2)},
		{"2D resources", broker.Limits{Owned: 2}, [][]byte{create(1, 8), blob(2, 4096), create3D(4, 8, 8)}, create(3, 8), unref(2)},
		{"host blobs", broker.Limits{Owned: 1}, [][]byte{create(1, 8)}, blob(3, 4096), unref(1)},
		{"bytes", broker.Limits{Bytes: 16 << 10}, [][]byte{create(1, 1024), blob(2, 8192)}, create3D(3, 64, 48), unref(2)},
		{"bytes of one", broker.Limits{Bytes: 16 << 10}, [][]byte{create(1, 4096)}, create3D(3, 1, 1), unref(1)},
		{"pieces", broker.Limits{Pieces: 10}, [][]byte{create(1, 8), create(2, 8), pieces(1, 8)}, pieces(2, 4), unref(1)},
		{"contexts", broker.Limits{Contexts: 1}, [][]byte{(&virtiogpu.CtxCreate{CtrlHdr: ctxHdr(1)}).Append(nil)},
			(&virtiogpu.CtxCreate{CtrlHdr: ctxHdr(2)}).Append(nil), (&virtiogpu.CtrlHdr{Type: virtiogpu.CmdCtxDestroy, CtxID: 1}).Append(nil)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t, machineConfig{profile: vhostusertest.QEMU11B, limits: tt.limits})
			for _, cmd := range tt.fill {
				m.ok(cmd)
			}
			for range 3 {
				if typ, _ := m.do(tt.over); typ != outOfMemory {
					t.Fatalf("one too many: %v", typ)
				}
			}
			m.ok(tt.free)
			m.ok(tt.over)
		})
	}
}
