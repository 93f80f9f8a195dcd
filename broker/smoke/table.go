package smoke

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Print writes the report for people: a row for each check, below it the cause and what
// mends it. With items it also writes a row's parts.
func (r *Report) Print(w io.Writer, items bool) error {
	name := len("check")
	for i := range r.Rows {
		name = max(name, utf8.RuneCountInString(r.Rows[i].title()))
	}
	var b strings.Builder
	line := func(state, title, text string) {
		fmt.Fprintf(&b, "%-8s  %s%s  %s\n", state, title, strings.Repeat(" ", name-utf8.RuneCountInString(title)), oneLine(text))
	}
	line("state", "check", "what was seen")
	for i := range r.Rows {
		row := &r.Rows[i]
		line(string(row.State), row.title(), row.seen())
		if row.Cause != "" {
			line("", "", "cause: "+row.Cause)
		}
		if row.Fix != "" {
			line("", "", "fix:   "+row.Fix)
		}
		for _, it := range row.Items {
			if items {
				line("", "", fmt.Sprintf("· %-8s %s  %s", it.State, it.Name, it.Seen))
			}
		}
	}
	fmt.Fprintf(&b, "\ngpubroker %s on Linux %s (%s), %.1f s: this machine is %s", r.Version, r.Kernel, r.Arch, r.Seconds, r.Verdict)
	switch r.Code {
	case CodeUsable:
		b.WriteString(".\n")
	case CodeDegraded:
		b.WriteString(": it works, and the rows above say what is missing.\n")
	default:
		b.WriteString(": see the failed rows above.\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// maxSubject is the longest subject that stands beside a check's name; longer ones
// (sockets, programs) would make the column too wide.
const maxSubject = 20

func (row *Row) title() string {
	if row.Subject == "" || len(row.Subject) > maxSubject {
		return row.Name
	}
	return row.Name + " " + row.Subject
}

func (row *Row) seen() string {
	if len(row.Subject) > maxSubject {
		return row.Subject + ": " + row.Seen
	}
	return row.Seen
}

// oneLine keeps a text of many lines (errors joined, a crash) on one row, each once.
func oneLine(s string) string {
	var lines []string
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" && !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}
