// Command blobguest runs in a guest and drives its virtio-gpu with the kernel's
// ioctls alone: it makes blobs of each kind, draws into them and shows them.
//
//	blobguest show < COMMANDS  see show
//	blobguest cycle N SEED     makes, maps and drops N host blobs
//	blobguest hold N           makes and maps N host blobs and keeps them
package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "blobguest:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "show":
		return show(os.Stdin, os.Stdout)
	case len(args) == 2 && args[0] == "hold":
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return hold(n, os.Stdout)
	case len(args) == 3 && args[0] == "cycle":
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		seed, err := strconv.ParseUint(args[2], 10, 64)
		if err != nil {
			return err
		}
		return cycle(n, seed, os.Stdout)
	}
	return errors.New("usage: blobguest show | cycle N SEED | hold N")
}
