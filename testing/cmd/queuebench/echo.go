package main

import (
	"context"

	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// serveEcho answers each command with its own bytes: what a ring between two processes
// costs when nothing is done for a command.
func serveEcho(ctx context.Context) error {
	loop, err := vhostusertest.NewLoop()
	if err != nil {
		return err
	}
	defer loop.Close()
	b, err := vhostuser.NewBackend(vhostuser.Config{Device: vhostusertest.NewDevice(loop), Executor: loop})
	if err != nil {
		return err
	}
	conn, err := vhostuser.FromFD(dmabuf.NewFD(3, "front-end"))
	if err != nil {
		return err
	}
	return b.Serve(ctx, conn)
}
