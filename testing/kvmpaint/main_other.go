//go:build !amd64

// Command kvmpaint needs an x86 machine: its guest is 16-bit x86 code.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "kvmpaint: the guest's program is x86 code, and this is another machine")
	os.Exit(1)
}
