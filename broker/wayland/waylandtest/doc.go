// Package waylandtest is a Wayland compositor for tests. It draws nothing: it
// records what clients commit, checks that they keep to the protocol, and
// misbehaves on request: releases late, fails imports, never answers, freezes,
// dies, talks rubbish.
//
//	c := waylandtest.New(t, waylandtest.Config{DMABuf: 3, Layouts: layouts})
//	… a client connects to c.Socket() …
//	commits := c.WaitCommits(t, 2)
package waylandtest
