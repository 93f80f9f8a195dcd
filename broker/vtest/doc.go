// Package vtest serves Mesa's virpipe clients: programs whose OpenGL comes over a unix
// socket instead of from a guest, in the vtest protocol of virglrenderer
// (vtest/vtest_protocol.h), versions 0, 2 and 3.
//
// What is said (wire.go, commands.go), what a client is (client.go and the handlers
// beside it) and how bytes move (conn.go, server.go) know as little of each other as
// they can. Resources and contexts belong to whoever implements [GPU].
//
// All clients are served on the render thread, one message after the other: a hop to it
// costs more than most messages.
package vtest
