package vhostuser

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

type halfMark bool

func (h *halfMark) SetHalf(on bool) { *h = halfMark(on) }
func (h *halfMark) IsHalf() bool    { return bool(*h) }

func connPair(t *testing.T) (a, b *Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]*Conn
	for i, fd := range fds {
		if conns[i], err = FromFD(dmabuf.NewFD(fd, "socket")); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conns[i].Close() })
	}
	return conns[0], conns[1]
}

// TestHalfAdopted: a back-end died when it had sent the first byte of a request. The next
// one makes of it a request that nobody knows, and its own come whole.
func TestHalfAdopted(t *testing.T) {
	ours, theirs := connPair(t)
	first := header{request: uint32(BackendShmemUnmap), flags: flagVersion, size: mmapSize}.append(nil)[:1]
	if err := ours.send(first); err != nil {
		t.Fatal(err)
	}
	mark := halfMark(true)
	c := newChannel(ours, ProtoReplyAck, true, &mark)
	defer c.close()
	c.setGate(true)
	c.ConfigChange()
	m, err := theirs.Read()
	if err != nil {
		t.Fatal(err)
	}
	if want := uint32(BackendShmemUnmap) + unknownRequest; m.Request != want || m.NeedReply() || len(m.Payload) != 0 {
		t.Errorf("request %d, flags %#x, %d bytes; want %d without any", m.Request, m.Flags, len(m.Payload), want)
	}
	if m, err = theirs.Read(); err != nil || m.Request != uint32(BackendConfigChange) {
		t.Fatalf("request %d, %v; want the config change", m.Request, err)
	}
}

// TestHalfUnread: what a front-end that does not read is sent is no request that it
// knows, once a stop begins.
func TestHalfUnread(t *testing.T) {
	ours, theirs := connPair(t)
	mark := halfMark(false)
	c := newChannel(ours, ProtoReplyAck, false, &mark)
	defer c.close()
	c.setGate(true)
	c.ConfigChange()
	for !halfSent(c) {
	}
	c.setGate(false)
	if mark {
		t.Error("half sent after a stop began")
	}
	m, err := theirs.Read()
	if want := uint32(BackendConfigChange) + unknownRequest; err != nil || m.Request != want {
		t.Fatalf("request %d, %v; want %d", m.Request, err, want)
	}
	c.setGate(true) // what was lost is said again
	if m, err = theirs.Read(); err != nil || m.Request != uint32(BackendConfigChange) {
		t.Fatalf("request %d, %v; want the config change", m.Request, err)
	}
}

func halfSent(c *Channel) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.half != 0
}
