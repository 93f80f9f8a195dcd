package main

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestJudge(t *testing.T) {
	const parts = `Testing GL_R8
PIGLIT: {"subtest": {"1D mipmapped " : "pass"}}
PIGLIT: {"subtest": {"cube texture " : "fail"}}
PIGLIT: {"subtest": {"twice" : "fail"}}
PIGLIT: {"subtest": {"twice" : "pass"}}
PIGLIT: {"result": "fail" }
`
	for _, c := range []struct {
		name, output string
		code         int
		late         bool
		want         string
		parts        map[string]int
	}{
		{name: "pass", output: "PIGLIT: {\"result\": \"pass\" }\n", want: pass},
		{name: "words around it", output: "size 4\nPIGLIT: {\"result\": \"pass\" }\nbye", want: pass},
		{name: "skip", output: "needs GL 4.6\nPIGLIT: {\"result\": \"skip\" }\n", want: skip},
		{name: "fail", output: "PIGLIT: {\"result\": \"fail\" }\n", code: 1, want: fail},
		{name: "parts", output: parts, code: 1, want: fail, parts: map[string]int{pass: 1, fail: 2}},
		{name: "pass and an exit code", output: "PIGLIT: {\"result\": \"pass\" }\n", code: 1, want: warn},
		{name: "pass and a signal", output: "PIGLIT: {\"result\": \"pass\" }\n", code: 128 + 11, want: crash},
		{name: "signal", output: "Probe", code: 128 + 6, want: crash},
		{name: "cut off", output: "PIGLIT: {\"result\": \"pa", code: 128 + 11, want: crash},
		{name: "no word", code: 0, want: crash},
		{name: "no word and an exit code", output: "not found", code: 127, want: fail},
		{name: "late", output: "PIGLIT: {\"subtest\": {\"a\" : \"pass\"}}\n", code: 137, late: true, want: timeout, parts: map[string]int{pass: 1}},
		{name: "not for us", output: " PIGLIT: {\"result\": \"pass\" }\n", code: 1, want: fail},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := judge([]byte(c.output), c.code, c.late)
			if got.Result != c.want || !maps.Equal(got.Subtests, c.parts) {
				t.Errorf("%+v, want %s %v", got, c.want, c.parts)
			}
			if kept := got.Output != ""; kept != (c.want != pass && c.output != "") {
				t.Errorf("output %q of a test that is %s", got.Output, got.Result)
			}
		})
	}
}

func TestOutputIsCut(t *testing.T) {
	got := judge([]byte(strings.Repeat("a line of it\n", 1000)+"the last\xff"), 1, false).Output
	if len(got) > outputBytes+2 || !strings.HasPrefix(got, "a line") || !strings.HasSuffix(got, "the last\uFFFD") {
		t.Errorf("%d bytes, %q … %q", len(got), got[:20], got[len(got)-20:])
	}
}

func TestDifferences(t *testing.T) {
	out := func(result string, parts ...string) Outcome {
		text := ""
		for i := 0; i < len(parts); i += 2 {
			text += "PIGLIT: {\"subtest\": {\"" + parts[i] + "\" : \"" + parts[i+1] + "\"}}\n"
		}
		return judge([]byte(text+"PIGLIT: {\"result\": \""+result+"\" }\n"), 0, false)
	}
	for _, c := range []struct {
		want, got Outcome
		said      []string
	}{
		{out(pass), out(pass), nil},
		{out(skip), out(skip), nil},
		{out(fail, "a", fail), out(fail, "a", fail), nil},
		{out(pass), out(fail), []string{"fail, not pass"}},
		{out(fail), out(pass), []string{"pass, not fail"}},
		{out(fail, "a", fail, "b", pass), out(fail, "a", pass, "b", fail), []string{`part "a": pass, not fail`, `part "b": fail, not pass`}},
		{out(pass, "a", pass), out(pass), []string{`part "a": nothing, not pass`}},
		{out(pass), out(pass, "a ", pass), []string{`part "a": pass, not nothing`}},
	} {
		if got := differences(c.want, c.got); !slices.Equal(got, c.said) {
			t.Errorf("%v and %v: %q, want %q", c.want, c.got, got, c.said)
		}
	}
}

func TestList(t *testing.T) {
	tests, err := parseList(quickList)
	if err != nil {
		t.Fatal(err)
	}
	groups := map[string]int{}
	for _, test := range tests {
		groups[test.Group]++
	}
	if len(tests) < 150 || len(groups) < 12 {
		t.Errorf("%d tests of %v", len(tests), groups)
	}
	for _, bad := range []string{"a test\n", "[group\n", "[]\n", "[a]\none\n[b]\none\n"} {
		if got, err := parseList(bad); err == nil {
			t.Errorf("%q is a list: %v", bad, got)
		}
	}
}
