package supervise_test

import (
	"bytes"
	"encoding/binary"
	"flag"
	"image/color"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/supervise"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
)

var kills = flag.Int("kills", 20, "how often TestKills kills the worker")

// TestKills kills the worker at any time, many times, while the guest draws: every
// command is answered once, the pictures are there, contexts are gone and new ones
// work, and the supervisor's descriptors do not grow.
func TestKills(t *testing.T) {
	for _, p := range []vhostusertest.Profile{vhostusertest.QEMU10A, vhostusertest.QEMU11A, vhostusertest.QEMU11B} {
		n := *kills
		if p.Name != vhostusertest.QEMU11B.Name {
			n = (n + 3) / 4
		}
		t.Run(p.Name, func(t *testing.T) { testKills(t, p, n) })
	}
}

func testKills(t *testing.T, p vhostusertest.Profile, kills int) {
	v := start(t, p, supervise.Config{})
	still, moving := v.screen(1, 0, 64, 48), v.screen(2, 1, 61, 33)
	v.paint(still, red)
	rng := rand.New(rand.NewPCG(1, uint64(len(p.Name))))
	v.kill()
	before := fds(t)
	for i := range kills {
		c := color.NRGBA{uint8(i), uint8(255 - i), 7, 255}
		ctx := uint32(1 + i)
		v.context(ctx, "app")
		killed := make(chan int, 1)
		go func(pid int, delay time.Duration) {
			time.Sleep(delay)
			_ = unix.Kill(pid, unix.SIGKILL)
			killed <- pid
		}(v.pid(0), time.Duration(rng.IntN(3000))*time.Microsecond)
		dead := 0
		for n := 0; dead == 0 || n < 3; n++ {
			v.paint(moving, c)
			// Another resource comes and goes.
			v.ok((&virtiogpu.ResourceCreate2D{ResourceID: 9, Format: virtiogpu.FormatB8G8R8X8, Width: 16, Height: 16}).Append(nil))
			v.ok((&virtiogpu.ResourceUnref{ResourceID: 9}).Append(nil))
			switch typ, _ := v.do(submit(ctx, streamDraw)); typ {
			case virtiogpu.RespOKNoData, virtiogpu.RespErrInvalidContextID:
			default:
				t.Fatalf("a stream was answered with %v", typ)
			}
			select {
			case dead = <-killed:
				v.pid(dead)
			default:
			}
		}
		if typ, _ := v.do(submit(ctx, streamDraw)); typ != virtiogpu.RespErrInvalidContextID {
			t.Fatalf("a context that died answers %v", typ)
		}
		v.shows("0", red)
		v.shows("1", c)
	}
	v.context(500, "after")
	v.ok(submit(500, streamDraw))
	v.kill()
	if after := fds(t); after > before+2 {
		t.Errorf("%d descriptors, %d before", after, before)
	}
	if got, want := v.logs.FilterMessage("worker died; another takes over").Len(), kills+2; got != want {
		t.Errorf("%d deaths in the log, want %d", got, want)
	}
}

// TestBlobs: blobs of the guest's pages and of host memory stay, mapped and shown.
func TestBlobs(t *testing.T) {
	v := start(t, vhostusertest.QEMU11B, supervise.Config{})
	const w, h = 64, 32
	mem, err := v.Pages.Scattered(w * h * 4)
	if err != nil {
		t.Fatal(err)
	}
	v.ok(appendEntries((&virtiogpu.ResourceCreateBlob{
		ResourceID: 1, BlobMem: virtiogpu.BlobMemGuest, BlobFlags: virtiogpu.BlobFlagShareable, NrEntries: uint32(len(mem.Entries)), Size: w * h * 4,
	}).Append(nil), mem))
	v.ok((&virtiogpu.ResourceCreateBlob{ResourceID: 2, BlobMem: virtiogpu.BlobMemHost3D, BlobFlags: virtiogpu.BlobFlagMappable, Size: w * h * 4}).Append(nil))
	v.ok((&virtiogpu.ResourceMapBlob{ResourceID: 2, Offset: 1 << 20}).Append(nil))
	row := bytes.Repeat([]byte{blue.B, blue.G, blue.R, 0}, w*h)
	if err := v.FE.WriteWindow(1<<20, row); err != nil {
		t.Fatal(err)
	}
	fill(mem, red)
	for id := uint32(1); id <= 2; id++ {
		c := virtiogpu.SetScanoutBlob{ScanoutID: id - 1, ResourceID: id, R: rect(w, h), Width: w, Height: h, Format: virtiogpu.FormatB8G8R8X8}
		c.Strides[0] = w * 4
		v.ok(c.Append(nil))
		v.ok((&virtiogpu.ResourceFlush{ResourceID: id, R: rect(w, h)}).Append(nil))
	}
	uuid := bytes.Clone(v.ok((&virtiogpu.ResourceAssignUUID{ResourceID: 2}).Append(nil)))
	for range 3 {
		v.shows("0", red)
		v.shows("1", blue)
		v.kill()
	}
	v.shows("0", red)
	v.shows("1", blue)
	if again := v.ok((&virtiogpu.ResourceAssignUUID{ResourceID: 2}).Append(nil)); !bytes.Equal(again, uuid) {
		t.Error("a blob has another UUID")
	}
	if maps := v.FE.Mappings(); len(maps) != 1 || maps[0].Offset != 1<<20 {
		t.Errorf("mapped: %+v", maps)
	}
	if typ, _ := v.do((&virtiogpu.ResourceMapBlob{ResourceID: 2, Offset: 2 << 20}).Append(nil)); typ.IsOK() {
		t.Error("a mapped blob was mapped again")
	}
	v.ok((&virtiogpu.ResourceUnmapBlob{ResourceID: 2}).Append(nil))
	v.ok((&virtiogpu.ResourceMapBlob{ResourceID: 2, Offset: 2 << 20}).Append(nil))
	v.kill()
	v.ok((&virtiogpu.ResourceUnref{ResourceID: 2}).Append(nil))
	for end := time.Now().Add(10 * time.Second); len(v.FE.Mappings()) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("left mapped: %+v", v.FE.Mappings())
		}
	}
	for _, p := range v.FE.Problems() {
		t.Error(p)
	}
}

// TestCulprit: a stream that kills the renderer is answered with an error, the log and
// the status name its context, and what other contexts wait for is answered too.
func TestCulprit(t *testing.T) {
	v := start(t, vhostusertest.QEMU11A, supervise.Config{})
	s := v.screen(1, 0, 32, 32)
	v.paint(s, red)
	v.context(7, "glcrash")
	v.context(8, "innocent")
	pid := v.pid(0)
	var ops []*fakeguest.Op
	for _, cmd := range [][]byte{submit(8, streamDraw), submit(7, streamCrash), submit(8, streamDraw), submit(7, streamDraw)} {
		op, err := v.Ctrl.Submit(cmd, 64)
		if err != nil {
			t.Fatal(err)
		}
		ops = append(ops, op)
	}
	for i, op := range ops {
		n, err := v.Ctrl.Wait(op, v.resp, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		var h virtiogpu.CtrlHdr
		if err := h.Decode(v.resp[:n]); err != nil {
			t.Fatal(err)
		}
		if want := i == 0; h.Type.IsOK() != want {
			t.Errorf("stream %d was answered with %v", i, h.Type)
		}
	}
	v.pid(pid)
	death := v.logs.FilterMessage("worker died; another takes over").All()
	if len(death) != 1 {
		t.Fatalf("%d deaths", len(death))
	}
	f := death[0].ContextMap()
	if f["context"] != uint32(7) || f["context_name"] != "glcrash" || f["command"] != "SUBMIT_3D" || f["busy_with"] != `context 7 ("glcrash")` {
		t.Errorf("the log says %v", f)
	}
	var st broker.Status
	v.ask("status", &st)
	if w := st.Worker; w == nil || w.Last == nil || w.Last.Name != "glcrash" || !w.Last.Inside || w.Restarts["signal: killed"] != 1 {
		t.Errorf("the status says %+v", st.Worker)
	}
	v.shows("0", red)
	v.context(7, "again")
	v.ok(submit(7, streamDraw))
}

// TestWatchdog: drawing that takes for ever ends with the worker.
func TestWatchdog(t *testing.T) {
	v := start(t, vhostusertest.QEMU11B, supervise.Config{Watchdog: 2 * time.Second})
	s := v.screen(1, 0, 32, 32)
	v.paint(s, blue)
	v.context(3, "endless")
	pid := v.pid(0)
	time.Sleep(3 * time.Second) // a guest that does nothing is not taken for one that hangs
	if now := v.pid(0); now != pid {
		t.Fatal("an idle worker was killed")
	}
	if typ, _ := v.do(submit(3, streamHang)); typ.IsOK() {
		t.Errorf("drawing without end was answered with %v", typ)
	}
	f := v.logs.FilterMessage("worker died; another takes over").All()
	if len(f) != 1 || f[0].ContextMap()["cause"] != "watchdog" || f[0].ContextMap()["context_name"] != "endless" {
		t.Errorf("the log says %v", f)
	}
	v.shows("0", blue)
}

// TestQuarantine: a VM that kills one worker after the other loses 3D and nothing else;
// the next VM has it again.
func TestQuarantine(t *testing.T) {
	v := start(t, vhostusertest.QEMU11B, supervise.Config{Quarantine: 3})
	s := v.screen(1, 0, 32, 32)
	v.paint(s, red)
	for range 3 {
		pid := v.pid(0)
		v.context(1, "bad")
		if typ, _ := v.do(submit(1, streamCrash)); typ.IsOK() {
			t.Errorf("a stream that kills was answered with %v", typ)
		}
		v.pid(pid)
	}
	c := virtiogpu.CtxCreate{CtrlHdr: virtiogpu.CtrlHdr{CtxID: 1}}
	if typ, _ := v.do(c.Append(nil)); typ.IsOK() {
		t.Error("3D still works")
	}
	v.shows("0", red)
	v.paint(s, blue)
	v.shows("0", blue)
	var st broker.Status
	v.ask("counters", &st)
	if st.Worker == nil || !st.Worker.Quarantine {
		t.Errorf("the status says %+v", st.Worker)
	}
	pid := v.pid(0)
	v.Quit()
	v.pid(pid)
	v.connect(vhostusertest.QEMU11B, filepath.Join(filepath.Dir(v.control), "gpu"))
	v.context(1, "good")
	v.ok(submit(1, streamDraw))
}

// TestStates: a worker that dies while the device is stopped, or before the guest's
// driver runs, or after it was reset, is as if it had not.
func TestStates(t *testing.T) {
	for _, p := range []vhostusertest.Profile{vhostusertest.QEMU72A, vhostusertest.QEMU11B, vhostusertest.Bare} {
		t.Run(p.Name, func(t *testing.T) {
			v := start(t, p, supervise.Config{})
			s := v.screen(1, 0, 32, 32)
			v.paint(s, red)
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				must(v.Stop())
				v.kill()
				must(v.Cont())
				v.shows("0", red)
				v.paint(s, blue)
				v.shows("0", blue)
				v.paint(s, red)
			}
			must(v.Reset())
			v.kill()
			must(v.Boot())
			if typ, _ := v.do((&virtiogpu.ResourceUnref{ResourceID: 1}).Append(nil)); typ != virtiogpu.RespErrInvalidResourceID {
				t.Errorf("after a reset resource 1 is there: %v", typ)
			}
			s = v.screen(1, 0, 32, 32)
			v.paint(s, blue)
			v.kill()
			v.shows("0", blue)
			// Another VM finds nothing of this one, even if the worker dies with it.
			pid := v.pid(0)
			_ = unix.Kill(pid, unix.SIGKILL)
			v.Quit()
			v.pid(pid)
			v.connect(p, filepath.Join(filepath.Dir(v.control), "gpu"))
			if typ, _ := v.do((&virtiogpu.ResourceUnref{ResourceID: 1}).Append(nil)); typ != virtiogpu.RespErrInvalidResourceID {
				t.Errorf("another VM has resource 1: %v", typ)
			}
			s = v.screen(1, 0, 32, 32)
			v.paint(s, red)
			v.shows("0", red)
			for _, p := range v.FE.Problems() {
				t.Error(p)
			}
		})
	}
}

// TestPromoted: what a context uses as a texture is its 2D self again, with the pixels
// that the guest has.
func TestPromoted(t *testing.T) {
	v := start(t, vhostusertest.QEMU11A, supervise.Config{})
	s := v.screen(1, 0, 32, 32)
	v.paint(s, red)
	v.context(1, "fbcon")
	attach := (&virtiogpu.CtxResource{CtrlHdr: virtiogpu.CtrlHdr{CtxID: 1}, ResourceID: 1}).Append(nil)
	binary.LittleEndian.PutUint32(attach, uint32(virtiogpu.CmdCtxAttachResource))
	v.ok(attach)
	v.paint(s, blue)
	v.kill()
	v.shows("0", blue)
	v.paint(s, red)
	v.shows("0", red)
}

// TestInput: the guest's keyboard survives with its buffers.
func TestInput(t *testing.T) {
	v := start(t, vhostusertest.QEMU11B, supervise.Config{})
	p := vhostusertest.QEMU11A
	p.DisplaySocket, p.QueueSizes = false, [2]int{4, 4}
	g, err := fakeguest.Dial(filepath.Join(filepath.Dir(v.control), "input"), fakeguest.Config{Profile: p, RAMSize: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Quit()
	if err := g.Boot(); err != nil {
		t.Fatal(err)
	}
	events := make([]*fakeguest.Op, 4)
	for i := range events {
		if events[i], err = g.Ctrl.Submit(nil, 8); err != nil {
			t.Fatal(err)
		}
	}
	caps := []byte{0x11, 0, 1, 0, 1, 0, 0, 0} // EV_LED, LED_CAPSL, on
	for range 4 {
		op, err := g.Cursor.Submit(caps, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.Cursor.Wait(op, nil, time.Minute); err != nil {
			t.Fatal(err)
		}
		v.kill()
	}
	for i, op := range events {
		if done, err := g.Ctrl.Done(op); done || err != nil {
			t.Errorf("buffer %d came back without an event: %v", i, err)
		}
	}
	for _, p := range g.FE.Problems() {
		t.Error(p)
	}
}
