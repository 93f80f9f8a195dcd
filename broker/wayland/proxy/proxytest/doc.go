// Package proxytest plays the guest for tests of package proxy: a Wayland client
// that speaks through an in-memory proxy.Guest, and a table of resources in memfds.
//
//	c := proxytest.New(t, p, proxytest.Options{Dialect: proxy.Dialect{BufferItems: true}})
//	shm := c.Bind("wl_shm", 1)
//	…
//	c.Roundtrip()
package proxytest
