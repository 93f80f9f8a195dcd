package crossdomain

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy/proxytest"
)

// TestSendLayouts: 28 and 4 identifiers are told apart by the size of the first
// SEND, and RECEIVE answers in kind; libkrun's INIT says it at once.
func TestSendLayouts(t *testing.T) {
	for _, slots := range []int{MaxIDs, MaxIDsOld} {
		r := newRig(t)
		g := r.wayland()
		r.submit(sendCmd(slots, []byte("hello"), id{id: buffer, typ: IDBlob}), sendCmd(slots, nil), sendCmd(slots, bytes.Repeat([]byte("x"), 60000)))
		c := proxytest.Recv(t, g)
		if string(c.Data) != "hello" || len(c.Items) != 1 || c.Items[0].Kind != proxy.ItemResource || c.Items[0].Resource != buffer {
			t.Fatalf("%d: %q, %+v", slots, c.Data, c.Items)
		}
		if c = proxytest.Recv(t, g); len(c.Data) != 60000 {
			t.Errorf("%d: %d bytes", slots, len(c.Data))
		}
		hold := r.poll()
		if err := g.Send(t.Context(), proxy.Chunk{Data: []byte("answer")}); err != nil {
			t.Fatal(err)
		}
		r.waitFor(hold)
		if m := received(t, r.ring(channelRing), slots); string(m.data) != "answer" {
			t.Errorf("%d: answer %q", slots, m.data)
		}
	}
	for version, slots := range []int{MaxIDsOld, MaxIDs} {
		r := newRig(t)
		r.submit(cmd(CmdInit, SizeInitLibkrun, queryRing, channelRing, 1, uint32(version)))
		g := <-r.guest
		hold := r.poll()
		if err := g.Send(t.Context(), proxy.Chunk{Data: []byte("first")}); err != nil {
			t.Fatal(err)
		}
		r.waitFor(hold)
		if m := received(t, r.ring(channelRing), slots); string(m.data) != "first" {
			t.Errorf("version %d: %q", version, m.data)
		}
	}
}

// TestSendIdentifiers: kinds that nobody serves, foreign resources and wrong pipe
// numbers fail the SEND alone, whole, and leave nothing behind. Defect 5.
func TestSendIdentifiers(t *testing.T) {
	r := newRig(t)
	g := r.wayland()
	pipe := func(n uint32) id { return id{id: firstReadPipe + n, typ: IDReadPipe} }
	for _, bad := range [][]id{
		{{id: foreign, typ: IDBlob}}, {{id: buffer, typ: IDSync}}, {{id: 2, typ: IDWritePipe}}, {{id: 2, typ: IDEvent}},
		{{id: 2, typ: IDFile}}, {{id: 2, typ: IDSocket}}, {{id: buffer, typ: 0}}, {{id: buffer, typ: 99}},
		{{id: 1, typ: IDReadPipe}}, {{id: firstReadPipe - 1, typ: IDReadPipe}},
		{pipe(0), pipe(0)}, {pipe(0), {id: foreign, typ: IDBlob}},
	} {
		r.refuse(ErrRefused, sendCmd(MaxIDs, []byte("bad"), bad...))
	}
	if n := len(r.c.reads); n != 0 {
		t.Errorf("%d pipes are left", n)
	}
	// Several pipes in one SEND, with numbers in any order.
	r.submit(sendCmd(MaxIDs, []byte("good"), pipe(5), pipe(0), id{id: buffer, typ: IDBlob}, pipe(7)))
	c := proxytest.Recv(t, g)
	if string(c.Data) != "good" || len(c.Items) != 4 {
		t.Fatalf("%q with %d items", c.Data, len(c.Items))
	}
	for i, n := range []uint32{5, 0, 0, 7} {
		it := &c.Items[i]
		if i == 2 {
			continue
		}
		text := fmt.Sprintf("pipe %d", n)
		if _, err := unix.Write(it.FD.Int(), []byte(text)); err != nil {
			t.Fatal(err)
		}
		if m := read(t, r.message()); m.id != firstReadPipe+n || string(m.data) != text || m.hangUp {
			t.Errorf("%+v, want %q", m, text)
		}
		it.Close()
		if m := read(t, r.message()); m.id != firstReadPipe+n || len(m.data) != 0 || !m.hangUp {
			t.Errorf("%+v, want the end of pipe %d", m, n)
		}
	}
	r.submit(sendCmd(MaxIDs, []byte("again"), pipe(5))) // the number is free again
	c = proxytest.Recv(t, g)
	c.Items[0].Close()
}

// TestPressure: a guest that sends faster than anybody reads has its fences held,
// and its channel ended if it goes on. Defect 4.
func TestPressure(t *testing.T) {
	r := newRig(t)
	g := r.wayland()
	if r.c.Hold(1) {
		t.Fatal("a fence is held while there is room")
	}
	block := sendCmd(MaxIDs, make([]byte, 60000))
	for range softBytes/60000 + 1 {
		r.submit(block)
	}
	if !r.c.Hold(2) || !r.c.Hold(3) {
		t.Fatal("no fence is held though nobody reads")
	}
	r.quiet()
	proxytest.Recv(t, g)
	r.waitFor(2)
	r.waitFor(3)
	for range 3 {
		r.submit(block)
	}
	if !r.c.Hold(4) {
		t.Fatal("no fence is held")
	}
	err := error(nil)
	for i := 0; err == nil; i++ {
		if err = r.c.Submit(block); i > hardBytes/60000+1 {
			t.Fatal("anything is taken")
		}
	}
	if !errors.Is(err, ErrFlood) {
		t.Fatal(err)
	}
	r.waitFor(4)
	if _, err := g.Recv(t.Context()); !errors.Is(err, ErrFlood) {
		t.Errorf("the channel: %v", err)
	}
	r.refuse(ErrFlood, sendCmd(MaxIDs, []byte("more")))
	sent := make(chan error, 1)
	go func() { sent <- g.Send(t.Context(), proxy.Chunk{Data: []byte("why")}) }()
	if m := received(t, r.message(), MaxIDs); string(m.data) != "why" || <-sent != nil {
		t.Errorf("%q, want why the channel ends", m.data)
	}
	r.finish <- io.EOF
	if m := received(t, r.message(), MaxIDs); len(m.ids)+len(m.data) != 0 {
		t.Errorf("%+v, want the end", m)
	}
}

// TestPressureOfMessages: small SENDs count as well.
func TestPressureOfMessages(t *testing.T) {
	r := newRig(t)
	r.wayland()
	err := error(nil)
	for i := 0; err == nil; i++ {
		if err = r.c.Submit(sendCmd(MaxIDsOld, []byte{1}, id{id: buffer, typ: IDBlob})); i > hardMessages {
			t.Fatal("any number is taken")
		}
	}
	if !errors.Is(err, ErrFlood) {
		t.Fatal(err)
	}
}
