package broker

import (
	"encoding/json"
	"strconv"
	"testing"
)

// FuzzControlRequest: any line gets an answer that is JSON, and only well-formed
// requests reach what they name.
func FuzzControlRequest(f *testing.F) {
	for _, seed := range []string{"status", "counters", "shot scanout 0", "shot resource 4294967296", " shot\tscanout  1", "", "\x00", "status status", "shot scanout 0x1", "schuß"} {
		f.Add(seed)
	}
	s := NewShots(nil)
	f.Fuzz(func(t *testing.T, line string) {
		reached := false
		c := &Control{requests: []Request{
			{"status", "status", func([]string) (any, error) { reached = true; return Status{}, nil }},
			{"shot", "shot …", func(args []string) (any, error) {
				// A number would visit the device, which this test has not.
				if len(args) == 2 && (args[0] == "scanout" || args[0] == "resource") {
					if _, err := strconv.ParseUint(args[1], 10, 32); err == nil {
						reached = true
						return Shot{}, nil
					}
				}
				return s.Request().Answer(args)
			}},
		}}
		answer := c.answer(line)
		body, err := json.Marshal(answer)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if r, refused := answer.(refusal); refused == reached || refused && r.Error == "" || !json.Valid(body) {
			t.Errorf("%q: reached %v, answered %s", line, reached, body)
		}
	})
}
