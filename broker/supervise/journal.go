package supervise

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// journal is what a front-end said, as far as it still means something: what another
// back-end has to hear to be where the first one was.
type journal struct{ lines map[slot]line }

// slot is what a line is about: a later one takes its place.
type slot struct {
	req   vhostuser.Request
	index uint64 // of the ring, or the address of the memory region
}

type line struct {
	payload []byte
	fds     []*dmabuf.FD
}

func (l line) close() {
	for _, fd := range l.fds {
		_ = fd.Close()
	}
}

// order is that of a front-end that connects; rings start last.
var order = map[vhostuser.Request]int{
	vhostuser.ReqSetOwner: 1, vhostuser.ReqSetProtocolFeatures: 2, vhostuser.ReqSetBackendReqFD: 3, vhostuser.ReqGPUSetSocket: 4,
	vhostuser.ReqSetFeatures: 5, vhostuser.ReqAddMemReg: 6, vhostuser.ReqSetVringNum: 7, vhostuser.ReqSetVringAddr: 8,
	vhostuser.ReqSetVringBase: 9, vhostuser.ReqSetVringErr: 10, vhostuser.ReqSetVringCall: 11, vhostuser.ReqSetVringKick: 12,
	vhostuser.ReqSetVringEnable: 13,
}

func newJournal() *journal { return &journal{lines: map[slot]line{}} }

func (j *journal) set(s slot, payload []byte, fds ...*dmabuf.FD) {
	j.remove(s)
	j.lines[s] = line{slices.Clone(payload), fds}
}

func (j *journal) remove(s slot) {
	j.lines[s].close()
	delete(j.lines, s)
}

func (j *journal) removeAll(req vhostuser.Request) {
	for s := range j.lines {
		if s.req == req {
			j.remove(s)
		}
	}
}

func (j *journal) clear() {
	for s := range j.lines {
		j.remove(s)
	}
}

// note takes over what a message changed, after the worker accepted it. The message's
// descriptors are taken where they are needed again; reply is the worker's answer.
func (j *journal) note(m *vhostuser.Message, reply []byte) {
	req := vhostuser.Request(m.Request)
	switch req {
	case vhostuser.ReqSetOwner, vhostuser.ReqSetProtocolFeatures, vhostuser.ReqSetFeatures:
		j.set(slot{req: req}, m.Payload)
	case vhostuser.ReqSetBackendReqFD, vhostuser.ReqGPUSetSocket:
		j.set(slot{req: req}, m.Payload, m.TakeFD(0))
	case vhostuser.ReqSetVringNum, vhostuser.ReqSetVringBase, vhostuser.ReqSetVringEnable, vhostuser.ReqSetVringAddr:
		j.set(slot{req, uint64(binary.LittleEndian.Uint32(m.Payload))}, m.Payload)
	case vhostuser.ReqSetVringKick, vhostuser.ReqSetVringCall, vhostuser.ReqSetVringErr:
		j.noteEvent(req, m)
	case vhostuser.ReqGetVringBase:
		index := uint64(binary.LittleEndian.Uint32(m.Payload))
		j.set(slot{vhostuser.ReqSetVringBase, index}, reply)
		j.remove(slot{vhostuser.ReqSetVringKick, index}) // the ring has stopped
	case vhostuser.ReqResetDevice, vhostuser.ReqResetOwner:
		j.removeAll(vhostuser.ReqSetVringEnable)
	case vhostuser.ReqSetMemTable:
		j.noteTable(m)
	case vhostuser.ReqAddMemReg:
		if r, err := vhostuser.DecodeSingleRegion(m.Payload); err == nil {
			j.set(slot{req, r.GPA}, m.Payload, m.TakeFD(0))
		}
	case vhostuser.ReqRemMemReg:
		if r, err := vhostuser.DecodeSingleRegion(m.Payload); err == nil {
			j.remove(slot{vhostuser.ReqAddMemReg, r.GPA})
		}
	}
}

func (j *journal) noteEvent(req vhostuser.Request, m *vhostuser.Message) {
	v, err := vhostuser.DecodeVringFD(m.Payload)
	if err != nil {
		return
	}
	s := slot{req, uint64(v.Index)}
	if fd := m.TakeFD(0); fd != nil {
		j.set(s, m.Payload, fd)
	} else {
		j.set(s, m.Payload)
	}
}

// noteTable keeps a whole table as its regions.
func (j *journal) noteTable(m *vhostuser.Message) {
	t, err := vhostuser.DecodeMemTable(m.Payload)
	if err != nil || t.N > len(m.FDs) {
		return
	}
	j.removeAll(vhostuser.ReqAddMemReg)
	for i := range t.N {
		j.set(slot{vhostuser.ReqAddMemReg, t.Regions[i].GPA}, vhostuser.AppendSingleRegion(nil, t.Regions[i]), m.TakeFD(i))
	}
}

// slots lists what has to be said again, in order.
func (j *journal) slots() []slot {
	var out []slot
	for s := range j.lines {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b slot) int {
		return cmp.Or(cmp.Compare(order[a.req], order[b.req]), cmp.Compare(a.index, b.index))
	})
	return out
}
