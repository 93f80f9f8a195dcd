package apps

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/mdlayher/vsock"

	"github.com/gpubroker/gpubroker/broker/link"
)

// from is a connection of a guest that has a CID.
type from struct {
	net.Conn
	cid uint32
}

func (f from) RemoteAddr() net.Addr { return &vsock.Addr{ContextID: f.cid, Port: 1024} }

// TestStranger: a port that is for one guest tells another one so, and does not wait for
// those that say nothing.
func TestStranger(t *testing.T) {
	s := start(t, Config{Handler: handlerFunc(discard), Limits: Limits{Clients: 1}})
	connect := func(cid uint32) net.Conn {
		here, there := net.Pipe()
		t.Cleanup(func() { _ = here.Close() })
		if !s.spawn(func() { s.serveVSock(from{there, cid}, 7) }) {
			t.Fatal("closed")
		}
		return here
	}
	_, _, err := link.ClientHandshake(timeout(t), connect(8), link.Hello{Name: "x"}, link.Limits{})
	var remote *link.RemoteError
	if !errors.As(err, &remote) || !strings.Contains(remote.Text, "you have CID 8, it is for CID 7 alone") {
		t.Errorf("a stranger was told %v", err)
	}
	silent := maxStrangers + handshakesBeyondLimit
	for range silent {
		_ = connect(9)
	}
	eventually(t, "as many are told as may be", func() bool { return len(s.strangers) == maxStrangers })
	if _, err := connect(9).Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("one stranger too many: %v, want the end at once", err)
	}
	c := client(t, connect(7), "")
	eventually(t, "all are counted", func() bool {
		st := s.Status().Transports[TransportVSock]
		return st.Clients == 1 && st.Refused == uint64(1+silent+1)
	})
	_ = c.Close()
}
