package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Results of a test: piglit's own words, and what is said of one that could not say it.
const (
	pass    = "pass"
	warn    = "warn"
	fail    = "fail"
	skip    = "skip"
	crash   = "crash"
	timeout = "timeout"
)

// Outcome is what became of a test on one server.
type Outcome struct {
	Result string `json:"result"`
	// Subtests are counts by result, of tests that have parts.
	Subtests map[string]int `json:"subtests,omitempty"`
	Seconds  float64        `json:"seconds"`
	Output   string         `json:"output,omitempty"` // its end, if it did not pass

	parts map[string]string // subtests by name
}

// resultPrefix begins the lines that are for a harness: a JSON object with the result of
// the test or of a part of it.
const resultPrefix = "PIGLIT:"

// outputBytes of a test's output are kept.
const outputBytes = 4 << 10

// judge reads what a test printed. code is its exit code, 128 and more for a signal, as by
// a shell.
func judge(output []byte, code int, late bool) Outcome {
	var o Outcome
	for line := range bytes.Lines(output) {
		text, ok := bytes.CutPrefix(line, []byte(resultPrefix))
		if !ok {
			continue
		}
		var said struct {
			Result  string            `json:"result"`
			Subtest map[string]string `json:"subtest"`
		}
		if json.Unmarshal(text, &said) != nil {
			continue // cut off by a crash: the exit code says the rest
		}
		if said.Result != "" {
			o.Result = said.Result
		}
		for name, result := range said.Subtest {
			if o.parts == nil {
				o.parts = map[string]string{}
			}
			if had := o.parts[name]; had == "" || had == pass { // some names are there twice
				o.parts[name] = result
			}
		}
	}
	switch {
	case late:
		o.Result = timeout
	case code >= 128:
		o.Result = crash
	case o.Result == "" && code != 0:
		o.Result = fail
	case o.Result == "":
		o.Result = crash // exit(0) without a word
	case o.Result == pass && code != 0:
		o.Result = warn // as piglit's harness says it
	}
	for _, result := range o.parts {
		if o.Subtests == nil {
			o.Subtests = map[string]int{}
		}
		o.Subtests[result]++
	}
	if o.Result != pass {
		o.Output = end(output)
	}
	return o
}

// end returns the last lines of an output.
func end(output []byte) string {
	output = bytes.TrimSpace(output)
	if cut := len(output) - outputBytes; cut > 0 {
		output = output[cut:]
		if i := bytes.IndexByte(output, '\n'); i >= 0 {
			output = output[i+1:]
		}
	}
	return strings.ToValidUTF8(string(output), "\uFFFD")
}

// differences says in what way a test came out differently on two servers.
func differences(want, got Outcome) []string {
	var list []string
	if want.Result != got.Result {
		list = append(list, fmt.Sprintf("%s, not %s", got.Result, want.Result))
	}
	names := maps.Clone(want.parts)
	if names == nil {
		names = map[string]string{}
	}
	maps.Copy(names, got.parts)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if w, g := want.parts[name], got.parts[name]; w != g {
			list = append(list, fmt.Sprintf("part %q: %s, not %s", strings.TrimSpace(name), orNothing(g), orNothing(w)))
		}
	}
	return list
}

func orNothing(result string) string {
	if result == "" {
		return "nothing"
	}
	return result
}
