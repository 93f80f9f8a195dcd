package crossdomain

import (
	"encoding/binary"
	"fmt"
)

// CapsetID is the id of the capability set, and of the context type.
const CapsetID = 5

// SizeCapset is the size of the capability set, in bytes.
const SizeCapset = 16

// capsetVersion says: every command up to and including WRITE.
const capsetVersion = 1

// Cmd is the first byte of a command.
type Cmd uint8

// The commands. Receive and Read go to the guest, in a ring.
const (
	CmdInit                 Cmd = 1
	CmdGetImageRequirements Cmd = 2
	CmdPoll                 Cmd = 3
	CmdSend                 Cmd = 4
	CmdReceive              Cmd = 5
	CmdRead                 Cmd = 6
	CmdWrite                Cmd = 7
)

var cmdNames = map[Cmd]string{
	CmdInit: "INIT", CmdGetImageRequirements: "GET_IMAGE_REQUIREMENTS", CmdPoll: "POLL", CmdSend: "SEND",
	CmdReceive: "RECEIVE", CmdRead: "READ", CmdWrite: "WRITE",
}

func (c Cmd) String() string {
	if s, ok := cmdNames[c]; ok {
		return s
	}
	return fmt.Sprintf("command %d", uint8(c))
}

// ChannelType says what a context is connected to. The capability set has bit
// 1<<type for each type below 32 that is offered.
type ChannelType uint32

// The types that this host knows.
const (
	ChannelNone    ChannelType = 0 // a query ring only
	ChannelWayland ChannelType = 1
	// ChannelStream is our own: the bytes of a gpubroker link (package link). Nobody
	// else uses a number above 0x13 and below the top.
	ChannelStream ChannelType = 31
)

// IDType says what an identifier stands for.
type IDType uint32

// The types of identifiers. SEND may have blobs and read pipes, RECEIVE blobs and
// write pipes; the others are named so that an error can say what was refused.
const (
	IDBlob      IDType = 1 // SEND: a resource id; RECEIVE: the blob_id of a blob to be made
	IDSync      IDType = 2 // defined by others, and served by nobody
	IDReadPipe  IDType = 3 // the guest reads: the host makes a pipe and gives its write end away
	IDWritePipe IDType = 4 // the guest writes, with WRITE
	IDEvent     IDType = 5 // elsewhere an eventfd, or shared memory
	IDFile      IDType = 6 // elsewhere a file of virtio-fs, or an eventfd
	IDSocket    IDType = 7 // elsewhere a socket
)

// Rings of fences.
const (
	RingQuery   = 0
	RingChannel = 1
)

// Sizes, in bytes.
const (
	sizeHeader       = 8
	SizeInitOld      = 16 // one ring for both uses
	SizeInit         = 20
	SizeInitLibkrun  = 24 // with protocol_version
	SizeInitUUID     = 36 // with a socket's UUID, which nobody here uses
	SizePoll         = 16
	SizeImageQuery   = 24
	SizeImageReply   = 64
	SizeReadWrite    = 24 // READ and WRITE, without data
	SizeSendReceive  = 352
	SizeSendReceive4 = 64 // with four identifiers
	MaxIDs           = 28
	MaxIDsOld        = 4
	maxCommand       = 65535 // cmd_size has 16 bits
)

// Identifiers that the host chooses count from firstItem, those of read pipes are
// the guest's choice from firstReadPipe on.
const (
	firstItem     = 2
	firstReadPipe = 0x80000001
)

// pageData is the most that others' guests expect of a message for the guest: a
// page with everything.
const pageData = 4096

var le = binary.LittleEndian

// header is the start of a command.
type header struct {
	cmd  Cmd
	size int // of the command with its data
}

// nextCommand splits the first command off p, whole.
func nextCommand(p []byte) (h header, cmd, rest []byte, err error) {
	if len(p) < sizeHeader {
		return h, nil, nil, malformed("%d bytes are left, a header has %d", len(p), sizeHeader)
	}
	h = header{Cmd(p[0]), int(le.Uint16(p[2:]))}
	if h.size < sizeHeader || h.size > len(p) {
		return h, nil, nil, malformed("cmd_size %d of %v, want %d to %d", h.size, h.cmd, sizeHeader, len(p))
	}
	return h, p[:h.size], p[h.size:], nil
}

// initCommand is INIT.
type initCommand struct {
	queryRing, channelRing uint32 // resource ids
	channel                ChannelType
	ids                    int  // identifiers in a message, 0: not said
	libkrun                bool // sent by a guest of libkrun's dialect
}

// decodeInit decodes INIT, whose form is known by its size.
func decodeInit(p []byte) (c initCommand, err error) {
	switch len(p) {
	case SizeInitOld:
		c.queryRing, c.channel = le.Uint32(p[8:]), ChannelType(le.Uint32(p[12:]))
		c.channelRing = c.queryRing
		return c, nil
	case SizeInit, SizeInitUUID:
	case SizeInitLibkrun:
		c.libkrun, c.ids = true, MaxIDsOld
		if le.Uint32(p[20:]) > 0 {
			c.ids = MaxIDs
		}
	default:
		return c, malformed("cmd_size %d, want %d, %d, %d or %d", len(p), SizeInitOld, SizeInit, SizeInitLibkrun, SizeInitUUID)
	}
	c.queryRing, c.channelRing, c.channel = le.Uint32(p[8:]), le.Uint32(p[12:]), ChannelType(le.Uint32(p[16:]))
	return c, nil
}

// message is SEND or RECEIVE.
type message struct {
	ids   []id
	data  []byte
	slots int // identifiers that the layout has room for
}

type id struct {
	id   uint32
	typ  IDType
	size uint32
}

// sizeOf returns the size of a message's fixed part.
func sizeOf(slots int) int { return 16 + 12*slots }

// decodeSend decodes SEND. Whether it has room for 28 identifiers or 4 shows in its
// size; known, if not 0, is what it was before.
func decodeSend(p []byte, known int) (m message, err error) {
	if len(p) < sizeOf(MaxIDsOld) {
		return m, malformed("cmd_size %d, want at least %d", len(p), sizeOf(MaxIDsOld))
	}
	n, size := uint64(le.Uint32(p[8:])), uint64(le.Uint32(p[12:]))
	total := uint64(len(p))
	switch {
	case total == size+SizeSendReceive:
		m.slots = MaxIDs
	case total == size+SizeSendReceive4:
		m.slots = MaxIDsOld
	case known == MaxIDsOld && total > size+SizeSendReceive4:
		m.slots = MaxIDsOld
	case total > size+SizeSendReceive:
		m.slots = MaxIDs
	default:
		return m, malformed("cmd_size %d with %d bytes of data, want %d or %d", total, size, size+SizeSendReceive, size+SizeSendReceive4)
	}
	if n > uint64(m.slots) {
		return m, malformed("num_identifiers %d, limit %d", n, m.slots)
	}
	at := func(array int, i uint64) uint32 { return le.Uint32(p[16+4*(array*m.slots+int(i)):]) }
	for i := range n {
		m.ids = append(m.ids, id{id: at(0, i), typ: IDType(at(1, i)), size: at(2, i)})
	}
	start := sizeOf(m.slots)
	m.data = p[start : start+int(size)]
	return m, nil
}

// appendReceive appends RECEIVE. Its cmd_size is 0 if it does not fit.
func appendReceive(dst []byte, m *message) []byte {
	dst = appendHeader(dst, CmdReceive, sizeOf(m.slots)+len(m.data))
	dst = le.AppendUint32(dst, uint32(len(m.ids)))
	dst = le.AppendUint32(dst, uint32(len(m.data)))
	for _, field := range [3]func(id) uint32{
		func(x id) uint32 { return x.id }, func(x id) uint32 { return uint32(x.typ) }, func(x id) uint32 { return x.size },
	} {
		for i := range m.slots {
			v := uint32(0)
			if i < len(m.ids) {
				v = field(m.ids[i])
			}
			dst = le.AppendUint32(dst, v)
		}
	}
	return append(dst, m.data...)
}

func appendHeader(dst []byte, cmd Cmd, size int) []byte {
	if size > maxCommand {
		size = 0
	}
	dst = append(dst, byte(cmd), 0)
	dst = le.AppendUint16(dst, uint16(size))
	return le.AppendUint32(dst, 0)
}

// pipeData is READ or WRITE.
type pipeData struct {
	id     uint32
	hangUp bool
	data   []byte
}

func decodeWrite(p []byte) (w pipeData, err error) {
	if len(p) < SizeReadWrite {
		return w, malformed("cmd_size %d, want at least %d", len(p), SizeReadWrite)
	}
	size := uint64(le.Uint32(p[16:]))
	if size > uint64(len(p)-SizeReadWrite) {
		return w, malformed("opaque_data_size %d, %d bytes follow", size, len(p)-SizeReadWrite)
	}
	return pipeData{id: le.Uint32(p[8:]), hangUp: le.Uint32(p[12:]) != 0, data: p[SizeReadWrite : SizeReadWrite+int(size)]}, nil
}

// appendRead appends READ.
func appendRead(dst []byte, r *pipeData) []byte {
	dst = appendHeader(dst, CmdRead, SizeReadWrite+len(r.data))
	dst = le.AppendUint32(dst, r.id)
	hang := uint32(0)
	if r.hangUp {
		hang = 1
	}
	dst = le.AppendUint32(dst, hang)
	dst = le.AppendUint32(dst, uint32(len(r.data)))
	dst = le.AppendUint32(dst, 0)
	return append(dst, r.data...)
}

// Capset appends the capability set of a host that serves ch. gbm says that images
// which it allocates are dma-bufs.
func Capset(dst []byte, ch *Channels, gbm bool) []byte {
	types := uint32(0)
	if ch.Wayland != nil {
		types |= 1 << ChannelWayland
	}
	if ch.Stream != nil {
		types |= 1 << ChannelStream
	}
	dst = le.AppendUint32(dst, capsetVersion)
	dst = le.AppendUint32(dst, types)
	dma := uint32(0)
	if gbm {
		dma = 1
	}
	dst = le.AppendUint32(dst, dma)
	return le.AppendUint32(dst, 0) // supports_external_gpu_memory: that would be Vulkan's
}
