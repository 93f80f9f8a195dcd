package vtest

import "fmt"

// command is a row of the table of messages.
type command struct {
	name    string
	version uint32 // the protocol's, from which on it exists
	words   uint32 // of the body; of its beginning where more may follow
	tail    tail
	context bool // makes the client's context, if it has none yet
	run     func(c *client, m *message) error
}

// tail says what follows the words of a body.
type tail uint8

const (
	tailNone   tail = iota
	tailWords       // as many words as the header's length says
	tailBytes       // as many bytes as the header's length says, instead of words
	tailInline      // the transfer's bytes
	tailUnsent      // the header's length counts bytes that do not follow
)

// Limits of one message.
const (
	maxName   = 4096     // bytes of a client's name
	maxStream = 4 << 20  // bytes of SubmitCmd and SubmitCmd2, as of a guest's SUBMIT_3D
	maxInline = 64 << 20 // bytes of a transfer inside the stream: a texture of 4096x4096
	maxSyncs  = 1024     // of one SyncWait
)

// commands is indexed by Command. It is filled by init, because handlers look at it.
var commands [SubmitCmd2 + 1]command

func init() {
	commands = [...]command{
		GetCaps:             {"GET_CAPS", 0, 0, tailNone, false, (*client).getCaps},
		ResourceCreate:      {"RESOURCE_CREATE", 0, 10, tailNone, true, (*client).resourceCreate},
		ResourceUnref:       {"RESOURCE_UNREF", 0, 1, tailNone, true, (*client).resourceUnref},
		TransferGet:         {"TRANSFER_GET", 0, 11, tailNone, true, (*client).transferGet},
		TransferPut:         {"TRANSFER_PUT", 0, 11, tailInline, true, (*client).transferPut},
		SubmitCmd:           {"SUBMIT_CMD", 0, 0, tailWords, true, (*client).submitCmd},
		ResourceBusyWait:    {"RESOURCE_BUSY_WAIT", 0, 2, tailNone, false, (*client).busyWait},
		CreateRenderer:      {"CREATE_RENDERER", 0, 0, tailBytes, false, (*client).createRenderer},
		GetCaps2:            {"GET_CAPS2", 0, 0, tailNone, false, (*client).getCaps2},
		PingProtocolVersion: {"PING_PROTOCOL_VERSION", 0, 0, tailNone, false, (*client).ping},
		ProtocolVersion:     {"PROTOCOL_VERSION", 0, 1, tailNone, false, (*client).protocolVersion},
		ResourceCreate2:     {"RESOURCE_CREATE2", 2, 11, tailNone, true, (*client).resourceCreate},
		TransferGet2:        {"TRANSFER_GET2", 2, 10, tailNone, true, (*client).transferGet2},
		TransferPut2:        {"TRANSFER_PUT2", 2, 10, tailUnsent, true, (*client).transferPut2},
		GetParam:            {"GET_PARAM", 3, 1, tailNone, false, (*client).getParam},
		GetCapset:           {"GET_CAPSET", 3, 2, tailNone, false, (*client).getCapset},
		ContextInit:         {"CONTEXT_INIT", 3, 1, tailNone, false, (*client).contextInit},
		ResourceCreateBlob:  {"RESOURCE_CREATE_BLOB", 3, 6, tailNone, true, (*client).resourceCreateBlob},
		SyncCreate:          {"SYNC_CREATE", 3, 2, tailNone, true, (*client).syncCreate},
		SyncUnref:           {"SYNC_UNREF", 3, 1, tailNone, true, (*client).syncUnref},
		SyncRead:            {"SYNC_READ", 3, 1, tailNone, true, (*client).syncRead},
		SyncWrite:           {"SYNC_WRITE", 3, 3, tailNone, true, (*client).syncWrite},
		SyncWait:            {"SYNC_WAIT", 3, 2, tailWords, true, (*client).syncWait},
		SubmitCmd2:          {"SUBMIT_CMD2", 3, 1, tailWords, true, (*client).submitCmd2},
	}
}

func (c Command) String() string {
	if row := c.lookup(); row != nil {
		return row.name
	}
	return fmt.Sprintf("message %d", uint32(c))
}

func (c Command) lookup() *command {
	if c == 0 || c >= Command(len(commands)) {
		return nil
	}
	return &commands[c]
}

// message is one message of a client, complete.
type message struct {
	Header
	body []byte // what the table says that it has, without what is inline
	data []byte // inline bytes
}

// parse finds the message at the start of b and says how many bytes it has; 0 if b has
// not all of them yet. What is not allowed is found before its bytes are waited for.
func parse(b []byte, version uint32, m *message) (size int, row *command, err error) {
	if len(b) < HeaderSize {
		return 0, nil, nil
	}
	m.Header = DecodeHeader(b)
	row = m.Command.lookup()
	if row == nil {
		return 0, nil, protocol("command %d, known are 1 to %d", m.Command, len(commands)-1)
	}
	if version < row.version {
		return 0, row, protocol("needs version %d of the protocol, this client chose %d", row.version, version)
	}
	body := uint64(row.words) * 4
	data := uint64(0)
	switch row.tail {
	case tailBytes:
		if body = uint64(m.Length); body > maxName {
			return 0, row, protocol("length %d bytes, limit %d", m.Length, maxName)
		}
	case tailWords:
		limit := uint64(maxStream)
		if m.Command == SyncWait {
			limit = (2 + syncWords*maxSyncs) * 4
		}
		if body = uint64(m.Length) * 4; body < uint64(row.words)*4 || body > limit {
			return 0, row, protocol("length %d words, want %d to %d", m.Length, row.words, limit/4)
		}
	case tailNone:
		if m.Length != row.words {
			return 0, row, protocol("length %d words, want %d", m.Length, row.words)
		}
	case tailInline, tailUnsent:
		at := 10
		if row.tail == tailUnsent {
			at = 8
		}
		if uint64(len(b)) < HeaderSize+body {
			if m.Length < row.words {
				return 0, row, protocol("length %d words, want %d at least", m.Length, row.words)
			}
			return 0, row, nil
		}
		data = uint64(word(b[HeaderSize:], at))
		whole := uint64(row.words) + (data+3)/4
		if uint64(m.Length) != whole && !(row.tail == tailUnsent && m.Length == row.words) {
			return 0, row, protocol("length %d words, want %d for %d bytes of data", m.Length, whole, data)
		}
		if row.tail == tailUnsent {
			data = 0
		} else if data > maxInline {
			return 0, row, protocol("data_size %d bytes, limit %d", data, maxInline)
		}
	}
	whole := HeaderSize + body + data
	if uint64(len(b)) < whole {
		return 0, row, nil
	}
	m.body, m.data = b[HeaderSize:HeaderSize+body], b[HeaderSize+body:whole]
	return int(whole), row, nil
}
