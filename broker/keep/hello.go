package keep

// Role is a device that a worker serves.
type Role string

// The roles.
const (
	GPU    Role = "gpu"
	Input  Role = "input"
	Touch  Role = "touch"
	Import Role = "import"
)

// Queues is how many rings every role's device has.
const Queues = 2

// Hello is what a worker is told at its start.
type Hello struct {
	Roles   []Role `json:"roles"`
	Entries int    `json:"entries"` // how many OpEntry follow
	History
}

// History is what became of the workers before.
type History struct {
	// Restarts counts the workers that died, by what they died of.
	Restarts map[string]uint64 `json:"restarts,omitempty"`
	// Quarantine says that 3D is off for this VM: it killed too many workers.
	Quarantine bool `json:"quarantine,omitempty"`
	// Last is the newest death.
	Last *Death `json:"last,omitempty"`
}

// Death is the end of a worker that was not meant to end.
type Death struct {
	Cause   string `json:"cause"` // "signal: killed", "exit status 2", "watchdog"
	Context uint32 `json:"context"`
	Name    string `json:"name"`    // of the context, as the guest says
	Command uint32 `json:"command"` // being served, 0 for none
	Inside  bool   `json:"inside"`  // the command is the context's
}
