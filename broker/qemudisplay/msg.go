package qemudisplay

import (
	"encoding/binary"
	"fmt"

	"github.com/gpubroker/gpubroker/broker/virtiogpu"
)

// request is the type of a message (enum VhostUserGpuRequest).
type request uint32

const (
	reqGetProtocolFeatures request = 1 + iota
	reqSetProtocolFeatures
	reqGetDisplayInfo
	reqCursorPos
	reqCursorPosHide
	reqCursorUpdate
	reqScanout
	reqUpdate
	reqDMABufScanout
	reqDMABufUpdate
	reqGetEDID
	reqDMABufScanout2
)

var requestNames = [...]string{
	reqGetProtocolFeatures: "GET_PROTOCOL_FEATURES",
	reqSetProtocolFeatures: "SET_PROTOCOL_FEATURES",
	reqGetDisplayInfo:      "GET_DISPLAY_INFO",
	reqCursorPos:           "CURSOR_POS",
	reqCursorPosHide:       "CURSOR_POS_HIDE",
	reqCursorUpdate:        "CURSOR_UPDATE",
	reqScanout:             "SCANOUT",
	reqUpdate:              "UPDATE",
	reqDMABufScanout:       "DMABUF_SCANOUT",
	reqDMABufUpdate:        "DMABUF_UPDATE",
	reqGetEDID:             "GET_EDID",
	reqDMABufScanout2:      "DMABUF_SCANOUT2",
}

func (r request) String() string {
	if r > 0 && int(r) < len(requestNames) {
		return requestNames[r]
	}
	return fmt.Sprintf("request(%d)", uint32(r))
}

// Protocol feature bits.
const (
	featureEDID    = 1 << 0
	featureDMABuf2 = 1 << 1

	ourFeatures = featureEDID | featureDMABuf2
)

const (
	flagReply = 1 << 2

	// flagY0Top of a dma-buf: the first row in memory is the top of the picture.
	flagY0Top = 1 << 0

	headerSize = 12
	maxReply   = virtiogpu.SizeEDID // the largest payload that QEMU sends
	cursorSize = 64                 // pixels, each way
)

// replySize returns the payload size of the reply to r, false if there is none.
func replySize(r request) (int, bool) {
	switch r {
	case reqGetProtocolFeatures:
		return 8, true
	case reqGetDisplayInfo:
		return virtiogpu.SizeDisplayInfo, true
	case reqGetEDID:
		return virtiogpu.SizeEDID, true
	case reqDMABufUpdate:
		return 0, true
	}
	return 0, false
}

// The header and the messages' own numbers are in the host's byte order, because
// both ends are on one machine; virtio structs inside are little-endian.
var order = binary.NativeEndian

// begin starts a message with room for the header, to be closed by finish.
func begin(dst []byte) []byte { return append(dst[:0], make([]byte, headerSize)...) }

// words appends 32-bit numbers.
func words(dst []byte, v ...uint32) []byte {
	for _, n := range v {
		dst = order.AppendUint32(dst, n)
	}
	return dst
}

// finish writes the header of a message whose payload is complete.
func finish(msg []byte, r request) []byte { return finishWith(msg, r, 0) }

// finishWith is finish for a message of whose payload more bytes follow.
func finishWith(msg []byte, r request, more int) []byte {
	order.PutUint32(msg[0:], uint32(r))
	order.PutUint32(msg[4:], 0)
	order.PutUint32(msg[8:], uint32(len(msg)-headerSize+more))
	return msg
}

// reply is one message from QEMU; payload is valid until the next read.
type reply struct {
	req     request
	payload []byte
}

// parse decodes the reply at the start of p, which must answer want. n is what it
// takes; 0 means that bytes are missing. It allocates nothing unless it fails.
func parse(p []byte, want request) (r reply, n int, err error) {
	if len(p) < headerSize {
		return reply{}, 0, nil
	}
	r.req = request(order.Uint32(p))
	flags, size := order.Uint32(p[4:]), order.Uint32(p[8:])
	if flags&flagReply == 0 {
		return reply{}, 0, fmt.Errorf("%w: %v with flags %#x is no reply", ErrProtocol, r.req, flags)
	}
	if r.req != want {
		return reply{}, 0, fmt.Errorf("%w: reply to %v, want %v", ErrProtocol, r.req, want)
	}
	if need, ok := replySize(r.req); !ok || uint64(size) != uint64(need) {
		return reply{}, 0, fmt.Errorf("%w: reply to %v has size %d, want %d", ErrProtocol, r.req, size, need)
	}
	n = headerSize + int(size)
	if len(p) < n {
		return reply{}, 0, nil
	}
	r.payload = p[headerSize:n]
	return r, n, nil
}
