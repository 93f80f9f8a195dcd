package vhostuser

import (
	"encoding/binary"
	"fmt"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// Sizes of the wire format in bytes.
const (
	headerSize = 12
	// maxPayload bounds what is read from a peer. The largest request is
	// SET_MEM_TABLE with 264 bytes, the largest reply GET_SHMEM_CONFIG with 2056.
	maxPayload = 4096
	// maxFDs bounds the descriptors of one message; SET_MEM_TABLE has 8.
	maxFDs = 16
)

// Header flags.
const (
	flagVersionMask = 0x3
	flagVersion     = 0x1

	FlagReply     = 0x4 // the message answers a request
	FlagNeedReply = 0x8 // the sender waits for a status (REPLY_ACK)
)

// Request is a message number from front-end to back-end.
type Request uint32

// Requests of the front-end.
const (
	ReqGetFeatures         Request = 1
	ReqSetFeatures         Request = 2
	ReqSetOwner            Request = 3
	ReqResetOwner          Request = 4
	ReqSetMemTable         Request = 5
	ReqSetLogBase          Request = 6
	ReqSetLogFD            Request = 7
	ReqSetVringNum         Request = 8
	ReqSetVringAddr        Request = 9
	ReqSetVringBase        Request = 10
	ReqGetVringBase        Request = 11
	ReqSetVringKick        Request = 12
	ReqSetVringCall        Request = 13
	ReqSetVringErr         Request = 14
	ReqGetProtocolFeatures Request = 15
	ReqSetProtocolFeatures Request = 16
	ReqGetQueueNum         Request = 17
	ReqSetVringEnable      Request = 18
	ReqSetBackendReqFD     Request = 21
	ReqGetConfig           Request = 24
	ReqSetConfig           Request = 25
	ReqGetInflightFD       Request = 31
	ReqSetInflightFD       Request = 32
	ReqGPUSetSocket        Request = 33
	ReqResetDevice         Request = 34
	ReqGetMaxMemSlots      Request = 36
	ReqAddMemReg           Request = 37
	ReqRemMemReg           Request = 38
	ReqSetStatus           Request = 39
	ReqGetStatus           Request = 40
	ReqGetShmemConfig      Request = 44
)

// BackendRequest is a message number from back-end to front-end, on the channel
// of SET_BACKEND_REQ_FD.
type BackendRequest uint32

// Requests of the back-end.
const (
	BackendConfigChange BackendRequest = 2
	BackendShmemMap     BackendRequest = 9
	BackendShmemUnmap   BackendRequest = 10
)

// replyKind says what goes back after a request.
type replyKind uint8

const (
	replyAck replyKind = iota // a u64 status, if the request asks for it
	replyOwn                  // a reply of its own, always
)

// rule is what is known about a request before its values are looked at.
type rule struct {
	name   string
	min    uint32 // payload bytes
	max    uint32
	minFDs int
	maxFDs int
	reply  replyKind
}

// rules has a row per request that a gpu back-end serves. Everything else is
// unknown, whatever its number.
var rules = [...]rule{
	ReqGetFeatures:         {name: "GET_FEATURES", reply: replyOwn},
	ReqSetFeatures:         {name: "SET_FEATURES", min: 8, max: 8},
	ReqSetOwner:            {name: "SET_OWNER"},
	ReqResetOwner:          {name: "RESET_OWNER"},
	ReqSetMemTable:         {name: "SET_MEM_TABLE", min: 8, max: 8 + maxTableRegions*regionSize, maxFDs: maxTableRegions},
	ReqSetVringNum:         {name: "SET_VRING_NUM", min: 8, max: 8},
	ReqSetVringAddr:        {name: "SET_VRING_ADDR", min: 40, max: 40},
	ReqSetVringBase:        {name: "SET_VRING_BASE", min: 8, max: 8},
	ReqGetVringBase:        {name: "GET_VRING_BASE", min: 8, max: 8, reply: replyOwn},
	ReqSetVringKick:        {name: "SET_VRING_KICK", min: 8, max: 8, maxFDs: 1},
	ReqSetVringCall:        {name: "SET_VRING_CALL", min: 8, max: 8, maxFDs: 1},
	ReqSetVringErr:         {name: "SET_VRING_ERR", min: 8, max: 8, maxFDs: 1},
	ReqGetProtocolFeatures: {name: "GET_PROTOCOL_FEATURES", reply: replyOwn},
	ReqSetProtocolFeatures: {name: "SET_PROTOCOL_FEATURES", min: 8, max: 8},
	ReqGetQueueNum:         {name: "GET_QUEUE_NUM", reply: replyOwn},
	ReqSetVringEnable:      {name: "SET_VRING_ENABLE", min: 8, max: 8},
	ReqSetBackendReqFD:     {name: "SET_BACKEND_REQ_FD", minFDs: 1, maxFDs: 1},
	ReqGetConfig:           {name: "GET_CONFIG", min: configHead, max: configHead + MaxConfig, reply: replyOwn},
	ReqSetConfig:           {name: "SET_CONFIG", min: configHead, max: configHead + MaxConfig},
	ReqGPUSetSocket:        {name: "GPU_SET_SOCKET", minFDs: 1, maxFDs: 1},
	ReqResetDevice:         {name: "RESET_DEVICE"},
	ReqGetMaxMemSlots:      {name: "GET_MAX_MEM_SLOTS", reply: replyOwn},
	ReqAddMemReg:           {name: "ADD_MEM_REG", min: 8 + regionSize, max: 8 + regionSize, minFDs: 1, maxFDs: 1},
	ReqRemMemReg:           {name: "REM_MEM_REG", min: 8 + regionSize, max: 8 + regionSize, maxFDs: 1},
	ReqGetShmemConfig:      {name: "GET_SHMEM_CONFIG", max: 8 + 8*MaxShmemRegions, reply: replyOwn},
}

func (r Request) rule() (rule, bool) {
	if int64(r) >= int64(len(rules)) || rules[r].name == "" {
		return rule{}, false
	}
	return rules[r], true
}

// Answers reports whether the request has a reply of its own, whether or not the sender
// asks for a status.
func (r Request) Answers() bool {
	ru, ok := r.rule()
	return ok && ru.reply == replyOwn
}

func (r Request) String() string {
	if ru, ok := r.rule(); ok {
		return ru.name
	}
	return fmt.Sprintf("request %d", uint32(r))
}

func (r BackendRequest) String() string {
	switch r {
	case BackendConfigChange:
		return "CONFIG_CHANGE_MSG"
	case BackendShmemMap:
		return "SHMEM_MAP"
	case BackendShmemUnmap:
		return "SHMEM_UNMAP"
	}
	return fmt.Sprintf("backend request %d", uint32(r))
}

// header is the first 12 bytes of a message.
type header struct {
	request uint32
	flags   uint32
	size    uint32 // payload bytes
}

func decodeHeader(p []byte) (header, error) {
	if len(p) < headerSize {
		return header{}, fmt.Errorf("%w: header of %d bytes, must be %d", ErrProtocol, len(p), headerSize)
	}
	h := header{
		request: binary.LittleEndian.Uint32(p[0:]),
		flags:   binary.LittleEndian.Uint32(p[4:]),
		size:    binary.LittleEndian.Uint32(p[8:]),
	}
	if v := h.flags & flagVersionMask; v != flagVersion {
		return h, fmt.Errorf("%w: version %d in header flags %#x, must be %d", ErrProtocol, v, h.flags, flagVersion)
	}
	if h.size > maxPayload {
		return h, fmt.Errorf("%w: payload of %d bytes, limit %d", ErrProtocol, h.size, maxPayload)
	}
	return h, nil
}

func (h header) append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, h.request)
	dst = binary.LittleEndian.AppendUint32(dst, h.flags)
	return binary.LittleEndian.AppendUint32(dst, h.size)
}

// Message is one message as it came from the socket. Payload is valid until the
// next read; the descriptors belong to the message until TakeFD.
type Message struct {
	Request uint32
	Flags   uint32
	Payload []byte
	FDs     []*dmabuf.FD
}

// IsReply reports whether the message answers a request of ours.
func (m *Message) IsReply() bool { return m.Flags&FlagReply != 0 }

// NeedReply reports whether the sender waits for a status.
func (m *Message) NeedReply() bool { return m.Flags&FlagNeedReply != 0 }

// TakeFD passes the ownership of the i-th descriptor to the caller; nil if there
// is none.
func (m *Message) TakeFD(i int) *dmabuf.FD {
	if i >= len(m.FDs) {
		return nil
	}
	fd := m.FDs[i]
	m.FDs[i] = nil
	return fd
}

// CloseFDs closes the descriptors that were not taken.
func (m *Message) CloseFDs() {
	for i, fd := range m.FDs {
		_ = fd.Close()
		m.FDs[i] = nil
	}
	m.FDs = m.FDs[:0]
}

// check compares a request with its row.
func (m *Message) check() (rule, error) {
	ru, ok := Request(m.Request).rule()
	if !ok {
		return ru, ErrUnknown
	}
	n := uint32(len(m.Payload))
	if n < ru.min || n > ru.max {
		return ru, fmt.Errorf("%w: payload of %d bytes, must be %d to %d", ErrMessage, n, ru.min, ru.max)
	}
	if f := len(m.FDs); f < ru.minFDs || f > ru.maxFDs {
		return ru, fmt.Errorf("%w: %d descriptors, must be %d to %d", ErrMessage, f, ru.minFDs, ru.maxFDs)
	}
	return ru, nil
}
