package crossdomain

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy/proxytest"
	"github.com/gpubroker/gpubroker/dmabuf"
)

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
	if got := proxytest.Recv(t, g); string(got.Data) != "good" {
		t.Errorf("%q", got.Data)
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
	if c := proxytest.Recv(t, g); string(c.Data) != "last words" {
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
