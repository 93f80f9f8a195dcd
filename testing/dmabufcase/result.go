package dmabufcase

import "fmt"

// Result is one case.
type Result struct {
	Name        string `json:"name"`
	Host        string `json:"host"`  // "vm", which has dma-bufs, or "plain"
	Stage       string `json:"stage"` // which weston and render node
	Kind        string `json:"kind"`  // of the resources: "3d" or "2d"
	Want        string `json:"want_tier"`
	Tier        string `json:"tier"` // how the last frame went: "dmabuf", "copy", "shm"
	DMABuf      uint64 `json:"frames_dmabuf"`
	Shm         uint64 `json:"frames_shm"`
	Skipped     uint64 `json:"frames_skipped"`
	BytesCopied uint64 `json:"bytes_copied"` // of frames
	// PointerBytes were copied for pointer images: from the guest, and into the
	// compositor's memory.
	PointerBytes uint64   `json:"pointer_bytes,omitempty"`
	Exports      uint64   `json:"exports"`
	Resources    uint64   `json:"resources"` // shown ones: each is exported once where it can be
	Pictures     int      `json:"pictures"`  // screenshots compared
	WrongPixels  int      `json:"wrong_pixels"`
	Shown        string   `json:"buffer,omitempty"` // what was presented last
	Seconds      float64  `json:"seconds"`
	Problems     []string `json:"problems,omitempty"`
}

// ZeroCopy reports whether the pixels have to go from the GPU to the compositor
// without a copy.
func (r *Result) ZeroCopy() bool { return r.Kind == "3d" && r.Want == "dmabuf" }

func (r *Result) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

// StageResult is one stage: its cases, and what was held before and after them.
type StageResult struct {
	Name     string   `json:"name"`
	Host     string   `json:"host"`
	Renderer string   `json:"weston_renderer"`
	Node     string   `json:"render_node"` // as the broker reports it
	Export   bool     `json:"dmabuf_export"`
	Cases    []Result `json:"cases"`

	// Idle is before the guest and after it; Start and End are with the guest,
	// after one round of warming up and after all cases, with nothing shown.
	IdleBefore Held `json:"idle_before"`
	Start      Held `json:"start"`
	End        Held `json:"end"`
	IdleAfter  Held `json:"idle_after"`
	// ChurnKB is by how much memory grew each time that cases were played again after
	// all had run.
	ChurnKB []Growth `json:"churn_kb"`

	Imports  uint64   `json:"imports"`
	Exports  uint64   `json:"exports"`
	Errors   uint64   `json:"errors"` // commands that the broker refused
	Seconds  float64  `json:"seconds"`
	Problems []string `json:"problems,omitempty"`
	Summary  string   `json:"summary,omitempty"` // the broker's last line
}

// Growth is how much larger processes became, in KiB.
type Growth struct {
	Broker int `json:"broker"`
	Weston int `json:"weston"`
}

func (s *StageResult) problem(format string, args ...any) {
	s.Problems = append(s.Problems, fmt.Sprintf(format, args...))
}

// Failed reports whether anything was not as it should be.
func (s *StageResult) Failed() bool {
	for i := range s.Cases {
		if len(s.Cases[i].Problems) > 0 {
			return true
		}
	}
	return len(s.Problems) > 0
}

// LeakedFDs is how many descriptors broker and weston have more than before, but for
// the one texture that weston's GL context may be bound to.
func (s *StageResult) LeakedFDs() int {
	weston := s.End.WestonFDs - s.Start.WestonFDs
	if weston == 1 {
		weston = 0
	}
	return s.End.BrokerFDs - s.Start.BrokerFDs + weston
}
