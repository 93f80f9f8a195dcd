package smoke

import (
	"time"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// Schema is the version of the report's JSON; it changes when a field's meaning does.
const Schema = 1

// State says how a check ended.
type State string

// The states, best first. Skipped says nothing about the machine.
const (
	OK       State = "ok"
	Degraded State = "degraded" // the broker works without it, but not as well
	Failed   State = "failed"
	Skipped  State = "skipped"
)

// Verdicts over all rows; also [Report.Verdict].
const (
	Usable     = "usable"
	Unusable   = "unusable"
	DegradedBy = "degraded"
)

// Exit codes of the smoke test.
const (
	CodeUsable   = 0
	CodeDegraded = 1
	CodeUnusable = 2
)

// Item is a part of a row, such as one format with one modifier.
type Item struct {
	Name  string `json:"name"`
	State State  `json:"state"`
	Seen  string `json:"seen,omitempty"`
}

// Row is one check.
type Row struct {
	Name    string `json:"name"`              // "virgl.export"
	Subject string `json:"subject,omitempty"` // what it was tried on: a node, a program
	State   State  `json:"state"`
	// Needed says that without it nothing works (and not just less).
	Needed  bool    `json:"needed,omitempty"`
	Seen    string  `json:"seen"`            // what was done and found
	Cause   string  `json:"cause,omitempty"` // of anything but OK
	Fix     string  `json:"fix,omitempty"`   // the command or package that mends it
	Items   []Item  `json:"items,omitempty"`
	Seconds float64 `json:"seconds"`
}

// Layout is a pixel format with a modifier, named as package dmabuf does.
type Layout struct {
	Fourcc   dmabuf.Fourcc   `json:"fourcc"`
	Modifier dmabuf.Modifier `json:"modifier"`
}

func (l Layout) String() string { return l.Fourcc.String() + " " + l.Modifier.String() }

// Report is the whole result.
type Report struct {
	Schema  int       `json:"schema"`
	Version string    `json:"version"` // of gpubroker
	Kernel  string    `json:"kernel"`
	Arch    string    `json:"arch"`
	Time    time.Time `json:"time"`
	Verdict string    `json:"verdict"` // usable, degraded or unusable
	Code    int       `json:"code"`    // the exit code
	// Tiers says for each way that a frame can go whether this machine has it.
	Tiers   map[string]bool `json:"tiers"`
	Rows    []Row           `json:"rows"`
	Seconds float64         `json:"seconds"`
}

// judge sets the verdict and the exit code from the rows.
func (r *Report) judge() {
	r.Verdict, r.Code = Usable, CodeUsable
	for _, row := range r.Rows {
		switch {
		case row.State == Failed && row.Needed:
			r.Verdict, r.Code = Unusable, CodeUnusable
			return
		case row.State == Failed || row.State == Degraded:
			r.Verdict, r.Code = DegradedBy, CodeDegraded
		}
	}
}

// Find returns the first row of that name and subject ("" for any), or nil.
func (r *Report) Find(name, subject string) *Row {
	for i := range r.Rows {
		if row := &r.Rows[i]; row.Name == name && (subject == "" || row.Subject == subject) {
			return row
		}
	}
	return nil
}
