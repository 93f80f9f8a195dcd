package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"os"
	"path/filepath"

	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/testing/blobguest/scene"
	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/report"
)

// hostVM runs the fake guest's cases where dma-bufs exist, in a virtual machine
// that plays the host, and then on this machine.
func (p *programs) hostVM(ctx context.Context, rep *reportJSON) error {
	fmt.Println("running the fake guest's cases in a virtual machine that has dma-bufs")
	vm, err := p.root.StartHostVM(ctx, lab.VMConfig{Output: os.Stdout})
	if err != nil {
		return err
	}
	defer vm.Close()
	for _, file := range []string{p.broker, p.self} {
		if _, err := vm.PutFile(file); err != nil {
			return err
		}
	}
	_, runErr := vm.Check(ctx, `set -e
mkdir -p /tmp/blobs /lab/share/out
cp /lab/share/gpubroker /lab/share/blobs /tmp/blobs/
exec /tmp/blobs/blobs -worker /tmp/blobs/gpubroker -dir /lab/share/out
`)
	err = errors.Join(runErr, p.collect(filepath.Join(vm.Share, "out"), "vm", rep))
	fmt.Println("running them on this machine")
	dir := filepath.Join(p.dir, "plain")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return errors.Join(err, work(ctx, p.broker, dir), p.collect(dir, "plain", rep))
}

const workerFile = "worker.json"

// collect takes over what a worker left in its folder.
func (p *programs) collect(dir, host string, rep *reportJSON) error {
	ents, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range ents {
		body, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		if e.Name() == workerFile {
			var cases []*caseJSON
			if err := json.Unmarshal(body, &cases); err != nil {
				return err
			}
			rep.Cases = append(rep.Cases, cases...)
			continue
		}
		if err := os.WriteFile(filepath.Join(p.out.Path, "fake-"+host+"-"+e.Name()), body, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// fakeCase is a kind of buffer of the fake guest's, and the tiers that it takes
// with udmabuf and without.
type fakeCase struct {
	name      string
	vm, plain string
	mem       uint32 // blob_mem; 0: a classic resource
	stride    uint32
	offset    uint32
}

var fakeCases = []fakeCase{
	{"guest blob", tierUDMABuf, tierCopy, virtiogpu.BlobMemGuest, width * 4, 0},
	{"guest blob, padded rows at an offset", tierUDMABuf, tierCopy, virtiogpu.BlobMemGuest, width*4 + 256, 4096},
	{"host blob in the window", tierUDMABuf, tierShared, virtiogpu.BlobMemHost3D, width * 4, 0},
	{"classic 2D", tierShm, tierShm, 0, width * 4, 0},
}

// work runs the fake guest's cases here and writes their results to dir.
func work(ctx context.Context, binary, dir string) error {
	root, err := lab.Find()
	if err != nil {
		return err
	}
	renderer, host := "pixman", "plain"
	if root.InGuest() {
		renderer, host = "gl", "vm"
	}
	weston, err := root.Weston(ctx, lab.WestonOptions{Renderer: renderer, W: width, H: height})
	if err != nil {
		return err
	}
	defer weston.Stop()
	log, err := os.Create(filepath.Join(dir, "gpubroker.log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	w := &worker{rig: rig{weston: weston}, host: host, dir: dir}
	w.broker, err = brokerproc.Start(ctx, root, brokerproc.Options{
		Binary: binary, Log: log, Env: weston.Env(), Bind: []string{weston.RuntimeDir},
		Args: []string{"--display", "wayland", "--wayland-display", weston.Socket(), "--virgl=off", "--hostmem", "256M",
			"--size", fmt.Sprintf("%dx%d", width, height)},
	})
	if err != nil {
		return err
	}
	runErr := w.cases(ctx)
	_, stopErr := w.broker.Stop()
	body, err := json.MarshalIndent(w.list, "", " ")
	if err != nil {
		return err
	}
	return errors.Join(runErr, stopErr, os.WriteFile(filepath.Join(dir, workerFile), body, 0o644))
}

// worker is a fake guest on a real broker and a real compositor.
type worker struct {
	rig
	g         *fakeguest.Guest
	host, dir string
	list      []*caseJSON
	next      uint32 // resource id
	resp      []byte
}

func (w *worker) cases(ctx context.Context) (err error) {
	w.resp = make([]byte, 64)
	w.g, err = fakeguest.Dial(w.broker.Socket, fakeguest.Config{Profile: vhostusertest.QEMU11B, RAMSize: 64 << 20})
	if err != nil {
		return err
	}
	defer w.g.Quit()
	if err := w.g.Boot(); err != nil {
		return err
	}
	for _, fc := range fakeCases {
		c := &caseJSON{Name: fc.name, Host: w.host, Guest: "fake"}
		w.list = append(w.list, c)
		if err := w.run(ctx, c, fc); err != nil {
			return fmt.Errorf("%s: %w\n%s", c.Name, err, w.broker.Log())
		}
		fmt.Printf("%-40s %-8s %4d frames %9d bytes drawn %9d copied %6d wrong pixels %v\n", c.Name, c.Tier, c.Frames,
			c.BytesDrawn, c.BytesCopied, c.WrongPixels, c.Problems)
	}
	for _, p := range w.g.FE.Problems() {
		err = errors.Join(err, errors.New(p))
	}
	return err
}

func (w *worker) do(cmd []byte) error {
	n, err := w.g.Do(cmd, w.resp)
	if err != nil {
		return err
	}
	var h, sent virtiogpu.CtrlHdr
	if err := errors.Join(h.Decode(w.resp[:n]), sent.Decode(cmd)); err != nil {
		return err
	}
	if !h.Type.IsOK() {
		return fmt.Errorf("%v answered with %v", sent.Type, h.Type)
	}
	return nil
}

// target is a resource that the fake guest draws into.
type target struct {
	fakeCase
	id    uint32
	at    uint64 // in the window
	pages *fakeguest.Block
	w     *worker
}

func (w *worker) newTarget(fc fakeCase) (*target, error) {
	w.next++
	t := &target{fakeCase: fc, id: w.next, w: w}
	size := (uint64(fc.offset) + uint64(fc.stride)*height + 4095) &^ 4095
	t.at = uint64(t.id) << 24 & (256<<20 - 1)
	var err error
	if fc.mem != virtiogpu.BlobMemHost3D {
		if t.pages, err = w.g.Pages.Scattered(size); err != nil {
			return nil, err
		}
	}
	var entries []byte
	n := uint32(0)
	if t.pages != nil {
		for _, e := range t.pages.Entries {
			entries = virtiogpu.MemEntry{Addr: e.Addr, Length: e.Len}.Append(entries)
			n++
		}
	}
	if fc.mem == 0 {
		create := virtiogpu.ResourceCreate2D{ResourceID: t.id, Format: virtiogpu.FormatB8G8R8X8, Width: width, Height: height}
		attach := virtiogpu.ResourceAttachBacking{ResourceID: t.id, NrEntries: n}
		return t, errors.Join(w.do(create.Append(nil)), w.do(append(attach.Append(nil), entries...)))
	}
	create := virtiogpu.ResourceCreateBlob{ResourceID: t.id, BlobMem: fc.mem, BlobFlags: virtiogpu.BlobFlagMappable, Size: size, NrEntries: n}
	if err := w.do(append(create.Append(nil), entries...)); err != nil {
		return nil, err
	}
	if fc.mem == virtiogpu.BlobMemHost3D {
		m := virtiogpu.ResourceMapBlob{ResourceID: t.id, Offset: t.at}
		return t, w.do(m.Append(nil))
	}
	return t, nil
}

// draw draws a rectangle of frame n and flushes it.
func (t *target) draw(r image.Rectangle, n int) error {
	line := make([]byte, 0, width*4)
	for y := r.Min.Y; y < r.Max.Y; y++ {
		line = line[:0]
		for x := r.Min.X; x < r.Max.X; x++ {
			p := scene.At(x, y, n)
			line = append(line, p.B, p.G, p.R, 0)
		}
		at := uint64(t.offset) + uint64(y)*uint64(t.stride) + uint64(r.Min.X)*4
		if t.pages != nil {
			t.pages.WriteAt(line, at)
		} else if err := t.w.g.FE.WriteWindow(t.at+at, line); err != nil {
			return err
		}
	}
	rect := virtiogpu.Rect{X: uint32(r.Min.X), Y: uint32(r.Min.Y), Width: uint32(r.Dx()), Height: uint32(r.Dy())}
	if t.mem == 0 {
		c := virtiogpu.TransferToHost2D{R: rect, ResourceID: t.id, Offset: uint64(r.Min.Y)*uint64(t.stride) + uint64(r.Min.X)*4}
		if err := t.w.do(c.Append(nil)); err != nil {
			return err
		}
	}
	return t.w.do((&virtiogpu.ResourceFlush{CtrlHdr: virtiogpu.CtrlHdr{Flags: virtiogpu.FlagFence, FenceID: uint64(n) + 1}, R: rect, ResourceID: t.id}).Append(nil))
}

func (t *target) show() error {
	all := virtiogpu.Rect{Width: width, Height: height}
	if t.mem == 0 {
		return t.w.do((&virtiogpu.SetScanout{R: all, ResourceID: t.id}).Append(nil))
	}
	return t.w.do((&virtiogpu.SetScanoutBlob{
		R: all, ResourceID: t.id, Width: width, Height: height, Format: virtiogpu.FormatB8G8R8X8,
		Strides: [4]uint32{t.stride}, Offsets: [4]uint32{t.offset},
	}).Append(nil))
}

func (w *worker) run(ctx context.Context, c *caseJSON, fc fakeCase) error {
	before, err := w.status()
	if err != nil {
		return err
	}
	var bufs [2]*target
	for i := range bufs {
		if bufs[i], err = w.newTarget(fc); err != nil {
			return err
		}
	}
	all := image.Rect(0, 0, width, height)
	frame := 0
	for ; frame <= flips; frame++ {
		t := bufs[frame%2]
		if err := errors.Join(t.show(), t.draw(all, frame)); err != nil {
			return err
		}
	}
	frame--
	if err := w.look(ctx, c, frame, 0, "flipped"); err != nil {
		return err
	}
	for i := range rects {
		if err := bufs[frame%2].draw(scene.Rect(i, width, height), frame+1+i); err != nil {
			return err
		}
	}
	if err := w.look(ctx, c, frame, rects, "damaged"); err != nil {
		return err
	}
	after, err := w.status()
	if err != nil {
		return err
	}
	c.BytesDrawn = 4 * (uint64(1+flips)*width*height + scene.Area(width, height, rects))
	c.BytesCopied = after.BytesCopied - before.BytesCopied
	c.Frames = after.Frames.DMABuf + after.Frames.Shm - before.Frames.DMABuf - before.Frames.Shm
	if len(after.Scanouts) == 1 {
		c.Tier = after.Scanouts[0].Tier
	}
	want := fc.plain
	if w.host == "vm" {
		want = fc.vm
	}
	c.judge(want)
	err = w.do((&virtiogpu.SetScanout{}).Append(nil))
	for _, t := range bufs {
		err = errors.Join(err, w.do((&virtiogpu.ResourceUnref{ResourceID: t.id}).Append(nil)))
		if t.pages != nil {
			t.pages.Free()
		}
	}
	return err
}

func (w *worker) look(ctx context.Context, c *caseJSON, frame, rects int, step string) error {
	img, wrong, err := w.compare(ctx, scene.Picture(width, height, frame, rects))
	if err != nil {
		return err
	}
	c.WrongPixels += wrong
	if wrong == 0 && step != "damaged" {
		return nil
	}
	return report.Dir{Path: w.dir}.PNG(fileName(c.Name)+"-"+step+".png", img)
}

// fileName makes a name for a file of a case's.
func fileName(name string) string {
	out := []byte(name)
	for i, b := range out {
		if (b < 'a' || b > 'z') && (b < '0' || b > '9') {
			out[i] = '-'
		}
	}
	return string(out)
}
