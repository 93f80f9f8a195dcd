package smoke

import (
	"strings"
	"testing"
	"time"
)

// TestChildEnds: whatever becomes of a child is a row, and what it said before stays.
func TestChildEnds(t *testing.T) {
	for _, c := range []struct {
		probe       string
		rows        int // in all
		name        string
		subject     string
		seen, cause string
	}{
		{"abort", 2, "second", "node", "SIGABRT", "crashed the process"},
		{"segv", 1, "segv", "", "SIGSEGV", "crashed the process"},
		{"killed", 1, "killed", "", "killed", "crashed the process"},
		{"exit", 1, "exit", "", "ended early", "exit status 3: libfoo: assertion failed"},
		{"half", 1, "half", "", "ended early", "exit status 1"},
		{"no such probe", 1, "no such probe", "", "ended early", "there is no probe"},
	} {
		t.Run(c.probe, func(t *testing.T) {
			o := options(t)
			rows, _ := o.runChild(t.Context(), Task{Probe: c.probe})
			if len(rows) != c.rows {
				t.Fatalf("rows %+v, want %d", rows, c.rows)
			}
			r := rows[len(rows)-1]
			if r.State != Failed || r.Name != c.name || r.Subject != c.subject || !strings.Contains(r.Seen, c.seen) || !strings.Contains(r.Cause, c.cause) {
				t.Errorf("row %+v, want %+v", r, c)
			}
		})
	}
}

func TestChildHangs(t *testing.T) {
	o := options(t)
	o.Timeout = 500 * time.Millisecond
	begun := time.Now()
	rows, _ := o.runChild(t.Context(), Task{Probe: "hang"})
	if len(rows) != 1 || rows[0].State != Failed || rows[0].Seen != "no answer" || rows[0].Fix == "" {
		t.Errorf("rows %+v", rows)
	}
	if d := time.Since(begun); d > 20*time.Second {
		t.Errorf("it took %v", d)
	}
}

func TestChildWorks(t *testing.T) {
	o := options(t)
	rows, found := o.runChild(t.Context(), Task{Probe: "good"})
	if len(rows) != 1 || rows[0].State != OK || rows[0].Name != "good.row" || rows[0].Subject != "thing" || !found.UDMABuf {
		t.Errorf("rows %+v, found %+v", rows, found)
	}
	rows, _ = o.runChild(t.Context(), Task{Probe: "noise"})
	if len(rows) != 1 || rows[0].Name != "noise" {
		t.Errorf("a child's standard output counts: %+v", rows)
	}
}
