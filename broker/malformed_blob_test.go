package broker_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
	"github.com/gpubroker/gpubroker/virgl/virgltest"
)

// The state that every malformed blob command meets.
const (
	blobGuest   = 1 // guest pages
	blobMapped  = 2 // host memory, in the window at blobMappedAt
	blobFree    = 3 // host memory, not mapped
	blobHidden  = 4 // host memory, not mappable
	blobVirgl   = 5 // the renderer's memory, made by ctxA
	blobNoPages = 6 // no blob: a classic 2D resource

	blobSize     = 64 << 10
	blobMappedAt = 1 << 20
	blobW, blobH = 64, 32
)

func malformedBlobState(m *machine) {
	m.t.Helper()
	m.createCtx(ctxA)
	m.createCtx(ctxB)
	b, err := m.Pages.Scattered(blobSize)
	if err != nil {
		m.t.Fatal(err)
	}
	m.ok(createBlob(virtiogpu.CtrlHdr{}, blobGuest, virtiogpu.BlobMemGuest, virtiogpu.BlobFlagMappable, 0, blobSize, b))
	m.hostBlob(blobMapped, blobSize)
	m.ok(mapBlob(blobMapped, blobMappedAt))
	m.hostBlob(blobFree, blobSize)
	m.ok(createBlob(virtiogpu.CtrlHdr{}, blobHidden, virtiogpu.BlobMemHost3D, 0, 0, blobSize, nil))
	m.ok(createBlob(ctxHdr(ctxA), blobVirgl, virtiogpu.BlobMemHost3D, virtiogpu.BlobFlagMappable, 7, blobSize, nil))
	m.create2D(blobNoPages, blobW, blobH)
}

// rawBlob is RESOURCE_CREATE_BLOB with any entries, told to be n.
func rawBlob(hdr virtiogpu.CtrlHdr, c virtiogpu.ResourceCreateBlob, n uint32, entries ...virtiogpu.MemEntry) []byte {
	c.CtrlHdr, c.NrEntries = hdr, n
	p := c.Append(nil)
	for _, e := range entries {
		p = e.Append(p)
	}
	return p
}

func malformedCreates(m *machine) []malformed {
	plain, a := virtiogpu.CtrlHdr{}, ctxHdr(ctxA)
	host := func(change func(c *virtiogpu.ResourceCreateBlob)) []byte {
		c := virtiogpu.ResourceCreateBlob{ResourceID: none, BlobMem: virtiogpu.BlobMemHost3D, BlobFlags: virtiogpu.BlobFlagMappable, Size: blobSize}
		change(&c)
		return rawBlob(plain, c, 0)
	}
	guest := func(size uint64, n uint32, e ...virtiogpu.MemEntry) []byte {
		return rawBlob(plain, virtiogpu.ResourceCreateBlob{ResourceID: none, BlobMem: virtiogpu.BlobMemGuest, Size: size}, n, e...)
	}
	ram, err := m.Pages.Contiguous(4096)
	if err != nil {
		m.t.Fatal(err)
	}
	page := virtiogpu.MemEntry{Addr: ram.Entries[0].Addr, Length: 4096}
	shared := virtiogpu.ResourceCreateBlob{ResourceID: none, BlobMem: virtiogpu.BlobMemHost3DGuest, Size: 4096, BlobID: 3}
	return []malformed{
		{"create: id 0", host(func(c *virtiogpu.ResourceCreateBlob) { c.ResourceID = 0 }), noResource, false},
		{"create: id of a blob", host(func(c *virtiogpu.ResourceCreateBlob) { c.ResourceID = blobGuest }), noResource, false},
		{"create: id of a classic resource", host(func(c *virtiogpu.ResourceCreateBlob) { c.ResourceID = blobNoPages }), noResource, false},
		{"create: size 0", host(func(c *virtiogpu.ResourceCreateBlob) { c.Size = 0 }), bad, false},
		{"create: size all ones", host(func(c *virtiogpu.ResourceCreateBlob) { c.Size = 1<<64 - 1 }), bad, false},
		{"create: size that rounds up to 0", host(func(c *virtiogpu.ResourceCreateBlob) { c.Size = 1<<64 - 4095 }), bad, false},
		{"create: negative size", host(func(c *virtiogpu.ResourceCreateBlob) { c.Size = 1 << 63 }), bad, false},
		{"create: larger than any picture", host(func(c *virtiogpu.ResourceCreateBlob) { c.Size = 1<<30 + 1 }), bad, false},
		{"create: larger than the window", host(func(c *virtiogpu.ResourceCreateBlob) { c.Size = windowSize + 1 }), outOfMemory, false},
		{"create: blob_mem 0", host(func(c *virtiogpu.ResourceCreateBlob) { c.BlobMem = 0 }), bad, false},
		{"create: blob_mem 4", host(func(c *virtiogpu.ResourceCreateBlob) { c.BlobMem = 4 }), bad, false},
		{"create: blob_mem all ones", host(func(c *virtiogpu.ResourceCreateBlob) { c.BlobMem = huge }), bad, false},
		{"create: unknown flag", host(func(c *virtiogpu.ResourceCreateBlob) { c.BlobFlags = 8 }), bad, false},
		{"create: all flags", host(func(c *virtiogpu.ResourceCreateBlob) { c.BlobFlags = huge }), bad, false},
		{"create: host blob with pages", rawBlob(plain, virtiogpu.ResourceCreateBlob{ResourceID: none, BlobMem: virtiogpu.BlobMemHost3D, Size: 4096}, 1, page), bad, false},
		{"create: renderer's blob without a context", host(func(c *virtiogpu.ResourceCreateBlob) { c.BlobID = 7 }), noContext, false},
		{"create: renderer's blob of no context", rawBlob(ctxHdr(none), virtiogpu.ResourceCreateBlob{ResourceID: none, BlobMem: virtiogpu.BlobMemHost3D, Size: 4096, BlobID: 1}, 0), noContext, false},
		{"create: truncated", host(func(*virtiogpu.ResourceCreateBlob) {})[:40], bad, false},
		{"create: header alone", host(func(*virtiogpu.ResourceCreateBlob) {})[:virtiogpu.SizeCtrlHdr], bad, false},

		{"guest: no pages", guest(4096, 0), bad, false},
		{"guest: fewer pages than bytes", guest(4097, 1, page), bad, false},
		{"guest: blob id", rawBlob(a, virtiogpu.ResourceCreateBlob{ResourceID: none, BlobMem: virtiogpu.BlobMemGuest, Size: 4096, BlobID: 1}, 1, page), bad, false},
		{"guest: more entries told than sent", guest(4096, 2, page), bad, false},
		{"guest: entries all ones", guest(4096, huge, page), bad, false},
		{"guest: entry at the end of the address space", guest(4096, 1, virtiogpu.MemEntry{Addr: 1<<64 - 4096, Length: 4096}), bad, false},
		{"guest: entry that wraps", guest(4096, 1, virtiogpu.MemEntry{Addr: 1<<64 - 8, Length: 4096}), bad, false},
		{"guest: entry where no memory is", guest(4096, 1, virtiogpu.MemEntry{Addr: 1 << 40, Length: 4096}), bad, false},
		{"guest: entry past the end of memory", guest(1<<30, 1, virtiogpu.MemEntry{Addr: page.Addr, Length: 1 << 30}), bad, false},

		{"shared: without a context", rawBlob(plain, shared, 1, page), noContext, false},
		{"shared: of no context", rawBlob(ctxHdr(none), shared, 1, page), noContext, false},
		{"shared: no pages", rawBlob(a, shared, 0), bad, false},
		{"shared: page where no memory is", rawBlob(a, shared, 1, virtiogpu.MemEntry{Addr: 1 << 40, Length: 4096}), bad, false},
	}
}

func malformedMaps() []malformed {
	return []malformed{
		{"map: id 0", mapBlob(0, 0), noResource, false},
		{"map: no resource", mapBlob(none, 0), noResource, false},
		{"map: classic resource", mapBlob(blobNoPages, 0), noResource, false},
		{"map: guest blob", mapBlob(blobGuest, 0), noResource, false},
		{"map: not mappable", mapBlob(blobHidden, 0), bad, false},
		{"map: twice", mapBlob(blobMapped, 0), bad, false},
		{"map: twice at the same place", mapBlob(blobMapped, blobMappedAt), bad, false},
		{"map: over another", mapBlob(blobFree, blobMappedAt), bad, false},
		{"map: over another's first page", mapBlob(blobFree, blobMappedAt-blobSize+4096), bad, false},
		{"map: over another's last page", mapBlob(blobFree, blobMappedAt+blobSize-4096), bad, false},
		{"map: not at a page", mapBlob(blobFree, 1), bad, false},
		{"map: past the window", mapBlob(blobFree, windowSize), bad, false},
		{"map: over the window's end", mapBlob(blobFree, windowSize-4096), bad, false},
		{"map: at the last page of 64 bits", mapBlob(blobFree, 1<<64-4096), bad, false},
		{"map: offset that wraps with the size", mapBlob(blobFree, 1<<64-blobSize), bad, false},
		{"map: truncated", mapBlob(blobFree, 0)[:32], bad, false},
		{"unmap: id 0", unmapBlob(0), noResource, false},
		{"unmap: no resource", unmapBlob(none), noResource, false},
		{"unmap: not mapped", unmapBlob(blobFree), bad, false},
		{"unmap: guest blob", unmapBlob(blobGuest), bad, false},
		{"unmap: classic resource", unmapBlob(blobNoPages), bad, false},
		{"unmap: truncated", unmapBlob(blobMapped)[:26], bad, false},
	}
}

func malformedScanouts() []malformed {
	f := virtiogpu.FormatB8G8R8X8
	good := virtiogpu.SetScanoutBlob{R: rect(0, 0, blobW, blobH), ResourceID: blobGuest, Width: blobW, Height: blobH, Format: f, Strides: [4]uint32{blobW * 4}}
	with := func(change func(c *virtiogpu.SetScanoutBlob)) []byte {
		c := good
		change(&c)
		return c.Append(nil)
	}
	entries := []struct {
		name   string
		change func(c *virtiogpu.SetScanoutBlob)
		want   virtiogpu.Type
	}{
		{"head 2", func(c *virtiogpu.SetScanoutBlob) { c.ScanoutID = 2 }, noScanout},
		{"head all ones", func(c *virtiogpu.SetScanoutBlob) { c.ScanoutID = huge }, noScanout},
		{"no resource", func(c *virtiogpu.SetScanoutBlob) { c.ResourceID = none }, noResource},
		{"classic resource", func(c *virtiogpu.SetScanoutBlob) { c.ResourceID = blobNoPages }, noResource},
		{"format 0", func(c *virtiogpu.SetScanoutBlob) { c.Format = 0 }, bad},
		{"format all ones", func(c *virtiogpu.SetScanoutBlob) { c.Format = virtiogpu.Format(huge) }, bad},
		{"size 0", func(c *virtiogpu.SetScanoutBlob) { c.Width, c.R = 0, rect(0, 0, 0, 0) }, bad},
		{"width all ones", func(c *virtiogpu.SetScanoutBlob) { c.Width = huge }, bad},
		{"height all ones", func(c *virtiogpu.SetScanoutBlob) { c.Height = huge }, bad},
		{"empty rectangle", func(c *virtiogpu.SetScanoutBlob) { c.R = rect(0, 0, 0, 0) }, bad},
		{"rectangle outside", func(c *virtiogpu.SetScanoutBlob) { c.R = rect(1, 0, blobW, blobH) }, bad},
		{"rectangle that wraps", func(c *virtiogpu.SetScanoutBlob) { c.R = rect(huge, huge, 2, 2) }, bad},
		{"stride 0", func(c *virtiogpu.SetScanoutBlob) { c.Strides[0] = 0 }, bad},
		{"stride below a row", func(c *virtiogpu.SetScanoutBlob) { c.Strides[0] = blobW*4 - 4 }, bad},
		{"stride not of pixels", func(c *virtiogpu.SetScanoutBlob) { c.Strides[0] = blobW*4 + 1 }, bad},
		{"stride all ones", func(c *virtiogpu.SetScanoutBlob) { c.Strides[0] = huge &^ 3 }, bad},
		{"picture one byte too long", func(c *virtiogpu.SetScanoutBlob) { c.Offsets[0] = blobSize - blobW*4*blobH + 4 }, bad},
		{"offset not of pixels", func(c *virtiogpu.SetScanoutBlob) { c.Offsets[0] = 2 }, bad},
		{"offset all ones", func(c *virtiogpu.SetScanoutBlob) { c.Offsets[0] = huge &^ 3 }, bad},
		{"second plane's stride", func(c *virtiogpu.SetScanoutBlob) { c.Strides[1] = 256 }, bad},
		{"fourth plane's offset", func(c *virtiogpu.SetScanoutBlob) { c.Offsets[3] = 1 }, bad},
		{"taller than the blob", func(c *virtiogpu.SetScanoutBlob) { c.Height = 257; c.R.Height = 257 }, bad},
	}
	var list []malformed
	for _, e := range entries {
		list = append(list, malformed{"scanout: " + e.name, with(e.change), e.want, false})
	}
	return append(list, malformed{"scanout: truncated", good.Append(nil)[:60], bad, false})
}

// TestMalformedBlobs: every malformed command is answered with its error, changes
// nothing, and the next command works.
func TestMalformedBlobs(t *testing.T) {
	m := modeB(t)
	malformedBlobState(m)
	cases := append(append(malformedCreates(m), malformedMaps()...), malformedScanouts()...)
	if len(cases) < 40 {
		t.Fatalf("%d cases, want 40 or more", len(cases))
	}
	before, maps, fds := m.dev.Status(true), len(m.FE.Mappings()), fdtest.Count(t)
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m.t = t
			for _, fence := range []uint64{0, 1<<41 | uint64(i)} {
				cmd := bytes.Clone(c.cmd)
				if fence != 0 {
					binary.LittleEndian.PutUint32(cmd[4:], virtiogpu.FlagFence)
					binary.LittleEndian.PutUint64(cmd[8:], fence)
				}
				if typ, _ := m.do(cmd); typ != c.want {
					t.Errorf("answered with %v, want %v", typ, c.want)
				}
			}
			m.ok(scanoutBlob(1, blobGuest, blobW, blobH, blobW*4, 0, virtiogpu.FormatB8G8R8X8))
		})
	}
	m.t = t
	after := m.dev.Status(true)
	if len(after.Resources) != len(before.Resources) || after.Window != before.Window || len(m.FE.Mappings()) != maps {
		t.Errorf("%d resources, window %+v, %d mappings; before %d, %+v, %d", len(after.Resources), after.Window, len(m.FE.Mappings()),
			len(before.Resources), before.Window, maps)
	}
	if after.Errors != uint64(2*len(cases)) {
		t.Errorf("%d errors counted, want %d", after.Errors, 2*len(cases))
	}
	if n := fdtest.Count(t); n > fds {
		t.Errorf("%d descriptors, %d before", n, fds)
	}
	for _, p := range m.FE.Problems() {
		t.Error(p)
	}
}

// TestBlobFaults: blobs that go away while they are used, and a renderer that
// fails.
func TestBlobFaults(t *testing.T) {
	m := modeB(t)
	malformedBlobState(m)
	boom := errors.New("boom")
	m.fake.FailOnce(virgltest.OpExportBlob, boom)
	if typ, _ := m.do(mapBlob(blobVirgl, 0)); typ != outOfMemory {
		t.Errorf("map without an export: %v", typ)
	}
	m.fake.FailOnce(virgltest.OpCreateBlob, boom)
	if typ, _ := m.do(createBlob(ctxHdr(ctxA), none, virtiogpu.BlobMemHost3D, 0, 9, 4096, nil)); typ != bad {
		t.Errorf("blob that the renderer refuses: %v", typ)
	}
	m.fake.FailOnce(virgltest.OpCreateBlob, boom)
	m.attachCtx(ctxB, blobGuest) // the renderer refuses it; it stays memory
	m.ok(typed(&virtiogpu.CtxResource{CtrlHdr: ctxHdr(ctxB), ResourceID: blobGuest}, virtiogpu.CmdCtxDetachResource))

	// Away while mapped and shown, then the place and the id used again.
	m.ok(scanoutBlob(0, blobMapped, blobW, blobH, blobW*4, 0, virtiogpu.FormatB8G8R8X8))
	m.flush(blobMapped, rect(0, 0, blobW, blobH))
	m.ok((&virtiogpu.ResourceUnref{ResourceID: blobMapped}).Append(nil))
	if typ, _ := m.do(unmapBlob(blobMapped)); typ != noResource {
		t.Errorf("unmap after unref: %v", typ)
	}
	m.settle()
	m.hostBlob(blobMapped, blobSize)
	m.ok(mapBlob(blobMapped, blobMappedAt))
	m.ok(unmapBlob(blobMapped))
	if typ, _ := m.do(unmapBlob(blobMapped)); typ != bad {
		t.Errorf("unmap twice: %v", typ)
	}
	// The context that made a blob goes; the blob stays.
	m.ok((&virtiogpu.CtrlHdr{Type: virtiogpu.CmdCtxDestroy, CtxID: ctxA}).Append(nil))
	if typ, _ := m.do(mapBlob(blobVirgl, 0)); typ != outOfMemory {
		t.Errorf("map after an export that failed: %v", typ) // tried once
	}
	m.ok((&virtiogpu.ResourceUnref{ResourceID: blobVirgl}).Append(nil))
	m.settle()
	if n := len(m.FE.Mappings()); n != 0 {
		t.Errorf("%d mappings left", n)
	}
}

// TestRendererBlob: the renderer's memory appears in the window.
func TestRendererBlob(t *testing.T) {
	m := modeB(t)
	malformedBlobState(m)
	var info virtiogpu.MapInfo
	if err := info.Decode(m.ok(mapBlob(blobVirgl, 8<<20))); err != nil || info.MapInfo != virtiogpu.MapCacheCached {
		t.Errorf("map info %+v, %v", info, err)
	}
	if err := m.FE.WriteWindow(8<<20, []byte("hello")); err != nil {
		t.Error(err)
	}
	m.ok(unmapBlob(blobVirgl))
	m.ok(mapBlob(blobVirgl, 0))
}
