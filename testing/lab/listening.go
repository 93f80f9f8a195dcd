package lab

import "net"

// Listening reports whether somebody takes connections at a unix socket. It makes one
// and ends it: a socket's file is there a moment before its program listens.
func Listening(path string) bool {
	c, err := net.Dial("unix", path)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}
