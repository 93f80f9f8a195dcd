package crossdomain

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/guestmem"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Resources of the test's device.
const (
	queryRing   = 10
	channelRing = 11
	tinyRing    = 12
	foreign     = 13 // exists, and is not the context's
	buffer      = 20
)

var errNoResource = errors.New("no such resource")

// rig is a context with a device of a few resources and what serves its channel.
type rig struct {
	t    testing.TB
	c    *Context
	wait sync.WaitGroup

	rings    map[uint32][][]byte
	pinned   []uint32
	released chan uint64
	hold     uint64

	guest  chan proxy.Guest        // who serves a Wayland channel finds it here
	stream chan io.ReadWriteCloser // likewise
	finish chan error              // ends what serves
}

// scattered is a ring in pieces, none of which holds a message.
func scattered(n int) [][]byte {
	var out [][]byte
	for ; n > 0; n -= 100 {
		out = append(out, make([]byte, min(n, 100)))
	}
	return out
}

func newRig(t testing.TB) *rig {
	r := &rig{
		t: t, released: make(chan uint64, 4096),
		rings: map[uint32][][]byte{queryRing: scattered(4096), channelRing: scattered(4096), tinyRing: scattered(31)},
		guest: make(chan proxy.Guest, 1), stream: make(chan io.ReadWriteCloser, 1), finish: make(chan error, 1),
	}
	r.c = New(Config{
		ID: 7, Name: "test", Device: r, Running: &r.wait, Log: zap.NewNop(),
		Channels: Channels{
			Wayland: func(ctx context.Context, g proxy.Guest, _ uint32) error {
				r.guest <- g
				return r.served(ctx)
			},
			Stream: func(ctx context.Context, rw io.ReadWriteCloser, _ uint32) error {
				r.stream <- rw
				return r.served(ctx)
			},
		},
	})
	t.Cleanup(func() {
		r.c.Close(true)
		r.wait.Wait()
	})
	return r
}

func (r *rig) served(ctx context.Context) error {
	select {
	case err := <-r.finish:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *rig) Pin(id uint32) error {
	if id != buffer {
		return errNoResource
	}
	r.pinned = append(r.pinned, id)
	return nil
}

func (r *rig) Ring(id uint32) (Ring, error) {
	segs, ok := r.rings[id]
	if !ok {
		return Ring{}, errNoResource
	}
	return Ring{Segs: segs, Close: func() {}}, nil
}

func (r *rig) Image(w, h uint32, f dmabuf.Fourcc, alloc bool) (Image, error) {
	if f != dmabuf.XRGB8888 || w == 0 || w > 4096 || h == 0 || h > 4096 {
		return Image{}, errors.New("no such image")
	}
	im := Image{Size: uint64(dmabuf.PageAlign(int64(w) * int64(h) * 4)), Strides: [4]uint32{w * 4}, MapInfo: 1}
	if alloc {
		fd, err := dmabuf.NewMemfd("image", int64(im.Size))
		if err != nil {
			return Image{}, err
		}
		im.FD = fd
	}
	return im, nil
}

func (r *rig) Release(hold uint64) { r.released <- hold }

// submit runs commands that must succeed.
func (r *rig) submit(p ...[]byte) {
	r.t.Helper()
	if err := r.c.Submit(slices.Concat(p...)); err != nil {
		r.t.Fatal(err)
	}
}

// refuse runs commands that must fail with want.
func (r *rig) refuse(want error, p ...[]byte) {
	r.t.Helper()
	if err := r.c.Submit(slices.Concat(p...)); !errors.Is(err, want) {
		r.t.Errorf("%v, want %v", err, want)
	}
}

func (r *rig) connect(typ ChannelType) {
	r.t.Helper()
	r.submit(initCmd(SizeInit, typ))
}

// wayland connects and returns the proxy's side.
func (r *rig) wayland() proxy.Guest {
	r.t.Helper()
	r.connect(ChannelWayland)
	return <-r.guest
}

// poll arms a fence of the channel ring.
func (r *rig) poll() uint64 {
	r.t.Helper()
	r.hold++
	r.submit(cmd(CmdPoll, SizePoll))
	if err := r.c.Poll(r.hold); err != nil {
		r.t.Fatal(err)
	}
	return r.hold
}

// message arms a fence, waits for it and returns what is in the ring.
func (r *rig) message() []byte {
	r.t.Helper()
	r.waitFor(r.poll())
	return r.ring(channelRing)
}

func (r *rig) waitFor(hold uint64) {
	r.t.Helper()
	select {
	case got := <-r.released:
		if got != hold {
			r.t.Fatalf("fence %d was released, want %d", got, hold)
		}
	case <-time.After(10 * time.Second):
		r.t.Fatalf("fence %d was not released", hold)
	}
}

// quiet checks that no fence is released.
func (r *rig) quiet() {
	r.t.Helper()
	select {
	case got := <-r.released:
		r.t.Fatalf("fence %d was released", got)
	case <-time.After(20 * time.Millisecond):
	}
}

func (r *rig) ring(id uint32) []byte {
	r.t.Helper()
	p := make([]byte, 1<<20)
	n, err := guestmem.ReadAt(p, r.rings[id], 0)
	if err != nil {
		r.t.Fatal(err)
	}
	return p[:n]
}

// cmd makes a command of size bytes with fields from offset 8 on.
func cmd(c Cmd, size int, fields ...uint32) []byte {
	p := appendHeader(nil, c, size)
	for _, f := range fields {
		p = le.AppendUint32(p, f)
	}
	return append(p, make([]byte, max(size-len(p), 0))...)[:max(size, sizeHeader)]
}

func initCmd(size int, typ ChannelType) []byte {
	if size == SizeInitOld {
		return cmd(CmdInit, size, channelRing, uint32(typ))
	}
	return cmd(CmdInit, size, queryRing, channelRing, uint32(typ))
}

func sendCmd(slots int, data []byte, ids ...id) []byte {
	p := appendReceive(nil, &message{ids: ids, data: data, slots: slots})
	p[0] = byte(CmdSend)
	return p
}

func writeCmd(id uint32, hangUp bool, data []byte) []byte {
	p := appendRead(nil, &pipeData{id, hangUp, data})
	p[0] = byte(CmdWrite)
	return p
}

// received decodes a RECEIVE of the ring.
func received(t testing.TB, p []byte, slots int) message {
	t.Helper()
	if Cmd(p[0]) != CmdReceive {
		t.Fatalf("%v in the ring, want RECEIVE", Cmd(p[0]))
	}
	n, size := int(le.Uint32(p[8:])), int(le.Uint32(p[12:]))
	if got := int(le.Uint16(p[2:])); got != sizeOf(slots)+size && sizeOf(slots)+size <= maxCommand {
		t.Errorf("cmd_size %d with %d bytes", got, size)
	}
	m := message{slots: slots, data: p[sizeOf(slots):][:size]}
	for i := range n {
		at := func(array int) uint32 { return le.Uint32(p[16+4*(array*slots+i):]) }
		m.ids = append(m.ids, id{at(0), IDType(at(1)), at(2)})
	}
	return m
}

// read decodes a READ of the ring.
func read(t testing.TB, p []byte) pipeData {
	t.Helper()
	if Cmd(p[0]) != CmdRead {
		t.Fatalf("%v in the ring, want READ", Cmd(p[0]))
	}
	size := int(le.Uint32(p[16:]))
	return pipeData{le.Uint32(p[8:]), le.Uint32(p[12:]) != 0, p[SizeReadWrite:][:size]}
}
