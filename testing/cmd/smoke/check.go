package main

import (
	"fmt"

	"github.com/gpubroker/gpubroker/broker/smoke"
)

// expected is what is known of a host, by check. What a host has beyond this machine's
// own kernel and drivers is the lab's, so it does not vary.
var expected = map[string]map[string]smoke.State{
	"plain": {"memfd": smoke.OK, "compositor": smoke.Degraded, "qemu": smoke.OK, "virgl.draw": smoke.OK},
	"vm": {
		"memfd": smoke.OK, "udmabuf": smoke.OK, "dma-heap": smoke.OK, "compositor": smoke.OK, "gbm.allocate": smoke.OK, "gbm.roundtrip": smoke.OK,
		"virgl.capsets": smoke.OK, "virgl.draw": smoke.OK, "virgl.export": smoke.OK, "qemu": smoke.OK, "frames": smoke.OK,
	},
}

// expectedTiers says which ways frames must and must not go.
var expectedTiers = map[string]map[string]bool{
	"plain": {"dmabuf": false, "udmabuf": false, "shared": true, "shm": true, "copy": true},
	"vm":    {"dmabuf": true, "udmabuf": true, "shared": true, "shm": true, "copy": true},
}

// check compares a report with what is known of its host.
func check(host string, rep *smoke.Report, gl bool) []string {
	var out []string
	problem := func(format string, args ...any) { out = append(out, host+": "+fmt.Sprintf(format, args...)) }
	want := map[string]smoke.State{}
	for name, state := range expected[host] {
		want[name] = state
	}
	if gl && host == "vm" {
		want["gl.draw"] = smoke.OK
	}
	for name, state := range want {
		if got, ok := best(rep, name); !ok || got != state {
			problem("%s is %q, want %q", name, got, state)
		}
	}
	for tier, have := range expectedTiers[host] {
		if rep.Tiers[tier] != have {
			problem("tier %s: %v, want %v", tier, rep.Tiers[tier], have)
		}
	}
	if rep.Code == smoke.CodeUnusable {
		problem("the machine counts as unusable")
	}
	for _, row := range rep.Rows {
		if row.State != smoke.OK && row.Cause == "" {
			problem("%s is %s and names no cause", row.Name, row.State)
		}
		if (row.State == smoke.Degraded || row.State == smoke.Failed) && row.Fix == "" {
			problem("%s is %s and says no way to mend it", row.Name, row.State)
		}
	}
	return out
}

// best is the best state of a check: one node of several may do.
func best(rep *smoke.Report, name string) (smoke.State, bool) {
	order := []smoke.State{smoke.OK, smoke.Degraded, smoke.Failed, smoke.Skipped}
	for _, s := range order {
		for _, row := range rep.Rows {
			if row.Name == name && row.State == s {
				return s, true
			}
		}
	}
	return "", false
}
