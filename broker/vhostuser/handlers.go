package vhostuser

import (
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/guestmem"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// handler is a row of the table: what to do, and on which thread. It returns the
// payload of the request's own reply, if it has one, appended to out.
type handler struct {
	run    func(s *session, m *Message, out []byte) ([]byte, error)
	render bool // inside Executor.Call
	// stops reports whether the message begins to stop the device; nil: never.
	stops func(m *Message) bool
}

func always(*Message) bool { return true }

func disables(m *Message) bool {
	st, err := DecodeVringState(m.Payload)
	return err == nil && st.Num == 0
}

// handlers has the same rows as rules.
var handlers = [len(rules)]handler{
	ReqGetFeatures:         {run: getFeatures},
	ReqSetFeatures:         {run: setFeatures, render: true},
	ReqSetOwner:            {run: nothing},
	ReqResetOwner:          {run: resetOwner, render: true, stops: always},
	ReqSetMemTable:         {run: setMemTable, render: true},
	ReqSetVringNum:         {run: setVringNum, render: true},
	ReqSetVringAddr:        {run: setVringAddr, render: true},
	ReqSetVringBase:        {run: setVringBase, render: true},
	ReqGetVringBase:        {run: getVringBase, render: true, stops: always},
	ReqSetVringKick:        {run: setVringKick, render: true},
	ReqSetVringCall:        {run: setVringCall, render: true},
	ReqSetVringErr:         {run: setVringErr, render: true},
	ReqGetProtocolFeatures: {run: getProtocolFeatures},
	ReqSetProtocolFeatures: {run: setProtocolFeatures},
	ReqGetQueueNum:         {run: getQueueNum},
	ReqSetVringEnable:      {run: setVringEnable, render: true, stops: disables},
	ReqSetBackendReqFD:     {run: setBackendReqFD},
	ReqGetConfig:           {run: getConfig},
	ReqSetConfig:           {run: setConfig},
	ReqGPUSetSocket:        {run: gpuSetSocket, render: true},
	ReqResetDevice:         {run: resetDevice, render: true, stops: always},
	ReqGetMaxMemSlots:      {run: getMaxMemSlots},
	ReqAddMemReg:           {run: addMemReg, render: true},
	ReqRemMemReg:           {run: remMemReg, render: true},
	ReqGetShmemConfig:      {run: getShmemConfig},
}

func nothing(_ *session, _ *Message, out []byte) ([]byte, error) { return out, nil }

func getFeatures(s *session, _ *Message, out []byte) ([]byte, error) {
	f := s.dev.Features()&^(refusedFeatures|FLogAll) | transportFeatures
	return AppendU64(out, f), nil
}

func setFeatures(s *session, m *Message, out []byte) ([]byte, error) {
	bits, err := DecodeU64(m.Payload)
	if err != nil {
		return out, err
	}
	if bad := bits & refusedFeatures; bad != 0 {
		return out, fmt.Errorf("%w: driver bits %#x (access platform 33, packed ring 34, in order 35); turn iommu_platform, packed and in_order off", ErrFeature, bad)
	}
	s.hasFeatures = false // no ring starts with features that the device refused
	if err := s.dev.SetFeatures(bits); err != nil {
		return out, err
	}
	s.features, s.hasFeatures = bits, true
	return out, s.updateRings()
}

func getProtocolFeatures(s *session, _ *Message, out []byte) ([]byte, error) {
	return AppendU64(out, uint64(s.proto)), nil
}

func setProtocolFeatures(s *session, m *Message, out []byte) ([]byte, error) {
	bits, err := DecodeU64(m.Payload)
	if err != nil {
		return out, err
	}
	if extra := ProtocolFeature(bits) &^ s.proto; extra != 0 {
		return out, fmt.Errorf("%w: protocol features %#x were not offered", ErrMessage, uint64(extra))
	}
	s.acked = ProtocolFeature(bits)
	return out, nil
}

func getQueueNum(s *session, _ *Message, out []byte) ([]byte, error) {
	return AppendU64(out, uint64(len(s.rings))), nil
}

func getMaxMemSlots(_ *session, _ *Message, out []byte) ([]byte, error) {
	return AppendU64(out, guestmem.MaxRegions), nil
}

func getShmemConfig(s *session, _ *Message, out []byte) ([]byte, error) {
	if s.cfg.Shmem == nil {
		return (&ShmemConfig{}).Append(out), nil
	}
	return s.cfg.Shmem.Append(out), nil
}

// getConfig answers with size 0 on an error, as the protocol wants.
func getConfig(s *session, m *Message, out []byte) ([]byte, error) {
	c, err := DecodeConfig(m.Payload)
	if err != nil {
		s.log.Warn("config read refused", zap.Error(err))
		return ConfigSpace{}.Append(out), nil
	}
	var space [MaxConfig]byte
	end := int(c.Offset) + len(c.Data)
	s.dev.ReadConfig(space[:end])
	c.Data = space[c.Offset:end]
	return c.Append(out), nil
}

func setConfig(s *session, m *Message, out []byte) ([]byte, error) {
	c, err := DecodeConfig(m.Payload)
	if err != nil {
		return out, err
	}
	return out, s.dev.WriteConfig(c.Offset, c.Data)
}

func setBackendReqFD(s *session, m *Message, out []byte) ([]byte, error) {
	conn, err := FromFD(m.TakeFD(0))
	if err != nil {
		return out, err
	}
	s.channel.setGate(false)
	s.channel.close()
	s.channel = newChannel(conn, s.acked, s.resuming > 0, s.cfg.Half)
	s.cfg.Executor.Call(func() {
		s.announceChannel(s.channel)
		s.channel.setGate(s.anyRunning())
	})
	return out, nil
}

func gpuSetSocket(s *session, m *Message, out []byte) ([]byte, error) {
	s.dev.DisplaySocket(m.TakeFD(0))
	return out, nil
}

func resetOwner(s *session, _ *Message, out []byte) ([]byte, error) {
	s.stopAll()
	return out, nil
}

func resetDevice(s *session, _ *Message, out []byte) ([]byte, error) {
	s.stopAll()
	s.dev.Reset()
	return out, nil
}

func (s *session) stopAll() {
	for i := range s.rings {
		s.stopRing(i)
		s.rings[i].enabled = false
	}
}

func setMemTable(s *session, m *Message, out []byte) ([]byte, error) {
	t, err := DecodeMemTable(m.Payload)
	if err != nil {
		return out, err
	}
	if t.N != len(m.FDs) {
		return out, fmt.Errorf("%w: %d regions with %d descriptors", ErrMessage, t.N, len(m.FDs))
	}
	specs := make([]guestmem.RegionSpec, t.N)
	for i := range specs {
		s.channel.owns(m.FDs[i])
		specs[i] = t.Regions[i].spec(m.TakeFD(i))
	}
	if err := s.mem.Set(specs); err != nil {
		return out, err
	}
	s.memChanged()
	return out, nil
}

// errOwnMapping refuses to take our own mappings back as memory regions while the
// device runs. QEMU 11.1 drops the mappings when the guest resets the device, but
// not from its table of the regions that we took, and crashes at the next start
// when it wants to remove them there. It goes on after a refusal, and we know the
// files already. Only while rings start it must be taken: there QEMU gives up.
var errOwnMapping = errors.New("a mapping of ours")

func addMemReg(s *session, m *Message, out []byte) ([]byte, error) {
	r, err := DecodeSingleRegion(m.Payload)
	if err != nil {
		return out, err
	}
	if s.channel.owns(m.FDs[0]) && s.anyRunning() {
		return out, errOwnMapping
	}
	if err := s.mem.Add(r.spec(m.TakeFD(0))); err != nil {
		return out, err
	}
	s.memChanged()
	return out, nil
}

func remMemReg(s *session, m *Message, out []byte) ([]byte, error) {
	r, err := DecodeSingleRegion(m.Payload)
	if err != nil {
		return out, err
	}
	if err := s.mem.Remove(r.spec(m.TakeFD(0))); err != nil {
		return out, err
	}
	s.memChanged()
	return out, nil
}

func (r MemRegion) spec(fd *dmabuf.FD) guestmem.RegionSpec {
	return guestmem.RegionSpec{GPA: r.GPA, Size: r.Size, UserAddr: r.UserAddr, MmapOffset: r.MmapOffset, FD: fd}
}

func (s *session) memChanged() {
	if !s.toldUnseal && !s.mem.Sealed() {
		s.toldUnseal = true
		s.log.Warn("guest memory can shrink under us: use memory-backend-memfd with seal=on, its default")
	}
	s.remapRings()
}
