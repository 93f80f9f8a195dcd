package main

import (
	_ "embed"
	"fmt"
	"strings"
)

// quickList says at its head how it was chosen.
//
//go:embed quick.txt
var quickList string

// Test is a program of piglit with its arguments.
type Test struct {
	Group string
	Name  string // the command line, as in piglit's profile
}

// parseList reads the list: "[group]" begins one, every other line is a test. Empty lines
// and those that begin with # say nothing.
func parseList(text string) ([]Test, error) {
	var tests []Test
	group := ""
	seen := map[string]bool{}
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			name, ok := strings.CutSuffix(line[1:], "]")
			if !ok || name == "" {
				return nil, fmt.Errorf("list of tests: line %d: %q is no group", n, line)
			}
			group = name
		case group == "":
			return nil, fmt.Errorf("list of tests: line %d: %q is in no group", n, line)
		case seen[line]:
			return nil, fmt.Errorf("list of tests: line %d: %q is there twice", n, line)
		default:
			seen[line] = true
			tests = append(tests, Test{group, line})
		}
	}
	return tests, nil
}

// byGroup cuts the list where the group changes.
func byGroup(tests []Test) (groups [][]Test) {
	for i, test := range tests {
		if i == 0 || test.Group != tests[i-1].Group {
			groups = append(groups, nil)
		}
		last := len(groups) - 1
		groups[last] = append(groups[last], test)
	}
	return groups
}
