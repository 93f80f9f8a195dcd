package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/broker/vtest/vtesttest"
	"github.com/gpubroker/gpubroker/testing/golden"
	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

// TestVtestBesideGuest: a guest and a vtest client use one renderer, and neither can touch
// what the other has, a reset of the guest's device included.
func TestVtestBesideGuest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vtest")
	scrape := filepath.Join(t.TempDir(), "metrics")
	s := serveProgram(t, "--virgl=on", "--vtest", path, "--metrics", "unix:"+scrape)
	const w, h = 40, 30
	s.ok((&virtiogpu.CtxCreate{CtrlHdr: virtiogpu.CtrlHdr{CtxID: 1}, NLen: 5, Name: [64]byte{'g', 'u', 'e', 's', 't'}}).Append(nil))
	s.create3D(&virtiogpu.ResourceCreate3D{ResourceID: vertices, Target: virglcmd.TargetBuffer, Format: virglcmd.FormatR8, Bind: virglcmd.BindVertexBuffer,
		Width: 1024, Height: 1, Depth: 1, ArraySize: 1})
	s.fill3D(1, w, h, 0)
	shot := func() string {
		file := filepath.Join(t.TempDir(), "guest.png")
		command(t, "shot", "--control", s.control, "-o", file, "--resource", "1")
		return file
	}
	before, err := golden.ReadPNG(shot())
	if err != nil {
		t.Fatal(err)
	}

	c, err := vtesttest.Dial(path, "beside\x1b", 2)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	res, err := c.Texture(w, h)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Close()
	var b virglcmd.Builder
	b.CreateSubCtx(1)
	b.SetSubCtx(1)
	b.CreateSurface(10, res.Handle, virglcmd.FormatB8G8R8A8, 0, 0)
	b.SetFramebuffer(10)
	b.Clear(virglcmd.ClearColor0, [4]float32{0, 1, 0, 1}, 0, 0)
	if err := c.Submit(b.Bytes()); err != nil {
		t.Fatal(err)
	}
	look := func(when string) {
		t.Helper()
		px, err := c.Read(res, 0, 0, w, h)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		for i := 0; i < len(px); i += 4 {
			if [4]byte(px[i:i+4]) != [4]byte{0, 255, 0, 255} {
				t.Fatalf("%s: texel %d is %v", when, i/4, px[i:i+4])
			}
		}
	}
	look("at first")
	after, err := golden.ReadPNG(shot())
	if err != nil {
		t.Fatal(err)
	}
	golden.Equal(t, "guest beside vtest", after, before, golden.Tolerance{})

	// The guest names what is the client's.
	resp := make([]byte, 512)
	for id := uint32(1 << 31); id < 1<<31+4; id++ {
		attach := &virtiogpu.CtxResource{CtrlHdr: virtiogpu.CtrlHdr{Type: virtiogpu.CmdCtxAttachResource, CtxID: 1}, ResourceID: id}
		for _, cmd := range [][]byte{
			(&virtiogpu.ResourceUnref{ResourceID: id}).Append(nil),
			(&virtiogpu.CtxCreate{CtrlHdr: virtiogpu.CtrlHdr{CtxID: id}}).Append(nil),
			(&virtiogpu.ResourceCreate3D{ResourceID: id, Target: virglcmd.TargetTexture2D, Format: virglcmd.FormatB8G8R8A8, Width: 4, Height: 4, Depth: 1, ArraySize: 1}).Append(nil),
			attach.Append(nil),
		} {
			n, err := s.Do(cmd, resp)
			if err != nil {
				t.Fatal(err)
			}
			var hdr virtiogpu.CtrlHdr
			if err := hdr.Decode(resp[:n]); err != nil || hdr.Type.IsOK() {
				t.Errorf("id %#x: answered with %v, %v", id, hdr.Type, err)
			}
		}
	}
	look("after the guest named its ids")
	text := command(t, "ls", "--control", s.control)
	for _, want := range []string{"VTEST CLIENT  NAME", "beside?  2        1", "1        guest  1"} {
		if !strings.Contains(text, want) {
			t.Errorf("ls lacks %q:\n%s", want, text)
		}
	}
	text = get(t, scrape)
	for _, want := range []string{"gpubroker_vtest_clients 1\n", "gpubroker_vtest_submits_total 1\n", "gpubroker_vtest_clients_ended_total 0\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	s.Quit() // the guest's device is reset
	for range 20 {
		look("after the guest left")
	}
}
