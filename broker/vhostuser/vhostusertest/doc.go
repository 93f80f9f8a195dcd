// Package vhostusertest is the other side of package vhostuser, for tests: a
// front-end that behaves as QEMU does, message by message, with guest RAM in a
// sealed memfd; and a small device with its own loop.
package vhostusertest
