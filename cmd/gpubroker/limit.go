package main

import (
	"fmt"
	"math"
	"strings"

	"github.com/gpubroker/gpubroker/broker"
)

// parseLimits reads --limit: NAME=SIZE, several with commas.
func parseLimits(list []string) (l broker.Limits, err error) {
	for _, item := range list {
		name, value, _ := strings.Cut(item, "=")
		n, err := parseSize(value)
		if err != nil || n == 0 || name != "bytes" && n > math.MaxInt32 {
			return l, fmt.Errorf("--limit %q: want a name and a number from 1 on, such as resources=4096 or bytes=2G", item)
		}
		switch name {
		case "resources":
			l.Resources = int(n)
		case "owned":
			l.Owned = int(n)
		case "contexts":
			l.Contexts = int(n)
		case "pieces":
			l.Pieces = int(n)
		case "bytes":
			l.Bytes = n
		default:
			return l, fmt.Errorf("--limit %q: there is resources, owned, contexts, pieces and bytes", item)
		}
	}
	return l, nil
}
