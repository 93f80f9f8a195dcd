package broker_test

import (
	"context"
	"encoding/binary"
	"io"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker/crossdomain"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
)

// appsRig is a machine with a cross-domain context that is connected.
type appsRig struct {
	*machine
	query, ring *fakeguest.Block
	guests      chan proxy.Guest
	streams     chan io.ReadWriteCloser
	ended       chan struct{} // one for each channel that ended
}

const (
	crossCtx  = 5
	queryRes  = 100
	ringRes   = 101
	ringBytes = 3 * 4096 // scattered pages: not in one piece
)

func newApps(t testing.TB, cfg machineConfig) *appsRig {
	r := &appsRig{guests: make(chan proxy.Guest, 8), streams: make(chan io.ReadWriteCloser, 8), ended: make(chan struct{}, 1024)}
	wait := func(ctx context.Context) error {
		<-ctx.Done()
		r.ended <- struct{}{}
		return ctx.Err()
	}
	cfg.apps = &crossdomain.Channels{
		Wayland: func(ctx context.Context, g proxy.Guest, _ uint32) error { r.guests <- g; return wait(ctx) },
		Stream:  func(ctx context.Context, rw io.ReadWriteCloser, _ uint32) error { r.streams <- rw; return wait(ctx) },
	}
	cfg.profile = vhostusertest.QEMU11B
	r.machine = newMachine(t, cfg)
	return r
}

func (r *appsRig) createCross(ctx uint32, name string) {
	r.t.Helper()
	c := virtiogpu.CtxCreate{CtrlHdr: ctxHdr(ctx), NLen: uint32(len(name)), ContextInit: crossdomain.CapsetID}
	copy(c.Name[:], name)
	r.ok(c.Append(nil))
}

// connect makes a context with its rings, as Linux does, and sends INIT.
func (r *appsRig) connect(typ crossdomain.ChannelType) {
	r.t.Helper()
	r.createCross(crossCtx, "app")
	for id, b := range map[uint32]**fakeguest.Block{queryRes: &r.query, ringRes: &r.ring} {
		var err error
		if *b, err = r.Pages.Scattered(ringBytes); err != nil {
			r.t.Fatal(err)
		}
		r.ok(createBlob(virtiogpu.CtrlHdr{}, id, virtiogpu.BlobMemGuest, virtiogpu.BlobFlagMappable, 0, ringBytes, *b))
		r.attachCtx(crossCtx, id)
	}
	r.ok(submit(ctxHdr(crossCtx), command(crossdomain.CmdInit, crossdomain.SizeInit, queryRes, ringRes, uint32(typ))))
}

// command encodes a command with 32-bit fields from offset 8 on.
func command(c crossdomain.Cmd, size int, fields ...uint32) []byte {
	p := make([]byte, size)
	p[0] = byte(c)
	binary.LittleEndian.PutUint16(p[2:], uint16(size))
	for i, f := range fields {
		binary.LittleEndian.PutUint32(p[8+4*i:], f)
	}
	return p
}

// send encodes SEND with identifiers of a type.
func send(data string, typ crossdomain.IDType, ids ...uint32) []byte {
	p := command(crossdomain.CmdSend, crossdomain.SizeSendReceive+len(data), uint32(len(ids)), uint32(len(data)))
	for i, id := range ids {
		binary.LittleEndian.PutUint32(p[16+4*i:], id)
		binary.LittleEndian.PutUint32(p[128+4*i:], uint32(typ))
	}
	copy(p[crossdomain.SizeSendReceive:], data)
	return p
}

func onRing(ctx uint32, ring uint8, id uint64) virtiogpu.CtrlHdr {
	return virtiogpu.CtrlHdr{CtxID: ctx, Flags: virtiogpu.FlagFence | virtiogpu.FlagInfoRingIdx, RingIdx: ring, FenceID: id}
}

// poll arms the channel ring's fence.
func (r *appsRig) poll() *fakeguest.Op {
	r.t.Helper()
	op, err := r.Ctrl.Submit(submit(onRing(crossCtx, crossdomain.RingChannel, 1), command(crossdomain.CmdPoll, crossdomain.SizePoll)), 64)
	if err != nil {
		r.t.Fatal(err)
	}
	return op
}

// answered waits for a poll and returns what is in the ring.
func (r *appsRig) answered(op *fakeguest.Op) []byte {
	r.t.Helper()
	r.waitOK(op)
	p := make([]byte, ringBytes)
	r.ring.ReadAt(p, 0)
	return p
}

func (r *appsRig) waitOK(op *fakeguest.Op) {
	r.t.Helper()
	n, err := r.Ctrl.Wait(op, r.resp, 10*time.Second)
	if err != nil {
		r.t.Fatal(err)
	}
	var h virtiogpu.CtrlHdr
	if err := h.Decode(r.resp[:n]); err != nil || !h.Type.IsOK() {
		r.t.Fatalf("%v, %v", h.Type, err)
	}
}

func (r *appsRig) pending(op *fakeguest.Op) {
	r.t.Helper()
	r.settle()
	if done, err := r.Ctrl.Done(op); done || err != nil {
		r.t.Fatalf("completed: %v, %v", done, err)
	}
}
