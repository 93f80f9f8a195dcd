package broker_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/record"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
	"github.com/gpubroker/gpubroker/virgl"
	"github.com/gpubroker/gpubroker/virgl/virgltest"
)

// recording is a machine whose guest is recorded.
type recording struct {
	*machine
	path string
	fake virgltest.Config
}

func newRecording(t testing.TB, cfg machineConfig, limit uint64) *recording {
	t.Helper()
	path := filepath.Join(t.TempDir(), "recording")
	w, err := record.Create(path, limit)
	if err != nil {
		t.Fatal(err)
	}
	cfg.record = w
	return &recording{newMachine(t, cfg), path, cfg.fake}
}

// file is the recording until now.
func (r *recording) file() []byte {
	r.t.Helper()
	r.loop.Call(func() {}) // the queue's turn has ended, and with it what it wrote
	body, err := os.ReadFile(r.path)
	if err != nil {
		r.t.Fatal(err)
	}
	return body
}

// play plays a recording with a fake renderer like that which recorded it.
func play(t testing.TB, body []byte, fake virgltest.Config, cfg broker.PlayConfig) (*broker.PlayReport, error) {
	t.Helper()
	r, err := record.NewReader(bytes.NewReader(body), "recording")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Renderer = func(f virgl.Fences) (virgl.Renderer, error) {
		fake.OnFence = f
		return virgltest.New(fake)
	}
	cfg.Differences, cfg.Log = 10, zap.NewNop()
	return broker.Play(t.Context(), r, cfg)
}

// same plays the recording until now and checks that answers and pixels of a head are the
// same.
func (r *recording) same(head uint32) *broker.PlayReport {
	r.t.Helper()
	want, err := broker.NewShots(r.dev).Scanout(head)
	if err != nil {
		r.t.Fatal(err)
	}
	rep, err := play(r.t, r.file(), r.fake, broker.PlayConfig{Shot: true, Scanout: head})
	if err != nil {
		r.t.Fatal(err)
	}
	if rep.Different != 0 || rep.Compared != rep.Commands || rep.Commands == 0 {
		r.t.Errorf("%d of %d commands compared, %d different: %+v", rep.Compared, rep.Commands, rep.Different, rep.Differences)
	}
	if rep.Shot == nil || !bytes.Equal(rep.Shot.PNG, want.PNG) {
		r.t.Errorf("head %d shows something else in the replay (%v)", head, rep.ShotError)
	}
	return rep
}

func (r *recording) cursorCmd(cmd []byte) {
	r.t.Helper()
	if _, err := r.Cursor.Do(cmd, r.resp[:virtiogpu.SizeCtrlHdr]); err != nil {
		r.t.Fatal(err)
	}
}

// pattern fills a block with pixels that differ from those of any other seed.
func pattern(b *fakeguest.Block, seed uint32) {
	p := make([]byte, b.Size)
	x := seed*2654435761 + 1
	for i := 0; i+4 <= len(p); i += 4 {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		binary.LittleEndian.PutUint32(p[i:], x)
	}
	b.WriteAt(p, 0)
}

func transfer2D(id uint32, r virtiogpu.Rect, off uint64) []byte {
	return (&virtiogpu.TransferToHost2D{ResourceID: id, R: r, Offset: off}).Append(nil)
}

// TestRecord2D: what a guest without 3D does is the same when it is played again: pixels
// of scattered pages, partial updates, pointers, refused commands, resets.
func TestRecord2D(t *testing.T) {
	r := newRecording(t, machineConfig{fake: virgltest.Config{NoGL: true}}, 0)
	const w, h = 301, 203
	r.ok((&virtiogpu.CtrlHdr{Type: virtiogpu.CmdGetDisplayInfo}).Append(nil))
	r.ok((&virtiogpu.GetEDID{}).Append(nil))
	r.create2D(1, w, h)
	mem := r.attach(1, w*h*4)
	pattern(mem, 1)
	r.scanout(0, 1, rect(0, 0, w, h))
	r.ok(transfer2D(1, rect(0, 0, w, h), 0))
	r.flush(1, rect(0, 0, w, h))
	r.same(0)

	before := len(r.file())
	pattern(mem, 2)
	r.ok(transfer2D(1, rect(50, 60, 70, 80), (60*w+50)*4)) // the rest shows what it did
	r.flush(1, rect(50, 60, 70, 80))
	partial := len(r.file()) - before
	r.same(0)
	for range 20 { // the same again
		r.ok(transfer2D(1, rect(50, 60, 70, 80), (60*w+50)*4))
	}
	if again := len(r.file()) - before - partial; partial < 80*70*4 || again > partial/8 {
		t.Errorf("%d bytes for a part that changed, %d for 20 that did not", partial, again)
	}

	r.create2D(2, 64, 64)
	r.attach(2, 64*64*4)
	up := virtiogpu.UpdateCursor{ResourceID: 2, X: 5, Y: 6}
	r.cursorCmd(typed(&up, virtiogpu.CmdUpdateCursor))
	r.cursorCmd(typed(&up, virtiogpu.CmdMoveCursor))
	up.ResourceID = 99
	r.cursorCmd(typed(&up, virtiogpu.CmdUpdateCursor))
	for _, bad := range [][]byte{
		(&virtiogpu.ResourceUnref{ResourceID: 99}).Append(nil), (&virtiogpu.ResourceCreate2D{ResourceID: 3, Format: 77, Width: 1, Height: 1}).Append(nil),
		{1, 2, 3}, (&virtiogpu.CtrlHdr{Type: 0x7777}).Append(nil), (&virtiogpu.CtrlHdr{Type: virtiogpu.CmdMoveCursor}).Append(nil),
		(&virtiogpu.CtxCreate{CtrlHdr: ctxHdr(1)}).Append(nil), transfer2D(1, rect(300, 0, 2, 1), 0), transfer2D(1, rect(0, 0, w, h), 1<<40),
		(&virtiogpu.ResourceAttachBacking{ResourceID: 2, NrEntries: 3}).Append(nil),
		virtiogpu.MemEntry{Addr: 1 << 50, Length: 4096}.Append((&virtiogpu.ResourceAttachBacking{ResourceID: 3, NrEntries: 1}).Append(nil)),
	} {
		if typ, _ := r.do(bad); typ.IsOK() {
			t.Errorf("%x was answered with %v", bad, typ)
		}
	}
	rep := r.same(0)
	if st := r.dev.Status(false); rep.Commands != st.Commands || rep.GL || rep.Truncated {
		t.Errorf("%+v, the device served %d", rep, st.Commands)
	}

	// A driver that is loaded again starts from nothing. The picture is the last there was.
	if err := r.Reset(); err != nil {
		t.Fatal(err)
	}
	if err := r.Boot(); err != nil {
		t.Fatal(err)
	}
	r.create2D(1, w, h) // would exist
	rep, err := play(t, r.file(), r.fake, broker.PlayConfig{Shot: true})
	if err != nil || rep.Different != 0 || rep.Shot == nil || rep.Shot.Width != w {
		t.Errorf("after a reset: %+v, %v", rep, err)
	}
}

// transferStream is a TRANSFER3D, or with staging a COPY_TRANSFER3D, as Mesa puts it into a
// stream.
func transferStream(res, staging, w, h uint32, off uint32, fromHost bool) []byte {
	words := []uint32{13<<16 | 43, res, 0, 0, w * 4, 0, 0, 0, 0, w, h, 1, off, 1}
	if fromHost {
		words[13] = 2
	}
	if staging != 0 {
		words = append(words[:12], staging, off, 1)
		words[0] = 14<<16 | 45
	}
	var p []byte
	for _, x := range words {
		p = binary.LittleEndian.AppendUint32(p, x)
	}
	return p
}

// paintTransfers is a renderer that knows nothing but those two commands.
func paintTransfers(f *virgltest.Fake, _ uint32, cmds []byte) error {
	for len(cmds) >= 56 {
		word := func(i int) uint32 { return binary.LittleEndian.Uint32(cmds[4*i:]) }
		n := 4 + 4*int(word(0)>>16)
		backed, off := word(1), word(12)
		if word(0)&0xff == 45 {
			backed, off = word(12), word(13)
		}
		var all []byte
		for _, s := range f.Backing(backed) {
			all = append(all, s...)
		}
		if word(0)&0xff == 43 && word(13) == 2 {
			segs := f.Backing(backed)
			for i := range segs[0][:64] {
				segs[0][i] = 0xa5 // as a renderer writes
			}
		} else if err := f.Paint(word(1), func(p []byte) { copy(p, all[off:]) }); err != nil {
			return err
		}
		cmds = cmds[n:]
	}
	return nil
}

// TestRecord3D: what contexts do, with the memory that transfers read: by commands, inside
// streams, and of textures that were dumb buffers before.
func TestRecord3D(t *testing.T) {
	r := newRecording(t, machineConfig{fake: virgltest.Config{OnSubmit: paintTransfers}}, 0)
	const w, h = 64, 48
	for i := range uint32(2) {
		r.ok((&virtiogpu.GetCapsetInfo{CapsetIndex: i}).Append(nil))
	}
	r.createCtx(1)
	r.create3D(1, w, h)
	mem := r.attach(1, w*h*4)
	r.attachCtx(1, 1)
	r.scanout(0, 1, rect(0, 0, w, h))
	pattern(mem, 1)
	up := virtiogpu.TransferHost3D{CtrlHdr: ctxHdr(1), ResourceID: 1, Box: virtiogpu.Box{X: 0, Y: 8, W: w, H: 16, D: 1}, Stride: w * 4, Offset: 8 * w * 4}
	r.ok(typed(&up, virtiogpu.CmdTransferToHost3D))
	r.flush(1, rect(0, 0, w, h))
	r.same(0)
	pattern(mem, 2)
	r.ok(submit(fenced(1, 7), transferStream(1, 0, w, h, 0, false)))
	r.flush(1, rect(0, 0, w, h))
	r.same(0)
	// What the renderer has written is not what the guest writes there next, though that was
	// recorded before.
	r.ok(submit(ctxHdr(1), transferStream(1, 0, w, h, 0, true)))
	pattern(mem, 2)
	r.ok(submit(ctxHdr(1), transferStream(1, 0, w, h, 0, false)))
	r.flush(1, rect(0, 0, w, h))
	r.same(0)
	// From a staging buffer.
	r.ok((&virtiogpu.ResourceCreate3D{ResourceID: 2, Target: 0, Format: 64, Bind: 1 << 19, Width: 4096 + w*h*4, Height: 1, Depth: 1, ArraySize: 1}).Append(nil))
	staging := r.attach(2, 4096+w*h*4)
	r.attachCtx(1, 2)
	pattern(staging, 3)
	r.ok(submit(ctxHdr(1), transferStream(1, 2, w, h, 4096, false)))
	r.flush(1, rect(0, 0, w, h))
	r.same(0)
	// A dumb buffer that a context uses.
	r.create2D(3, w, h)
	dumb := r.attach(3, w*h*4)
	pattern(dumb, 4)
	r.attachCtx(1, 3)
	r.scanout(0, 3, rect(0, 0, w, h))
	r.flush(3, rect(0, 0, w, h))
	if rep := r.same(0); !rep.GL || rep.Renderer == "" {
		t.Errorf("%+v", rep)
	}
	r.ok((&virtiogpu.CtrlHdr{Type: virtiogpu.CmdCtxDestroy, CtxID: 1}).Append(nil))
	if typ, _ := r.do(submit(ctxHdr(1), nil)); typ != virtiogpu.RespErrInvalidContextID {
		t.Errorf("a context that is gone: %v", typ)
	}
	r.same(0)

	// Without 3D the same recording is answered in another way, and the report says how.
	rep, err := play(t, r.file(), virgltest.Config{NoGL: true}, broker.PlayConfig{})
	if err != nil || rep.Different < 10 || len(rep.Differences) != 10 || rep.Different+uint64(len(rep.Differences)) > 2*rep.Compared {
		t.Fatalf("without 3D: %+v, %v", rep, err)
	}
	d := rep.Differences[0]
	if d.Name != "CTX_CREATE" || d.Context != 1 || d.Recorded != "RESP_OK_NODATA" || d.Replayed != "RESP_ERR_UNSPEC" || d.Command != 2 ||
		d.Offset == 0 || !strings.Contains(d.Why, "3D is not available") {
		t.Errorf("%+v", d)
	}
}

// TestRecordBlob: pictures in the guest's own pages and in host memory that it has mapped,
// which it draws without a command.
func TestRecordBlob(t *testing.T) {
	r := newRecording(t, machineConfig{profile: vhostusertest.QEMU11B, fake: virgltest.Config{NoGL: true}}, 0)
	const w, h, stride, offset, size = 100, 60, 512, 4096 + 64, 40960
	var blocks []*fakeguest.Block
	for id := uint32(1); id <= 2; id++ {
		b, err := r.Pages.Scattered(size)
		if err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, b)
		r.ok(createBlob(virtiogpu.CtrlHdr{}, id, virtiogpu.BlobMemGuest, virtiogpu.BlobFlagMappable, 0, size, b))
		pattern(b, id)
	}
	for i := range uint32(6) { // two framebuffers in turn, each flushed where the other differs
		pattern(blocks[i%2], 10+i)
		r.ok(scanoutBlob(0, 1+i%2, w, h, stride, offset, virtiogpu.FormatB8G8R8X8))
		r.flush(1+i%2, rect(i, 3, 5, 1))
		r.same(0)
	}
	r.hostBlob(3, w*h*4)
	r.ok(mapBlob(3, 0))
	row := bytes.Repeat([]byte{7, 8, 9, 0}, w)
	for y := range uint64(h) {
		row[y] ^= 0x55
		if err := r.FE.WriteWindow(y*w*4, row); err != nil {
			t.Fatal(err)
		}
	}
	r.ok(scanoutBlob(1, 3, w, h, w*4, 0, virtiogpu.FormatB8G8R8X8))
	r.flush(3, rect(0, 0, 1, 1))
	r.same(1)
	before := len(r.file())
	r.flush(3, rect(0, 0, 1, 1))
	if n := len(r.file()) - before; n > 200 {
		t.Errorf("%d bytes for a frame in which nothing changed", n)
	}
	if err := r.FE.WriteWindow(5000, []byte{1, 2, 3, 4}); err != nil {
		t.Fatal(err)
	}
	r.flush(3, rect(0, 0, w, h))
	r.same(1)
	r.ok(unmapBlob(3))
	if typ, _ := r.do(unmapBlob(3)); typ.IsOK() {
		t.Errorf("unmapped twice: %v", typ)
	}
	r.same(1)
}

// TestRecordCut: whatever is left of a file is played, and the report says that it is cut.
func TestRecordCut(t *testing.T) {
	r := newRecording(t, machineConfig{fake: virgltest.Config{NoGL: true}}, 0)
	r.create2D(1, 64, 64)
	pattern(r.attach(1, 64*64*4), 1)
	r.scanout(0, 1, rect(0, 0, 64, 64))
	r.ok(transfer2D(1, rect(0, 0, 64, 64), 0))
	r.flush(1, rect(0, 0, 64, 64))
	body := r.file()
	var last uint64
	for n := len(body) - 1; n > 400; n -= 37 {
		rep, err := play(t, body[:n], r.fake, broker.PlayConfig{Shot: true})
		if err != nil || rep.Different != 0 || rep.End != "" {
			t.Fatalf("%d of %d bytes: %+v, %v", n, len(body), rep, err)
		}
		if last != 0 && rep.Commands > last {
			t.Errorf("%d commands in %d bytes", rep.Commands, n)
		}
		last = rep.Commands
	}
	rep, err := play(t, body[:len(body)-3], r.fake, broker.PlayConfig{})
	if err != nil || !rep.Truncated || rep.Unanswered != 1 || rep.Commands != 5 {
		t.Errorf("%+v, %v", rep, err)
	}
	// The first commands only.
	if rep, err = play(t, body, r.fake, broker.PlayConfig{Commands: 3}); err != nil || rep.Commands != 3 || rep.Truncated {
		t.Errorf("%+v, %v", rep, err)
	}
}

// TestRecordLimit: at the limit the recording ends and the guest does not notice.
func TestRecordLimit(t *testing.T) {
	const limit = 100 << 10
	r := newRecording(t, machineConfig{fake: virgltest.Config{NoGL: true}}, limit)
	r.create2D(1, 128, 128)
	mem := r.attach(1, 128*128*4)
	r.scanout(0, 1, rect(0, 0, 128, 128))
	for i := range uint32(10) {
		pattern(mem, i)
		r.ok(transfer2D(1, rect(0, 0, 128, 128), 0))
		r.flush(1, rect(0, 0, 128, 128))
	}
	body := r.file()
	if len(body) > limit || len(body) < limit/2 {
		t.Errorf("%d bytes, limit %d", len(body), limit)
	}
	rep, err := play(t, body, r.fake, broker.PlayConfig{})
	if err != nil || rep.Different != 0 || rep.Commands < 4 || rep.Commands > 20 || !strings.Contains(rep.End, fmt.Sprint(limit)) {
		t.Errorf("%+v, %v", rep, err)
	}
}

// TestPlayBad: a file that is well formed and asks for what cannot be is refused, by
// place, value and limit.
func TestPlayBad(t *testing.T) {
	good := record.Info{Heads: 1, Width: 64, Height: 64}
	for _, c := range []struct {
		name string
		info record.Info
		make func(w *record.Writer)
		want string
	}{
		{"heads", record.Info{Heads: 17}, nil, "info: heads 17, limit 16"},
		{"mode", record.Info{Width: 1 << 20}, nil, "info: mode 1048576x0, limit 16384x16384"},
		{"window", record.Info{HostMem: 3 << 20}, nil, "info: hostmem 3145728"},
		{"limits", record.Info{Limits: record.Limits{Pieces: -1}}, nil, "below 0"},
		{"command first", good, func(w *record.Writer) { w.Command(0, 24, make([]byte, 24)) }, "a command before any guest memory"},
		{"memory first", good, func(w *record.Writer) { w.Memory(0, []byte{1}) }, "memory before any region"},
		{"huge", good, func(w *record.Writer) {
			w.Machine(&record.Machine{Regions: []record.Region{{GPA: 0, Size: 1 << 60}}})
		}, "a region of 1152921504606846976 bytes at 0x0"},
		{"many huge", good, func(w *record.Writer) {
			w.Machine(&record.Machine{Regions: []record.Region{{GPA: 0, Size: 1 << 42}, {GPA: 1 << 42, Size: 1}}})
		}, "a region of 1 bytes at 0x40000000000"},
		{"overlap", good, func(w *record.Writer) {
			w.Machine(&record.Machine{Regions: []record.Region{{GPA: 0, Size: 8192}, {GPA: 4096, Size: 8192}}})
		}, "overlaps"},
		{"the same twice", good, func(w *record.Writer) {
			w.Machine(&record.Machine{Regions: []record.Region{{GPA: 0, Size: 8192}, {GPA: 0, Size: 8192}}})
		}, "overlaps"},
		{"outside", good, func(w *record.Writer) {
			w.Machine(&record.Machine{Regions: []record.Region{{GPA: 0, Size: 8192}}})
			w.Memory(8190, make([]byte, 4))
		}, "address not in guest memory"},
		{"too much", good, func(w *record.Writer) {
			w.Machine(&record.Machine{Regions: []record.Region{{GPA: 0, Size: 1 << 30}}})
			for i := range uint64(200) {
				w.Memory(i*record.MaxMemory, make([]byte, record.MaxMemory))
			}
		}, "bytes here, limit 16777216"},
		{"blob", good, func(w *record.Writer) {
			w.Machine(&record.Machine{Features: 1 << virtiogpu.FeatureResourceBlob, Regions: []record.Region{{GPA: 0, Size: 8192}}})
			w.Blob(1, 1<<40, []byte{1}) // of no blob: left out
			w.Command(0, virtiogpu.SizeResourceCreateBlob, createBlob(virtiogpu.CtrlHdr{}, 1, virtiogpu.BlobMemHost3D, virtiogpu.BlobFlagMappable, 0, 4096, nil))
			w.Blob(1, 4000, make([]byte, 97))
		}, "97 bytes at 4000 of blob 1, which has 4096"},
	} {
		if c.name == "blob" {
			c.info.HostMem = 1 << 20
		}
		path := filepath.Join(t.TempDir(), "bad")
		w, err := record.Create(path, 0)
		if err != nil {
			t.Fatal(err)
		}
		w.Info(&c.info)
		if c.make != nil {
			c.make(w)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		body, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		rep, err := play(t, body, virgltest.Config{NoGL: true}, broker.PlayConfig{Memory: 16 << 20})
		var op *record.OpError
		if !errors.As(err, &op) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, %v, want %q", c.name, rep, err, c.want)
		}
	}
}
