package crossdomain

import (
	"bytes"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy/proxytest"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// TestPipeLimit: a guest cannot have any number of pipes.
func TestPipeLimit(t *testing.T) {
	r := newRig(t)
	g := r.wayland()
	for i := range uint32(maxPipes) {
		r.submit(sendCmd(MaxIDs, []byte{1}, id{id: firstReadPipe + i, typ: IDReadPipe}))
		c := proxytest.Recv(t, g)
		defer c.Items[0].Close()
	}
	r.refuse(ErrRefused, sendCmd(MaxIDs, []byte{1}, id{id: firstReadPipe + maxPipes, typ: IDReadPipe}))
}

// TestReadPipeVolume: more than a ring holds comes in pieces, none lost, one for
// each fence; the guest decides the pace. Defect 10's other half.
func TestReadPipeVolume(t *testing.T) {
	r := newRig(t)
	g := r.wayland()
	r.submit(sendCmd(MaxIDs, []byte{1}, id{id: firstReadPipe, typ: IDReadPipe}))
	c := proxytest.Recv(t, g)
	want := bytes.Repeat([]byte("0123456789abcde\n"), 20000)
	f := os.NewFile(uintptr(c.Items[0].FD.Disown()), "pipe")
	go func() {
		_, _ = f.Write(want)
		_ = f.Close()
	}()
	var got []byte
	for {
		m := read(t, r.message())
		if len(m.data) > pageData-SizeReadWrite {
			t.Fatalf("%d bytes in one message", len(m.data))
		}
		got = append(got, m.data...)
		if m.hangUp {
			break
		}
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, or changed", len(got), len(want))
	}
	r.quiet()
}

// TestWritePipe: the guest's WRITEs come out of the pipe in order, and hang_up is
// its end. A WRITE to anything else harms nothing. Defects 4 and 6.
func TestWritePipe(t *testing.T) {
	r := newRig(t)
	g := r.wayland()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	out := os.NewFile(uintptr(p[0]), "paste")
	defer out.Close()
	hold := r.poll()
	err := g.Send(t.Context(), proxy.Chunk{Data: []byte{1}, Items: []proxy.Item{
		{Kind: proxy.ItemPipe, FD: dmabuf.NewFD(p[1], "copy")}, {Kind: proxy.ItemBytes, Bytes: []byte("blob")}}})
	if err != nil {
		t.Fatal(err)
	}
	r.waitFor(hold)
	ids := received(t, r.ring(channelRing), MaxIDs).ids
	if len(ids) != 2 || ids[0].typ != IDWritePipe || ids[0].size != 0 {
		t.Fatalf("%+v", ids)
	}
	r.refuse(ErrRefused, writeCmd(ids[1].id, true, []byte("to a blob")))
	r.refuse(ErrRefused, writeCmd(999, true, []byte("to nothing")))
	r.refuse(ErrRefused, writeCmd(firstReadPipe, false, []byte("to a read pipe")))
	if b, err := r.c.Blob(uint64(ids[1].id), 4096); err != nil {
		t.Errorf("the blob is gone: %v", err)
	} else {
		_ = b.FD.Close()
	}
	// More than a pipe holds; nobody reads yet, and nothing waits.
	want := bytes.Repeat([]byte("0123456789abcde\n"), 4000)
	start := time.Now()
	for range 5 {
		r.submit(writeCmd(ids[0].id, false, want))
	}
	r.submit(writeCmd(ids[0].id, true, nil))
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("the control queue waited %v", took)
	}
	r.refuse(ErrRefused, writeCmd(ids[0].id, false, []byte("after hang_up")))
	got, err := io.ReadAll(out)
	if err != nil || !bytes.Equal(got, bytes.Repeat(want, 5)) {
		t.Errorf("%d bytes of %d, %v", len(got), 5*len(want), err)
	}
}

// TestWritePipeBroken: a reader that leaves ends nothing else; the guest's data goes
// nowhere until it hangs up.
func TestWritePipeBroken(t *testing.T) {
	r := newRig(t)
	g := r.wayland()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	hold := r.poll()
	if err := g.Send(t.Context(), proxy.Chunk{Data: []byte{1}, Items: []proxy.Item{{Kind: proxy.ItemPipe, FD: dmabuf.NewFD(p[1], "copy")}}}); err != nil {
		t.Fatal(err)
	}
	r.waitFor(hold)
	n := received(t, r.ring(channelRing), MaxIDs).ids[0].id
	_ = unix.Close(p[0])
	for range 2000 {
		r.submit(writeCmd(n, false, make([]byte, 60000)))
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Microsecond) {
			r.c.mu.Lock()
			left := r.c.piped
			r.c.mu.Unlock()
			if left == 0 {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%d bytes stay queued", left)
			}
		}
	}
	r.submit(writeCmd(n, true, nil), sendCmd(MaxIDs, []byte("alive")))
	if c := proxytest.Recv(t, g); string(c.Data) != "alive" {
		t.Errorf("%q", c.Data)
	}
}
