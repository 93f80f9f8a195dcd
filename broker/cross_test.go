package broker_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/crossdomain"
	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy/proxytest"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
	"github.com/gpubroker/gpubroker/virgl"
	"github.com/gpubroker/gpubroker/virgl/virgltest"
)

// TestCrossCapset: the set is offered with apps only, also where there is no 3D
// otherwise; contexts of it are not the renderer's.
func TestCrossCapset(t *testing.T) {
	for _, noGL := range []bool{false, true} {
		r := newApps(t, machineConfig{fake: virgltest.Config{NoGL: noGL, Capsets: capsets(noGL)}})
		want := uint64(1<<virtiogpu.FeatureVirgl | 1<<virtiogpu.FeatureContextInit)
		if r.FE.Offered()&want != want {
			t.Errorf("features %#x", r.FE.Offered())
		}
		var cfg [virtiogpu.SizeConfig]byte
		r.dev.ReadConfig(cfg[:])
		n := binary.LittleEndian.Uint32(cfg[12:])
		if n != uint32(len(capsets(noGL))+1) {
			t.Fatalf("%d capability sets", n)
		}
		var info virtiogpu.CapsetInfo
		if err := info.Decode(r.ok((&virtiogpu.GetCapsetInfo{CapsetIndex: n - 1}).Append(nil))); err != nil {
			t.Fatal(err)
		}
		if info.CapsetID != 5 || info.CapsetMaxVersion != 0 || info.CapsetMaxSize != 16 {
			t.Errorf("%+v", info)
		}
		set := r.ok((&virtiogpu.GetCapset{CapsetID: 5}).Append(nil))[virtiogpu.SizeCtrlHdr:]
		if !bytes.Equal(set, []byte{1, 0, 0, 0, 2, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0}) {
			t.Errorf("%x", set)
		}
		if typ, _ := r.do((&virtiogpu.GetCapset{CapsetID: 5, CapsetVersion: 1}).Append(nil)); typ.IsOK() {
			t.Error("version 1 was answered")
		}
		r.createCross(1, "x")
		r.ok(typed(&virtiogpu.CtrlHdr{CtxID: 1}, virtiogpu.CmdCtxDestroy))
		if n := r.fake.Calls(virgltest.OpCreateContext) + r.fake.Calls(virgltest.OpDestroyContext); n != 0 {
			t.Errorf("the renderer heard of %d contexts", n)
		}
	}
	m := modeB(t)
	c := virtiogpu.CtxCreate{CtrlHdr: ctxHdr(1), ContextInit: crossdomain.CapsetID}
	if typ, _ := m.do(c.Append(nil)); typ.IsOK() {
		t.Error("a cross-domain context without apps")
	}
	if typ, _ := m.do((&virtiogpu.GetCapset{CapsetID: 5}).Append(nil)); typ.IsOK() {
		t.Error("the set is there without apps")
	}
}

func capsets(noGL bool) []virgl.CapsetInfo {
	if noGL {
		return []virgl.CapsetInfo{}
	}
	return []virgl.CapsetInfo{{ID: 1, MaxVersion: 1, MaxSize: 308}, {ID: 2, MaxVersion: 2, MaxSize: 1376}}
}

// TestCrossTalk: SEND reaches what serves the channel, with resources that only this
// context may name; RECEIVE comes through a ring of scattered pages with its fence.
func TestCrossTalk(t *testing.T) {
	r := newApps(t, machineConfig{fake: virgltest.Config{Kind: dmabuf.KindDMABuf}})
	r.createCtx(1)
	r.create3D(7, 64, 32)
	r.attachCtx(1, 7)
	r.connect(crossdomain.ChannelWayland)
	g := <-r.guests
	if typ, _ := r.do(submit(ctxHdr(crossCtx), send("mine?", crossdomain.IDBlob, 7))); typ.IsOK() {
		t.Fatal("another context's texture was named")
	}
	r.attachCtx(crossCtx, 7) // the kernel does this for a PRIME import
	if n := r.fake.Calls(virgltest.OpAttachResource); n != 1 {
		t.Errorf("%d attachments in the renderer, want the other context's", n)
	}
	// The guest may let go of it with the next command, before anybody opens it.
	for _, cmd := range [][]byte{
		submit(ctxHdr(crossCtx), send("hello", crossdomain.IDBlob, 7)),
		typed(&virtiogpu.CtxResource{CtrlHdr: ctxHdr(crossCtx), ResourceID: 7}, virtiogpu.CmdCtxDetachResource),
		(&virtiogpu.ResourceUnref{ResourceID: 7}).Append(nil),
		create3D(7, 8, 8), // the number is used again
	} {
		r.ok(cmd)
	}
	c := proxytest.Recv(t, g)
	if string(c.Data) != "hello" || len(c.Items) != 1 || c.Items[0].Kind != proxy.ItemResource || c.Items[0].Resource != 7 {
		t.Fatalf("%q, %+v", c.Data, c.Items)
	}
	res, err := r.names().Open(t.Context(), proxy.Owner{Ctx: crossCtx}, proxy.DeviceGPU, 7)
	if err != nil {
		t.Fatal(err)
	}
	buf, err := res.Buffer(t.Context())
	if err != nil || buf.Width != 64 || buf.Height != 32 {
		t.Fatalf("%v, %v", buf, err)
	}
	buf.Release()
	closed(t, res)
	if _, err := r.names().Open(t.Context(), proxy.Owner{Ctx: crossCtx}, proxy.DeviceGPU, 7); !errors.Is(err, proxy.ErrNotOwned) {
		t.Errorf("named once, opened twice: %v", err)
	}

	op := r.poll()
	r.pending(op)
	long := bytes.Repeat([]byte("0123456789"), 374) // 3740 bytes: into the second page
	if err := g.Send(t.Context(), proxy.Chunk{Data: long}); err != nil {
		t.Fatal(err)
	}
	p := r.answered(op)
	if crossdomain.Cmd(p[0]) != crossdomain.CmdReceive || !bytes.Equal(p[352:352+len(long)], long) {
		t.Errorf("%x…", p[:32])
	}
	// A ring of the query kind completes at once, others do not exist.
	op, err = r.Ctrl.Submit(submit(onRing(crossCtx, crossdomain.RingQuery, 2), command(crossdomain.CmdGetImageRequirements, 24, 64, 64, uint32(dmabuf.XRGB8888), 0x11)), 64)
	if err != nil {
		t.Fatal(err)
	}
	r.waitOK(op)
	if typ, _ := r.do(submit(onRing(crossCtx, 2, 3), command(crossdomain.CmdPoll, 16))); typ.IsOK() {
		t.Error("ring 2 exists")
	}
	if typ, _ := r.do(submit(ctxHdr(crossCtx), []byte{4, 0, 0, 0, 0, 0, 0, 0})); typ != virtiogpu.RespErrInvalidParameter {
		t.Errorf("cmd_size 0: %v", typ)
	}
	r.ok(typed(&virtiogpu.CtrlHdr{CtxID: crossCtx}, virtiogpu.CmdCtxDestroy))
	<-r.ended
}

// TestCrossImage: memory from GET_IMAGE_REQUIREMENTS is made, mapped, drawn by the
// guest and read by who serves the channel.
func TestCrossImage(t *testing.T) {
	r := newApps(t, machineConfig{})
	r.connect(crossdomain.ChannelWayland)
	g := <-r.guests
	const w, h = 50, 20
	r.ok(submit(onRing(crossCtx, 0, 1), command(crossdomain.CmdGetImageRequirements, 24, w, h, uint32(dmabuf.XRGB8888), 0x11)))
	reply := make([]byte, crossdomain.SizeImageReply)
	r.query.ReadAt(reply, 0)
	stride, size, id := binary.LittleEndian.Uint32(reply), binary.LittleEndian.Uint64(reply[40:]), binary.LittleEndian.Uint32(reply[48:])
	if stride < w*4 || size < uint64(stride)*h || id == 0 {
		t.Fatalf("stride %d, size %d, blob_id %d", stride, size, id)
	}
	for n := range uint32(2) { // a template, not one image
		r.ok(createBlob(ctxHdr(crossCtx), 40+n, virtiogpu.BlobMemHost3D, virtiogpu.BlobFlagMappable|virtiogpu.BlobFlagShareable, uint64(id), size, nil))
		r.attachCtx(crossCtx, 40+n)
		r.ok(mapBlob(40+n, 0x10000*uint64(n+1)))
		if err := r.FE.WriteWindow(0x10000*uint64(n+1)+uint64(stride)+8, []byte{byte(n + 1), 2, 3, 4}); err != nil {
			t.Fatal(err)
		}
	}
	r.ok(submit(ctxHdr(crossCtx), send("two", crossdomain.IDBlob, 40, 41)))
	c := proxytest.Recv(t, g)
	for n, it := range c.Items {
		res, err := r.names().Open(t.Context(), proxy.Owner{Ctx: crossCtx}, proxy.DeviceGPU, it.Resource)
		if err != nil {
			t.Fatal(err)
		}
		fd, isDMABuf, err := res.Memory(t.Context())
		if err != nil || isDMABuf || res.Size() != size {
			t.Fatalf("dma-buf %v, %d bytes, %v", isDMABuf, res.Size(), err)
		}
		var px [4]byte
		if _, err := unix.Pread(fd.Int(), px[:], int64(stride)+8); err != nil || px != [4]byte{byte(n + 1), 2, 3, 4} {
			t.Errorf("image %d has %v, %v", n, px, err)
		}
		dst, err := shmfallback.Alloc(w, h, dmabuf.XRGB8888, "window")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := res.Read(t.Context(), proxy.Layout{Fourcc: dmabuf.XRGB8888, Stride: stride}, display.Rect{W: w, H: h}, dst); err != nil {
			t.Error(err)
		}
		if got := dst.Mem[int(dst.Planes[0].Stride)+8]; got != byte(n+1) {
			t.Errorf("image %d read as %d", n, got)
		}
		dst.Release()
		_ = fd.Close()
		closed(t, res)
	}
	if typ, _ := r.do(createBlob(ctxHdr(crossCtx), 50, virtiogpu.BlobMemHost3D, virtiogpu.BlobFlagMappable, uint64(id), size+4096, nil)); typ.IsOK() {
		t.Error("a blob of another size")
	}
	if typ, _ := r.do(createBlob(ctxHdr(crossCtx), 50, virtiogpu.BlobMemHost3D, virtiogpu.BlobFlagMappable, 9999, size, nil)); typ.IsOK() {
		t.Error("a blob of an unknown id")
	}
	b, err := r.Pages.Scattered(4096)
	if err != nil {
		t.Fatal(err)
	}
	if typ, _ := r.do(createBlob(ctxHdr(crossCtx), 50, virtiogpu.BlobMemHost3DGuest, virtiogpu.BlobFlagMappable, uint64(id), 4096, b)); typ.IsOK() {
		t.Error("a shared blob of a context that draws nothing")
	}
}

// TestCrossKeymap: memory that comes with a RECEIVE is mapped for reading only.
func TestCrossKeymap(t *testing.T) {
	r := newApps(t, machineConfig{})
	r.connect(crossdomain.ChannelWayland)
	g := <-r.guests
	op := r.poll()
	text := "xkb_keymap { }"
	if err := g.Send(t.Context(), proxy.Chunk{Data: []byte("keymap event"), Items: []proxy.Item{{Kind: proxy.ItemBytes, Bytes: []byte(text)}}}); err != nil {
		t.Fatal(err)
	}
	p := r.answered(op)
	if n, typ, size := binary.LittleEndian.Uint32(p[8:]), binary.LittleEndian.Uint32(p[128:]), binary.LittleEndian.Uint32(p[240:]); n != 1 || typ != 1 || size != uint32(len(text)) {
		t.Fatalf("%d identifiers, type %d, size %d", n, typ, size)
	}
	id := binary.LittleEndian.Uint32(p[16:])
	r.ok(createBlob(ctxHdr(crossCtx), 40, virtiogpu.BlobMemHost3D, virtiogpu.BlobFlagMappable|virtiogpu.BlobFlagShareable, uint64(id), 4096, nil))
	r.ok(mapBlob(40, 0))
	maps := r.FE.Mappings()
	if len(maps) != 1 || maps[0].Write {
		t.Errorf("%+v, want one for reading", maps)
	}
	r.ok(unmapBlob(40))
	r.ok((&virtiogpu.ResourceUnref{ResourceID: 40}).Append(nil))
}

// TestCrossStop: a poll outlives vm stop and cont, and is completed once, with the
// message that came meanwhile; a reset ends everything.
func TestCrossStop(t *testing.T) {
	r := newApps(t, machineConfig{})
	r.connect(crossdomain.ChannelWayland)
	g := <-r.guests
	op := r.poll()
	r.pending(op)
	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	r.pending(op)
	if err := g.Send(t.Context(), proxy.Chunk{Data: []byte("while it was stopped")}); err != nil {
		t.Fatal(err)
	}
	r.pending(op)
	if err := r.Cont(); err != nil {
		t.Fatal(err)
	}
	if p := r.answered(op); string(p[352:372]) != "while it was stopped" {
		t.Errorf("%q", p[352:372])
	}
	op = r.poll()
	for range 3 {
		if err := r.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := r.Cont(); err != nil {
			t.Fatal(err)
		}
	}
	r.pending(op)
	if err := g.Send(t.Context(), proxy.Chunk{Data: []byte("after it")}); err != nil {
		t.Fatal(err)
	}
	if p := r.answered(op); string(p[352:360]) != "after it" {
		t.Errorf("%q", p[352:360])
	}
	r.poll()
	if err := r.Reset(); err != nil {
		t.Fatal(err)
	}
	if err := r.Boot(); err != nil {
		t.Fatal(err)
	}
	<-r.ended
	if err := g.Send(t.Context(), proxy.Chunk{Data: []byte("too late")}); err == nil {
		t.Error("sent after a reset")
	}
	r.connect(crossdomain.ChannelStream) // the numbers are free again
	s := <-r.streams
	op = r.poll()
	if _, err := s.Write([]byte("new")); err != nil {
		t.Fatal(err)
	}
	if p := r.answered(op); string(p[352:355]) != "new" {
		t.Errorf("%q", p[352:355])
	}
	for _, p := range r.FE.Problems() {
		t.Error(p)
	}
}

// TestCrossPressure: fences of the query ring wait while nobody reads; the rest of
// the device goes on.
func TestCrossPressure(t *testing.T) {
	r := newApps(t, machineConfig{})
	r.connect(crossdomain.ChannelStream)
	s := <-r.streams
	data := string(make([]byte, 60000))
	var op *fakeguest.Op
	for i := 0; op == nil; i++ {
		o, err := r.Ctrl.Submit(submit(onRing(crossCtx, crossdomain.RingQuery, uint64(i+1)), send(data, 0)), 64)
		if err != nil {
			t.Fatal(err)
		}
		r.settle()
		if done, err := r.Ctrl.Done(o); err != nil {
			t.Fatal(err)
		} else if !done {
			op = o
		} else {
			r.waitOK(o)
		}
		if i > 100 {
			t.Fatal("no fence is held")
		}
	}
	r.ok((&virtiogpu.CtrlHdr{Type: virtiogpu.CmdGetDisplayInfo}).Append(nil))
	r.pending(op)
	if _, err := io.ReadFull(s, make([]byte, 60000)); err != nil {
		t.Fatal(err)
	}
	r.waitOK(op)
	// Destroyed with a fence held: completed.
	for range 3 {
		if op, _ = r.Ctrl.Submit(submit(onRing(crossCtx, crossdomain.RingQuery, 99), send(data, 0)), 64); op == nil {
			t.Fatal("ring full")
		}
	}
	r.pending(op)
	r.ok(typed(&virtiogpu.CtrlHdr{CtxID: crossCtx}, virtiogpu.CmdCtxDestroy))
	r.waitOK(op)
}

// TestCrossMany: contexts come and go while others talk; nothing is left.
func TestCrossMany(t *testing.T) {
	r := newApps(t, machineConfig{})
	r.connect(crossdomain.ChannelStream)
	s := <-r.streams
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 300 {
			if _, err := fmt.Fprintf(s, "%04d", i); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for i := range 300 {
		op := r.poll()
		ctx := uint32(10 + i%7)
		r.createCross(ctx, "short")
		r.attachCtx(ctx, queryRes)
		r.attachCtx(ctx, ringRes)
		if i%2 == 0 { // the same memory can be the ring of several
			r.ok(submit(ctxHdr(ctx), command(crossdomain.CmdInit, crossdomain.SizeInitOld, queryRes, 1)))
			<-r.guests
		}
		r.ok(typed(&virtiogpu.CtrlHdr{CtxID: ctx}, virtiogpu.CmdCtxDestroy))
		if p := r.answered(op); string(p[352:356]) != fmt.Sprintf("%04d", i) {
			t.Fatalf("message %d is %q", i, p[352:356])
		}
	}
	wg.Wait()
	r.ok((&virtiogpu.ResourceUnref{ResourceID: ringRes}).Append(nil)) // the ring stays usable
	op := r.poll()
	if _, err := s.Write([]byte("last")); err != nil {
		t.Fatal(err)
	}
	if p := r.answered(op); string(p[352:356]) != "last" {
		t.Errorf("%q", p[352:356])
	}
}
