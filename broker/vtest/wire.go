package vtest

import "encoding/binary"

// Command is what a message is (VCMD_* of vtest_protocol.h).
type Command uint32

// The messages of clients; replies carry the same numbers, except those to GetCaps and
// GetCaps2.
const (
	GetCaps Command = iota + 1
	ResourceCreate
	ResourceUnref
	TransferGet
	TransferPut
	SubmitCmd
	ResourceBusyWait
	CreateRenderer
	GetCaps2
	PingProtocolVersion
	ProtocolVersion
	ResourceCreate2
	TransferGet2
	TransferPut2
	GetParam
	GetCapset
	ContextInit
	ResourceCreateBlob
	SyncCreate
	SyncUnref
	SyncRead
	SyncWrite
	SyncWait
	SubmitCmd2
)

// MaxVersion is the newest version of the protocol that is spoken here.
const MaxVersion = 3

// Sizes and numbers of the protocol.
const (
	HeaderSize = 8 // bytes: length, command

	BusyWaitFlagWait = 1 << 0 // VCMD_BUSY_WAIT_FLAG_WAIT
	SyncWaitFlagAny  = 1 << 0 // VCMD_SYNC_WAIT_FLAG_ANY

	// Submit2FlagSyncQueue says that a batch's syncs wait for its work
	// (VCMD_SUBMIT_CMD2_FLAG_SYNC_QUEUE).
	Submit2FlagSyncQueue = 1 << 0

	// ParamMaxSyncQueueCount is VCMD_PARAM_MAX_SYNC_QUEUE_COUNT.
	ParamMaxSyncQueueCount = 1

	BlobGuest       = 1 // VCMD_BLOB_TYPE_GUEST
	BlobHost3D      = 2
	BlobHost3DGuest = 3
)

// Header is in front of every message. Length is in words of the body, but in bytes for
// CreateRenderer.
type Header struct {
	Length  uint32
	Command Command
}

// Append appends the header.
func (h Header) Append(dst []byte) []byte { return AppendWords(dst, h.Length, uint32(h.Command)) }

// DecodeHeader reads a header; b has HeaderSize bytes.
func DecodeHeader(b []byte) Header {
	return Header{binary.LittleEndian.Uint32(b), Command(binary.LittleEndian.Uint32(b[4:]))}
}

// AppendWords appends 32-bit words.
func AppendWords(dst []byte, words ...uint32) []byte {
	for _, w := range words {
		dst = binary.LittleEndian.AppendUint32(dst, w)
	}
	return dst
}

// load reads words in order; b is long enough.
func load(b []byte, dst ...*uint32) {
	for i, d := range dst {
		*d = word(b, i)
	}
}

// word is the i-th word of b.
func word(b []byte, i int) uint32 { return binary.LittleEndian.Uint32(b[4*i:]) }

func wide(b []byte, i int) uint64 { return binary.LittleEndian.Uint64(b[4*i:]) }

// Create is the body of ResourceCreate (10 words) and ResourceCreate2 (11).
type Create struct {
	Handle, Target, Format, Bind    uint32
	Width, Height, Depth, ArraySize uint32
	LastLevel, Samples              uint32
	DataSize                        uint32 // bytes of shared memory; not in ResourceCreate
}

func (c *Create) decode(b []byte) {
	load(b, &c.Handle, &c.Target, &c.Format, &c.Bind, &c.Width, &c.Height, &c.Depth, &c.ArraySize, &c.LastLevel, &c.Samples)
	if len(b) >= 44 {
		c.DataSize = word(b, 10)
	}
}

// Append appends the message, as ResourceCreate2 if v2.
func (c *Create) Append(dst []byte, v2 bool) []byte {
	h := Header{10, ResourceCreate}
	if v2 {
		h = Header{11, ResourceCreate2}
	}
	dst = AppendWords(h.Append(dst), c.Handle, c.Target, c.Format, c.Bind, c.Width, c.Height, c.Depth, c.ArraySize, c.LastLevel, c.Samples)
	if v2 {
		dst = AppendWords(dst, c.DataSize)
	}
	return dst
}

// Transfer is the body of TransferGet and TransferPut, whose bytes are in the stream, and
// of TransferGet2 and TransferPut2, whose bytes are in shared memory.
type Transfer struct {
	Handle, Level       uint32
	Stride, LayerStride uint32 // bytes; not in the second kind
	X, Y, Z, W, H, D    uint32
	DataSize            uint32 // bytes
	Offset              uint32 // bytes into the shared memory; not in the first kind
}

func (t *Transfer) decode(b []byte) {
	load(b, &t.Handle, &t.Level, &t.Stride, &t.LayerStride, &t.X, &t.Y, &t.Z, &t.W, &t.H, &t.D, &t.DataSize)
}

func (t *Transfer) decode2(b []byte) {
	load(b, &t.Handle, &t.Level, &t.X, &t.Y, &t.Z, &t.W, &t.H, &t.D, &t.DataSize, &t.Offset)
}

// AppendGet and its likes append a message. Bytes of AppendPut follow it.
func (t *Transfer) AppendGet(dst []byte) []byte { return t.append1(dst, Header{11, TransferGet}) }

// AppendPut appends a TransferPut of data.
func (t *Transfer) AppendPut(dst, data []byte) []byte {
	t.DataSize = uint32(len(data))
	return append(t.append1(dst, Header{11 + (t.DataSize+3)/4, TransferPut}), data...)
}

// AppendGet2 appends a TransferGet2.
func (t *Transfer) AppendGet2(dst []byte) []byte { return t.append2(dst, Header{10, TransferGet2}) }

// AppendPut2 appends a TransferPut2. Its length counts bytes that do not follow, as Mesa's
// does.
func (t *Transfer) AppendPut2(dst []byte) []byte {
	return t.append2(dst, Header{10 + (t.DataSize+3)/4, TransferPut2})
}

func (t *Transfer) append1(dst []byte, h Header) []byte {
	return AppendWords(h.Append(dst), t.Handle, t.Level, t.Stride, t.LayerStride, t.X, t.Y, t.Z, t.W, t.H, t.D, t.DataSize)
}

func (t *Transfer) append2(dst []byte, h Header) []byte {
	return AppendWords(h.Append(dst), t.Handle, t.Level, t.X, t.Y, t.Z, t.W, t.H, t.D, t.DataSize, t.Offset)
}

// Blob is the body of ResourceCreateBlob.
type Blob struct {
	Type, Flags uint32
	Size, ID    uint64
}

func (c *Blob) decode(b []byte) {
	load(b, &c.Type, &c.Flags)
	c.Size, c.ID = wide(b, 2), wide(b, 4)
}

// Append appends the message.
func (c *Blob) Append(dst []byte) []byte {
	return AppendWords(Header{6, ResourceCreateBlob}.Append(dst), c.Type, c.Flags,
		uint32(c.Size), uint32(c.Size>>32), uint32(c.ID), uint32(c.ID>>32))
}

// SyncValue is a sync and a value of it.
type SyncValue struct {
	ID    uint32
	Value uint64
}

const syncWords = 3 // a SyncValue on the wire

func syncAt(b []byte, i int) SyncValue {
	return SyncValue{word(b, i*syncWords), wide(b, i*syncWords+1)}
}

// Append appends it.
func (s SyncValue) Append(dst []byte) []byte {
	return AppendWords(dst, s.ID, uint32(s.Value), uint32(s.Value>>32))
}

// batch is one of SubmitCmd2: where its commands and its syncs lie in the body, in words.
type batch struct {
	flags                uint32
	cmdOffset, cmdSize   uint32
	syncOffset, syncs    uint32
	queueIndex           uint32
	queueIDLo, queueIDHi uint32
}

const batchWords = 8

func (s *batch) decode(b []byte) {
	load(b, &s.flags, &s.cmdOffset, &s.cmdSize, &s.syncOffset, &s.syncs, &s.queueIndex, &s.queueIDLo, &s.queueIDHi)
}
