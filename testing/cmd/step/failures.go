package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Of a failure this much is said again, of all together failuresMax lines.
const (
	headLines   = 6 // what went wrong first
	tailLines   = 6
	tailBytes   = 300 // of a line
	failuresMax = 60
)

// failure is a failed test, or a package without a failed test (it did not build,
// or its TestMain failed), with the first and the last lines that it printed.
type failure struct {
	Name  string
	Lines []string
}

// tails keeps the first and the last lines that each test printed, until it has passed.
type tails map[string][]string

func (t tails) add(e event) {
	name := e.Package
	switch {
	case e.Test != "":
		name += "." + e.Test
	case name == "": // of a build: "m/a [m/a.test]"
		name, _, _ = strings.Cut(e.ImportPath, " ")
	}
	switch e.Action {
	case "pass", "skip":
		delete(t, name)
	case "output", "build-output":
		line := strings.TrimRight(e.Output, "\n")
		if starts(e.Output) || strings.TrimSpace(line) == "" {
			return
		}
		if len(line) > tailBytes {
			line = strings.ToValidUTF8(line[:tailBytes], "") + "…"
		}
		lines := append(t[name], line)
		if len(lines) > headLines+tailLines {
			lines = slices.Delete(lines, headLines, headLines+1)
		}
		t[name] = lines
	}
}

// of returns what the failed ones said. A test with a failed subtest and a package
// with a failed test say nothing more than those do.
func (t tails) of(failed []string) []failure {
	var out []failure
	for _, name := range failed {
		within := func(other string) bool {
			return strings.HasPrefix(other, name+".") ||
				strings.Contains(name, ".Test") && strings.HasPrefix(other, name+"/")
		}
		if !slices.ContainsFunc(failed, within) {
			out = append(out, failure{name, t[name]})
		}
	}
	return out
}

// printFailures prints the failures, newest last and the oldest cut.
func printFailures(w io.Writer, failures []failure) {
	var lines []string
	for _, f := range failures {
		lines = append(lines, "== failed: "+f.Name)
		for _, line := range f.Lines {
			lines = append(lines, "    "+line)
		}
	}
	if n := len(lines) - failuresMax; n > 0 {
		fmt.Fprintf(w, "== %d lines more of failures are above\n", n)
		lines = lines[n:]
	}
	for _, line := range lines {
		fmt.Fprintln(w, line)
	}
}
