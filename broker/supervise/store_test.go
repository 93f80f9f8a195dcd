package supervise

import (
	"fmt"
	"slices"
	"testing"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/keep"
	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/dmabuf"
)

func memfd(t *testing.T) *dmabuf.FD {
	t.Helper()
	fd, err := dmabuf.NewMemfd("test", 4096)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// TestStore: an entry takes the place of the one before, and a worker that keeps too
// much loses what is too much.
func TestStore(t *testing.T) {
	s := newStore(zap.NewNop())
	put := func(key string, n int) {
		s.put(&keep.Message{Key: key, Value: make([]byte, n), FDs: []*dmabuf.FD{memfd(t)}})
	}
	put("gpu/a", 10)
	put("gpu/a", 20)
	put("import/a", 30)
	if len(s.entries) != 2 || s.bytes != 50 {
		t.Errorf("%d entries of %d bytes", len(s.entries), s.bytes)
	}
	s.put(&keep.Message{Key: "gpu/b", FDs: []*dmabuf.FD{memfd(t), memfd(t)}})
	for i := range maxBytes/keep.MaxValue + 2 {
		s.put(&keep.Message{Key: fmt.Sprintf("gpu/%d", i), Value: make([]byte, keep.MaxValue)})
	}
	if s.bytes > maxBytes || !s.full || s.entries["gpu/b"] != nil {
		t.Errorf("%d bytes are kept, limit %d", s.bytes, maxBytes)
	}
	s.clear("gpu/")
	if list := s.list(); len(list) != 1 || list[0].Key != "import/a" || s.bytes != 30 {
		t.Errorf("%d entries left, %d bytes", len(list), s.bytes)
	}
	s.clear("")
	if len(s.entries) != 0 || s.bytes != 0 {
		t.Errorf("%d entries, %d bytes left", len(s.entries), s.bytes)
	}
}

// TestJournal: what is told again is the last word on each thing, in an order in which
// rings start last.
func TestJournal(t *testing.T) {
	j := newJournal()
	defer j.clear()
	note := func(req vhostuser.Request, payload []byte, fds ...*dmabuf.FD) {
		t.Helper()
		m := &vhostuser.Message{Request: uint32(req), Payload: payload, FDs: fds}
		j.note(m, vhostuser.VringState{Index: 1, Num: 77}.Append(nil))
		m.CloseFDs()
	}
	ring := func(n uint32) []byte { return vhostuser.VringState{Index: 1, Num: n}.Append(nil) }
	region := func(gpa uint64) vhostuser.MemRegion { return vhostuser.MemRegion{GPA: gpa, Size: 4096} }
	for range 2 {
		note(vhostuser.ReqSetVringEnable, ring(1))
		note(vhostuser.ReqSetVringKick, vhostuser.VringFD{Index: 1}.Append(nil), memfd(t))
		note(vhostuser.ReqSetVringCall, vhostuser.VringFD{Index: 1, NoFD: true}.Append(nil))
		note(vhostuser.ReqSetVringBase, ring(5))
		note(vhostuser.ReqAddMemReg, vhostuser.AppendSingleRegion(nil, region(0x9000)), memfd(t))
	}
	table := vhostuser.MemTable{N: 2}
	table.Regions[0], table.Regions[1] = region(0), region(0x5000)
	note(vhostuser.ReqSetMemTable, table.Append(nil), memfd(t), memfd(t))
	note(vhostuser.ReqRemMemReg, vhostuser.AppendSingleRegion(nil, region(0)))
	note(vhostuser.ReqGPUSetSocket, nil, memfd(t))
	note(vhostuser.ReqSetFeatures, vhostuser.AppendU64(nil, 3))
	note(vhostuser.ReqGetConfig, make([]byte, 12))
	want := []slot{
		{vhostuser.ReqGPUSetSocket, 0}, {vhostuser.ReqSetFeatures, 0}, {vhostuser.ReqAddMemReg, 0x5000}, {vhostuser.ReqSetVringBase, 1},
		{vhostuser.ReqSetVringCall, 1}, {vhostuser.ReqSetVringKick, 1}, {vhostuser.ReqSetVringEnable, 1},
	}
	if got := j.slots(); !slices.Equal(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
	note(vhostuser.ReqGetVringBase, ring(0)) // stops the ring
	note(vhostuser.ReqResetDevice, nil)
	want = want[:5]
	if got := j.slots(); !slices.Equal(got, want) {
		t.Errorf("after a stop: %v\nwant %v", got, want)
	}
	if st, err := vhostuser.DecodeVringState(j.lines[slot{vhostuser.ReqSetVringBase, 1}].payload); err != nil || st.Num != 77 {
		t.Errorf("the ring's base is %+v, %v: want the worker's answer", st, err)
	}
}
