package crossdomain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// recv takes the next chunk of the guest's.
func recv(t testing.TB, g proxy.Guest) proxy.Chunk {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := g.Recv(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestInitForms: INIT in each of its sizes connects; the oldest form has one ring.
func TestInitForms(t *testing.T) {
	for _, size := range []int{SizeInitOld, SizeInit, SizeInitLibkrun, SizeInitUUID} {
		for _, typ := range []ChannelType{ChannelWayland, ChannelStream} {
			t.Run(fmt.Sprintf("%d bytes type %d", size, typ), func(t *testing.T) {
				r := newRig(t)
				r.submit(initCmd(size, typ))
				select {
				case g := <-r.guest:
					if d := g.Dialect(); d.BufferItems || !d.FeedbackRaw || d.HasClock || d.Transport != "cross-domain" || d.Name != "test" {
						t.Errorf("dialect %+v", d)
					}
				case <-r.stream:
				case <-time.After(10 * time.Second):
					t.Fatal("nobody serves it")
				}
				r.refuse(ErrRefused, initCmd(size, typ)) // the first one stays
				r.submit(sendCmd(MaxIDs, []byte("hello")))
			})
		}
	}
}

// TestInitNone: a context without a channel has a query ring and no polls.
func TestInitNone(t *testing.T) {
	r := newRig(t)
	r.connect(ChannelNone)
	r.refuse(ErrRefused, sendCmd(MaxIDs, []byte("x")))
	if err := r.c.Poll(1); !errors.Is(err, ErrRefused) {
		t.Errorf("poll: %v", err)
	}
	r.submit(cmd(CmdGetImageRequirements, SizeImageQuery, 16, 16, uint32(dmabuf.XRGB8888), 0x11))
	if got := le.Uint32(r.ring(queryRing)); got != 64 {
		t.Errorf("stride %d", got)
	}
	r.refuse(ErrRefused, initCmd(SizeInit, ChannelWayland))
}

// TestInitRefused: a refused INIT changes nothing; the next one may be right.
func TestInitRefused(t *testing.T) {
	r := newRig(t)
	r.refuse(ErrRefused, cmd(CmdGetImageRequirements, SizeImageQuery, 16, 16, uint32(dmabuf.XRGB8888)))
	r.refuse(ErrRefused, sendCmd(MaxIDs, []byte("x")))
	for _, bad := range [][]byte{
		cmd(CmdInit, SizeInit, queryRing, foreign, 1), cmd(CmdInit, SizeInit, foreign, channelRing, 1),
		cmd(CmdInit, SizeInit, queryRing, tinyRing, 1), cmd(CmdInit, SizeInit, tinyRing, channelRing, 1),
		initCmd(SizeInit, 2), initCmd(SizeInit, 0x10), initCmd(SizeInit, 0xffffffff),
	} {
		r.refuse(ErrRefused, bad)
	}
	for _, size := range []int{8, 12, 28, 32, 40} {
		r.refuse(ErrMalformed, initCmd(size, ChannelWayland))
	}
	r.wayland()
}

// TestMalformed: what breaks the format is refused, ends nothing, and the context
// goes on. Defects 1 and 9 of the reference host.
func TestMalformed(t *testing.T) {
	r := newRig(t)
	g := r.wayland()
	long := sendCmd(MaxIDs, []byte("data"))
	le.PutUint16(long[2:], uint16(len(long)+4))
	more := sendCmd(MaxIDs, []byte("data"))
	le.PutUint32(more[12:], 5)
	huge := sendCmd(MaxIDs, []byte("data"))
	le.PutUint32(huge[12:], 0xfffffea0) // + 352 is 0 in 32 bits
	ids := sendCmd(MaxIDs, []byte("data"))
	le.PutUint32(ids[8:], 29)
	ids4 := sendCmd(MaxIDsOld, []byte("data"))
	le.PutUint32(ids4[8:], 5)
	wlong := writeCmd(2, false, []byte("data"))
	le.PutUint32(wlong[16:], 0xfffffff0)
	for name, p := range map[string][]byte{
		"cmd_size 0":                {byte(CmdPoll), 0, 0, 0, 0, 0, 0, 0},
		"cmd_size below the header": {byte(CmdPoll), 0, 7, 0, 0, 0, 0, 0},
		"cmd_size beyond the end":   {byte(CmdPoll), 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"part of a header":          {byte(CmdPoll), 0, 16, 0},
		"short POLL":                cmd(CmdPoll, 8),
		"short image query":         cmd(CmdGetImageRequirements, 20),
		"short WRITE":               cmd(CmdWrite, 20),
		"short SEND":                cmd(CmdSend, 32),
		"SEND longer than its data": long,
		"SEND with less data":       more,
		"SEND whose size overflows": huge,
		"29 identifiers":            ids,
		"5 identifiers of 4":        ids4,
		"WRITE with less data":      wlong,
	} {
		err := r.c.Submit(p)
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
		var op *OpError
		if !errors.As(err, &op) || op.Ctx != 7 || !strings.Contains(err.Error(), "context 7") {
			t.Errorf("%s: %v does not say whose", name, err)
		}
	}
	for c := 8; c < 256; c++ {
		r.refuse(ErrRefused, cmd(Cmd(c), 16))
	}
	r.refuse(ErrRefused, cmd(0, 16))
	// A bad command after a good one: the good one counts.
	r.refuse(ErrMalformed, sendCmd(MaxIDs, []byte("good")), []byte{4, 0, 0, 0, 0, 0, 0, 0})
	if got := recv(t, g); string(got.Data) != "good" {
		t.Errorf("%q", got.Data)
	}
}

// TestSendLayouts: 28 and 4 identifiers are told apart by the size of the first
// SEND, and RECEIVE answers in kind; libkrun's INIT says it at once.
func TestSendLayouts(t *testing.T) {
	for _, slots := range []int{MaxIDs, MaxIDsOld} {
		r := newRig(t)
		g := r.wayland()
		r.submit(sendCmd(slots, []byte("hello"), id{id: buffer, typ: IDBlob}), sendCmd(slots, nil), sendCmd(slots, bytes.Repeat([]byte("x"), 60000)))
		c := recv(t, g)
		if string(c.Data) != "hello" || len(c.Items) != 1 || c.Items[0].Kind != proxy.ItemResource || c.Items[0].Resource != buffer {
			t.Fatalf("%d: %q, %+v", slots, c.Data, c.Items)
		}
		if c = recv(t, g); len(c.Data) != 60000 {
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
	c := recv(t, g)
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
	c = recv(t, g)
	c.Items[0].Close()
}

// TestPipeLimit: a guest cannot have any number of pipes.
func TestPipeLimit(t *testing.T) {
	r := newRig(t)
	g := r.wayland()
	for i := range uint32(maxPipes) {
		r.submit(sendCmd(MaxIDs, []byte{1}, id{id: firstReadPipe + i, typ: IDReadPipe}))
		c := recv(t, g)
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
	c := recv(t, g)
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

// TestReceive: what is for the guest comes one message for each fence, split at the
// ring's size, with descriptors as numbers.
func TestReceive(t *testing.T) {
	r := newRig(t)
	g := r.wayland()
	data := bytes.Repeat([]byte("wayland "), 1000)
	chunk := proxy.Chunk{Data: data}
	for i := range 40 { // more than one message can have
		chunk.Items = append(chunk.Items, proxy.Item{Kind: proxy.ItemBytes, Bytes: []byte(fmt.Sprintf("keymap %d", i))})
	}
	done := make(chan error, 1)
	go func() { done <- g.Send(context.Background(), chunk) }()
	var got []byte
	var ids []id
	for len(got) < len(data) {
		m := received(t, r.message(), MaxIDs)
		if len(m.data) > pageData-SizeSendReceive || len(m.data) == 0 {
			t.Fatalf("%d bytes in one message", len(m.data))
		}
		got, ids = append(got, m.data...), append(ids, m.ids...)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) || len(ids) != 40 {
		t.Fatalf("%d bytes and %d identifiers", len(got), len(ids))
	}
	for i, x := range ids {
		want := fmt.Sprintf("keymap %d", i)
		if x.typ != IDBlob || x.size != uint32(len(want)) || x.id < firstItem {
			t.Fatalf("identifier %d: %+v", i, x)
		}
		if _, err := r.c.Blob(uint64(x.id), 8192); !errors.Is(err, ErrRefused) {
			t.Errorf("blob larger than its memory: %v", err)
		}
		b, err := r.c.Blob(uint64(x.id), 4096)
		if err != nil {
			t.Fatal(err)
		}
		if seals, err := dmabuf.Seals(b.FD); err != nil || seals&unix.F_SEAL_WRITE == 0 || !b.ReadOnly {
			t.Errorf("seals %#x, read-only %v, %v", seals, b.ReadOnly, err)
		}
		text := make([]byte, len(want))
		if _, err := unix.Pread(b.FD.Int(), text, 0); err != nil || string(text) != want {
			t.Errorf("blob %d holds %q, %v", i, text, err)
		}
		_ = b.FD.Close()
		if _, err := r.c.Blob(uint64(x.id), 4096); !errors.Is(err, ErrRefused) {
			t.Errorf("blob %d twice: %v", i, err)
		}
	}
	if _, err := r.c.Blob(1<<32+uint64(ids[0].id), 4096); !errors.Is(err, ErrRefused) {
		t.Error("the high half of blob_id was ignored")
	}
}

// TestReceiveRefused: what cannot be told to a guest is an error of that Send alone,
// closes what came with it, and costs no fence.
func TestReceiveRefused(t *testing.T) {
	r := newRig(t)
	g := r.wayland()
	hold := r.poll()
	for _, c := range []proxy.Chunk{
		{Data: []byte("x"), Items: []proxy.Item{{Kind: proxy.ItemResource, Resource: 3}}},
		{Data: []byte("x"), Items: []proxy.Item{{Kind: proxy.ItemMemory}}},
		{Data: []byte("x"), Items: []proxy.Item{{Kind: 99}}},
		{Items: []proxy.Item{{Kind: proxy.ItemBytes, Bytes: []byte("a descriptor without a byte to ride on")}}},
		{Update: &proxy.Update{}},
	} {
		if err := g.Send(t.Context(), c); !errors.Is(err, ErrRefused) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	r.quiet()
	if err := g.Send(t.Context(), proxy.Chunk{Data: []byte("fine")}); err != nil {
		t.Fatal(err)
	}
	r.waitFor(hold)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := g.Send(ctx, proxy.Chunk{Data: []byte("no fence")}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a fence: %v", err)
	}
}

// TestReceiveHuge: memory whose size has no room in 32 bits is refused, not cut.
// Defect 7.
func TestReceiveHuge(t *testing.T) {
	r := newRig(t)
	g := r.wayland()
	mem, err := unix.Mmap(-1, 0, 1<<32, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(mem) }()
	r.poll()
	if err := g.Send(t.Context(), proxy.Chunk{Data: []byte{1}, Items: []proxy.Item{{Kind: proxy.ItemBytes, Bytes: mem}}}); !errors.Is(err, ErrRefused) {
		t.Errorf("%v", err)
	}
	r.quiet()
}

// TestBlobLimit: what the guest does not take is limited.
func TestBlobLimit(t *testing.T) {
	r := newRig(t)
	g := r.wayland()
	for range maxBlobs {
		hold := r.poll()
		if err := g.Send(t.Context(), proxy.Chunk{Data: []byte{1}, Items: []proxy.Item{{Kind: proxy.ItemBytes}}}); err != nil {
			t.Fatal(err)
		}
		r.waitFor(hold)
	}
	r.poll()
	if err := g.Send(t.Context(), proxy.Chunk{Data: []byte{1}, Items: []proxy.Item{{Kind: proxy.ItemBytes}}}); !errors.Is(err, ErrRefused) {
		t.Errorf("%v", err)
	}
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
	if c := recv(t, g); string(c.Data) != "alive" {
		t.Errorf("%q", c.Data)
	}
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
	recv(t, g)
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

// TestEnd: the end of what serves the channel is an empty RECEIVE, once, also when
// it failed and when the guest polls only later. Defect 3.
func TestEnd(t *testing.T) {
	for _, late := range []bool{false, true} {
		r := newRig(t)
		g := r.wayland()
		hold := uint64(0)
		if !late {
			hold = r.poll()
		}
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := g.Recv(t.Context()); !errors.Is(err, io.EOF) {
			t.Errorf("after Close: %v", err)
		}
		if err := g.Send(t.Context(), proxy.Chunk{Data: []byte("late")}); err == nil && !late {
			hold = r.poll() // the one before went with it
		}
		r.finish <- errors.New("the compositor is gone")
		if late {
			hold = r.poll()
		}
		for got := range r.released {
			if got == hold {
				break
			}
		}
		if m := received(t, r.ring(channelRing), MaxIDs); len(m.ids)+len(m.data) != 0 {
			t.Errorf("%+v, want the end", m)
		}
		r.poll()
		r.quiet()
		r.refuse(ErrClosed, sendCmd(MaxIDs, []byte("x")))
	}
}

// TestLastWords: what the guest sent before it let go of its context is read.
func TestLastWords(t *testing.T) {
	r := newRig(t)
	g := r.wayland()
	r.submit(sendCmd(MaxIDs, []byte("last words")))
	r.c.Close(false)
	if c := recv(t, g); string(c.Data) != "last words" {
		t.Errorf("%q", c.Data)
	}
	if _, err := g.Recv(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
	if err := g.Send(t.Context(), proxy.Chunk{Data: []byte("x")}); !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
	r.finish <- nil
	r.wait.Wait()
	r.c = New(Config{Device: r, Running: &r.wait}) // for the clean-up
}

// TestPollLimit: fences that wait are limited.
func TestPollLimit(t *testing.T) {
	r := newRig(t)
	r.wayland()
	for range maxPolls {
		r.poll()
	}
	if err := r.c.Poll(99); !errors.Is(err, ErrRefused) {
		t.Errorf("%v", err)
	}
}

// TestImages: templates can be asked for again and again and used again and again;
// each use is memory of its own. Defect 8.
func TestImages(t *testing.T) {
	r := newRig(t)
	r.connect(ChannelNone)
	ask := func(w, h uint32, f dmabuf.Fourcc) []byte {
		return cmd(CmdGetImageRequirements, SizeImageQuery, w, h, uint32(f), 0x11)
	}
	r.submit(ask(64, 32, dmabuf.XRGB8888))
	p := r.ring(queryRing)[:SizeImageReply]
	blob, size := le.Uint32(p[48:]), le.Uint64(p[40:])
	if le.Uint32(p) != 256 || le.Uint64(p[32:]) != 0 || size != 8192 || le.Uint32(p[52:]) != 1 || int32(le.Uint32(p[56:])) != -1 || int32(le.Uint32(p[60:])) != -1 {
		t.Errorf("reply %x", p)
	}
	for range 10 {
		r.submit(ask(64, 32, dmabuf.XRGB8888))
		if got := le.Uint32(r.ring(queryRing)[48:]); got != blob {
			t.Fatalf("blob_id %d, before %d", got, blob)
		}
	}
	if _, err := r.c.Blob(uint64(blob), size-1); !errors.Is(err, ErrRefused) {
		t.Errorf("wrong size: %v", err)
	}
	inode := uint64(0)
	for range 3 {
		b, err := r.c.Blob(uint64(blob), size)
		if err != nil || b.ReadOnly {
			t.Fatalf("%+v, %v", b, err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(b.FD.Int(), &st); err != nil || st.Ino == inode || st.Size != int64(size) {
			t.Errorf("inode %d, before %d; %d bytes, %v", st.Ino, inode, st.Size, err)
		}
		inode = st.Ino
		_ = b.FD.Close()
	}
	for _, bad := range [][]byte{ask(0, 32, dmabuf.XRGB8888), ask(64, 1<<31, dmabuf.XRGB8888), ask(64, 32, dmabuf.NV12), ask(64, 32, 0)} {
		r.refuse(ErrRefused, bad)
		if p := r.ring(queryRing)[:SizeImageReply]; !bytes.Equal(p, make([]byte, SizeImageReply)) {
			t.Errorf("an error leaves %x in the ring", p)
		}
	}
	for w := uint32(1); w < maxTemplates; w++ {
		r.submit(ask(w, 1, dmabuf.XRGB8888))
	}
	r.refuse(ErrRefused, ask(maxTemplates, 1, dmabuf.XRGB8888))
	r.submit(ask(1, 1, dmabuf.XRGB8888))
	if _, err := r.c.Blob(9999, 4096); !errors.Is(err, ErrRefused) {
		t.Errorf("unknown blob_id: %v", err)
	}
}

// TestStream: a channel of our own carries bytes both ways, a whole ring at a time.
func TestStream(t *testing.T) {
	r := newRig(t)
	r.rings[channelRing] = scattered(100000)
	r.connect(ChannelStream)
	s := <-r.stream
	r.refuse(ErrRefused, sendCmd(MaxIDs, []byte("x"), id{id: buffer, typ: IDBlob}))
	r.submit(sendCmd(MaxIDs, []byte("he")), sendCmd(MaxIDs, nil), sendCmd(MaxIDs, []byte("llo")))
	got := make([]byte, 5)
	if _, err := io.ReadFull(s, got); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	want := bytes.Repeat([]byte("0123456789abcde\n"), 20000)
	done := make(chan error, 1)
	go func() {
		_, err := s.Write(want)
		done <- err
	}()
	var back []byte
	messages := 0
	for len(back) < len(want) {
		back = append(back, received(t, r.message(), MaxIDs).data...)
		messages++
	}
	if err := <-done; err != nil || !bytes.Equal(back, want) {
		t.Errorf("%d bytes of %d, %v", len(back), len(want), err)
	}
	if most := len(want)/(100000-SizeSendReceive) + 1; messages > most {
		t.Errorf("%d messages, want at most %d", messages, most)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(got); !errors.Is(err, io.EOF) {
		t.Errorf("read after Close: %v", err)
	}
	if _, err := s.Write(got); !errors.Is(err, ErrClosed) {
		t.Errorf("write after Close: %v", err)
	}
	r.finish <- nil
	if m := received(t, r.message(), MaxIDs); len(m.data) != 0 {
		t.Errorf("%q, want the end", m.data)
	}
}

// TestCapset checks its bytes.
func TestCapset(t *testing.T) {
	r := newRig(t)
	all := r.c.cfg.Channels
	for _, c := range []struct {
		ch    Channels
		gbm   bool
		bytes [16]byte
	}{
		{all, false, [16]byte{0: 1, 4: 2, 7: 0x80}},
		{all, true, [16]byte{0: 1, 4: 2, 7: 0x80, 8: 1}},
		{Channels{Wayland: all.Wayland}, false, [16]byte{0: 1, 4: 2}},
		{Channels{}, false, [16]byte{0: 1}},
	} {
		if p := Capset(nil, &c.ch, c.gbm); !bytes.Equal(p, c.bytes[:]) || len(p) != SizeCapset {
			t.Errorf("%x, want %x", p, c.bytes)
		}
	}
}

// TestStreamDeadlines: reads and writes that wait end at their time, also when it is
// set while they wait, and go on when it is taken back.
func TestStreamDeadlines(t *testing.T) {
	r := newRig(t)
	r.connect(ChannelStream)
	s := (<-r.stream).(interface {
		io.ReadWriteCloser
		SetReadDeadline(time.Time) error
		SetWriteDeadline(time.Time) error
	})
	for name, c := range map[string]struct {
		set func(time.Time) error
		do  func([]byte) (int, error)
	}{"read": {s.SetReadDeadline, s.Read}, "write": {s.SetWriteDeadline, s.Write}} {
		done := make(chan error, 1)
		go func() {
			_, err := c.do([]byte("12345"))
			done <- err
		}()
		time.Sleep(5 * time.Millisecond)
		_ = c.set(time.Now().Add(time.Hour)) // looks again, waits again
		time.Sleep(5 * time.Millisecond)
		_ = c.set(time.Now())
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := c.do([]byte("12345")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s again: %v", name, err)
		}
		_ = c.set(time.Time{})
	}
	r.submit(sendCmd(MaxIDs, []byte("x")))
	if n, err := s.Read(make([]byte, 5)); n != 1 || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
	hold := r.poll()
	if n, err := s.Write([]byte("y")); n != 1 || err != nil {
		t.Errorf("wrote %d bytes, %v", n, err)
	}
	r.waitFor(hold)
}
