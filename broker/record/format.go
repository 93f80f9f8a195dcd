package record

// The file's header: Magic, then the version as a little-endian number of four bytes,
// then four bytes of zero.
const (
	Magic      = "gpubrec\n"
	Version    = 1
	sizeHeader = 16
)

// sizeRecord is the size of what stands in front of each record: the length of the rest
// (4 bytes), the kind (1), flags (1), zero (2), the time (8).
const sizeRecord = 16

// flagS2 says that a record is an S2 block (Snappy's format, extended).
const flagS2 = 1

// Limits of what a file may hold.
const (
	// MaxRecord is the most bytes of one record, unpacked: the largest command and what
	// stands in front of it.
	MaxRecord = 5 << 20
	// MaxMemory is the most bytes of guest memory in one record.
	MaxMemory = 256 << 10
	// MaxRegions is the most regions that guest memory can have.
	MaxRegions = 512
	// maxInfo is the most bytes of JSON.
	maxInfo = 64 << 10
)

// Kind says what a record is.
type Kind uint8

// The kinds of records.
const (
	KindInfo    Kind = 1 + iota // what was recorded, and of what: JSON; the first record and no other
	KindMachine                 // guest memory's regions and the features, as they are from here on
	KindMemory                  // bytes of guest memory, as they are from here on
	KindBlob                    // bytes of a blob's memory, likewise
	KindCommand                 // a command; they count from 0
	KindAnswer                  // what a command was answered with
	KindReset                   // the device was reset: nothing is left
	KindEnd                     // why the recording ends here: text; the last record
	numKinds
)

var kindNames = [numKinds]string{"", "info", "machine", "memory", "blob", "command", "answer", "reset", "end"}

func (k Kind) String() string {
	if k < numKinds && k > 0 {
		return kindNames[k]
	}
	return "unknown"
}

// Info describes a recording.
type Info struct {
	Version  string `json:"version"`  // of gpubroker
	Start    string `json:"start"`    // wall clock, RFC 3339
	Renderer string `json:"renderer"` // virgl.Info's library
	Node     string `json:"node"`
	GL       bool   `json:"gl"`
	Heads    int    `json:"heads"`
	Width    uint32 `json:"width"` // pixels that the guest was told to prefer
	Height   uint32 `json:"height"`
	HostMem  uint64 `json:"hostmem"` // bytes of the window for blobs
	Apps     bool   `json:"apps"`    // cross-domain contexts were offered
	Limits   Limits `json:"limits"`
}

// Limits are what the guest was allowed (broker.Limits).
type Limits struct {
	Resources int    `json:"resources"`
	Owned     int    `json:"owned"`
	Contexts  int    `json:"contexts"`
	Bytes     uint64 `json:"bytes"`
	Pieces    int    `json:"pieces"`
}

// Machine is the front-end and the driver as they are.
type Machine struct {
	Features uint64 // negotiated
	Maps     bool   // the front-end can map blobs
	Regions  []Region
}

// Region is a part of guest-physical memory.
type Region struct{ GPA, Size uint64 }

// Record is one record of a file. Which fields mean something its Kind says.
type Record struct {
	Kind   Kind
	Offset int64  // in the file, unpacked
	Time   uint64 // nanoseconds since the start

	Info    Info
	Machine Machine
	Number  uint64 // KindCommand: its number; KindAnswer: the command's
	Queue   uint32 // KindCommand: 0 control, 1 cursor
	Size    uint32 // KindCommand: bytes that the chain had; more than Data for one that is too large
	Type    uint32 // KindAnswer: of the response
	Addr    uint64 // KindMemory: guest-physical address; KindBlob: offset in bytes
	ID      uint32 // KindBlob: the resource
	Data    []byte // KindCommand, KindMemory, KindBlob: the bytes, valid until the next record
	Reason  string // KindEnd
}

// Sizes of the fixed parts.
const (
	sizeMachine = 16 // features, flags, number of regions; then 16 bytes each
	sizeRegion  = 16
	sizeMemory  = 8  // address
	sizeBlob    = 16 // resource, zero, offset
	sizeCommand = 8  // queue, size
	sizeAnswer  = 12 // number, type
)

var fixedSizes = [numKinds]int{KindMachine: sizeMachine, KindMemory: sizeMemory, KindBlob: sizeBlob, KindCommand: sizeCommand, KindAnswer: sizeAnswer}

const machineMaps = 1 // flag of KindMachine
