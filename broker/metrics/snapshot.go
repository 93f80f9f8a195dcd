package metrics

import "github.com/gpubroker/gpubroker/broker/display"

// Snapshot is what a broker counted until now. Sizes are in bytes.
type Snapshot struct {
	Version, Renderer, Node, Display string
	Connected                        bool // a front-end is served

	Frames        map[string]uint64 // by tier
	FramesSkipped uint64
	CopiedFrames  uint64             // bytes
	CopiedCursors uint64             // bytes
	Commands      map[string]Command // by name
	RingErrors    uint64
	Submits       uint64
	Flushes       uint64
	Fences        uint64
	Exports       uint64
	Imports       uint64
	CopyWaits     uint64
	PaceCaps      uint64
	Reconnects    uint64

	FencesOutstanding int
	ImportsLive       int64
	Resources         map[string]int // by kind
	Contexts          int
	Scanouts          int
	WindowSize        uint64
	WindowUsed        uint64
	Mappings          int
	MappingsLimit     int
	FlushToCommit     display.Distribution

	Vtest *Vtest // nil where none are served

	Supervised   bool              // the fields below mean something
	WorkerDeaths map[string]uint64 // by cause
	Quarantine   bool              // 3D is off for this VM
	LastDeath    Death             // Cause is empty if there was none
}

// Vtest counts programs without a guest. Bytes is host memory, about.
type Vtest struct {
	Clients, Resources           int
	Bytes, Total, Ended, Submits uint64
}

// Death is the end of a worker: what it was busy with.
type Death struct{ Cause, Context, Name, Command string }

// Command counts one type of command.
type Command struct{ Served, Failed uint64 }
