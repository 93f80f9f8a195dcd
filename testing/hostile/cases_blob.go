package hostile

import (
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
)

// The blobs that every command of these tables finds.
const (
	blobGuest  = 21 // guest pages
	blobMapped = 22 // host memory, in the window at blobMappedAt
	blobFree   = 23 // host memory, not mapped
	blobHidden = 24 // host memory, not mappable

	blobSize     = 64 << 10
	blobMappedAt = 1 << 20
	blobW, blobH = 64, 32
)

func hostBlob(id uint32, flags uint32, size uint64) []byte {
	return createBlob(0, virtiogpu.ResourceCreateBlob{ResourceID: id, BlobMem: virtiogpu.BlobMemHost3D, BlobFlags: flags, Size: size}, 0)
}

func stateBlobs(v *VM) error {
	st := state2D
	if v.gl {
		st = state3D
	}
	if err := st(v); err != nil {
		return err
	}
	b, err := v.Block(blobSize)
	if err != nil {
		return err
	}
	return v.OK(
		createBlob(0, virtiogpu.ResourceCreateBlob{ResourceID: blobGuest, BlobMem: virtiogpu.BlobMemGuest,
			BlobFlags: virtiogpu.BlobFlagMappable, Size: blobSize}, uint32(len(b.Entries)), entriesOf(b)...),
		hostBlob(blobMapped, virtiogpu.BlobFlagMappable, blobSize), mapBlob(blobMapped, blobMappedAt),
		hostBlob(blobFree, virtiogpu.BlobFlagMappable, blobSize), hostBlob(blobHidden, 0, blobSize))
}

func blobCases() []Case {
	out := commands("blob", Both, nil, stateBlobs, tableBlobs)
	out = append(out, commands("map", Both, nil, stateBlobs, tableMaps)...)
	out = append(out, commands("blob scanout", Both, nil, stateBlobs, tableBlobScanouts)...)
	return append(out, Case{Group: "blob", Name: "a whole window, mapped and dropped by reset", Do: fillWindow},
		Case{Group: "blob", Name: "more placements than QEMU survives", Do: manyMaps},
		Case{Group: "blob", Name: "unref and map in every order", Do: mapGames})
}

func tableBlobs(*VM) ([]Command, error) {
	page := virtiogpu.MemEntry{Addr: 4096, Length: 4096}
	host := func(name string, want Want, change func(c *virtiogpu.ResourceCreateBlob)) Command {
		c := virtiogpu.ResourceCreateBlob{ResourceID: none, BlobMem: virtiogpu.BlobMemHost3D, BlobFlags: virtiogpu.BlobFlagMappable, Size: blobSize}
		change(&c)
		return Command{"host, " + name, createBlob(0, c, 0), want, false}
	}
	guest := func(name string, want Want, size uint64, n uint32, e ...virtiogpu.MemEntry) Command {
		return Command{"guest, " + name, createBlob(0, virtiogpu.ResourceCreateBlob{ResourceID: none, BlobMem: virtiogpu.BlobMemGuest, Size: size}, n, e...), want, false}
	}
	shared := virtiogpu.ResourceCreateBlob{ResourceID: none, BlobMem: virtiogpu.BlobMemHost3DGuest, Size: 4096, BlobID: 3}
	return []Command{
		host("id 0", noResource, func(c *virtiogpu.ResourceCreateBlob) { c.ResourceID = 0 }),
		host("id of a blob", noResource, func(c *virtiogpu.ResourceCreateBlob) { c.ResourceID = blobGuest }),
		host("id of a 2D resource", noResource, func(c *virtiogpu.ResourceCreateBlob) { c.ResourceID = res2D }),
		host("size 0", bad, func(c *virtiogpu.ResourceCreateBlob) { c.Size = 0 }),
		host("size 1", fine, func(c *virtiogpu.ResourceCreateBlob) { c.Size = 1 }),
		host("size all ones", bad, func(c *virtiogpu.ResourceCreateBlob) { c.Size = 1<<64 - 1 }),
		host("size that rounds up to 0", bad, func(c *virtiogpu.ResourceCreateBlob) { c.Size = 1<<64 - 4095 }),
		host("negative size", bad, func(c *virtiogpu.ResourceCreateBlob) { c.Size = 1 << 63 }),
		host("larger than any picture", bad, func(c *virtiogpu.ResourceCreateBlob) { c.Size = 1<<30 + 1 }),
		host("larger than the window", outOfMemory, func(c *virtiogpu.ResourceCreateBlob) { c.Size = hostMem + 1 }),
		host("blob_mem 0", bad, func(c *virtiogpu.ResourceCreateBlob) { c.BlobMem = 0 }),
		host("blob_mem 4", bad, func(c *virtiogpu.ResourceCreateBlob) { c.BlobMem = 4 }),
		host("blob_mem all ones", bad, func(c *virtiogpu.ResourceCreateBlob) { c.BlobMem = huge }),
		host("unknown flag", bad, func(c *virtiogpu.ResourceCreateBlob) { c.BlobFlags = 8 }),
		host("all flags", bad, func(c *virtiogpu.ResourceCreateBlob) { c.BlobFlags = huge }),
		host("blob_id without a context", anError, func(c *virtiogpu.ResourceCreateBlob) { c.BlobID = 7 }),
		host("blob_id all ones", anError, func(c *virtiogpu.ResourceCreateBlob) { c.BlobID = 1<<64 - 1 }),
		{"host, with pages", createBlob(0, virtiogpu.ResourceCreateBlob{ResourceID: none, BlobMem: 2, Size: 4096}, 1, page), bad, false},
		{"host, blob_id that the context never made", createBlob(ctxA, virtiogpu.ResourceCreateBlob{ResourceID: none, BlobMem: 2, Size: 4096, BlobID: 77}, 0), anError, false},
		guest("no pages", bad, 4096, 0),
		guest("fewer pages than bytes", bad, 4097, 1, page),
		guest("more entries told than sent", bad, 4096, 2, page),
		guest("entries all ones", bad, 4096, huge, page),
		guest("entry that wraps", bad, 4096, 1, virtiogpu.MemEntry{Addr: 1<<64 - 8, Length: 4096}),
		guest("entry where no memory is", bad, 4096, 1, virtiogpu.MemEntry{Addr: 1 << 40, Length: 4096}),
		guest("entry past the end", bad, 1<<30, 1, virtiogpu.MemEntry{Addr: 4096, Length: 1 << 30}),
		guest("the same page many times", fine, 8*4096, 8, page, page, page, page, page, page, page, page),
		guest("pages that are no pages", anAnswer, 20, 2, virtiogpu.MemEntry{Addr: 4097, Length: 10}, virtiogpu.MemEntry{Addr: 8193, Length: 10}),
		guest("the rings", fine, 1<<20, 1, virtiogpu.MemEntry{Addr: 0, Length: 1 << 20}),
		{"guest, with blob_id", createBlob(0, virtiogpu.ResourceCreateBlob{ResourceID: none, BlobMem: 1, Size: 4096, BlobID: 1}, 1, page), bad, false},
		{"shared, without a context", createBlob(0, shared, 1, page), anError, false},
		{"shared, of a context that is not there", createBlob(none, shared, 1, page), anError, false},
		{"shared, no pages", createBlob(ctxA, shared, 0), anError, false},
		{"shared, that the context never made", createBlob(ctxA, shared, 1, page), anError, false},
		{"shared, page where no memory is", createBlob(ctxA, shared, 1, virtiogpu.MemEntry{Addr: 1 << 40, Length: 4096}), anError, false},
		{"attach backing to a blob", attach(blobFree, 1, page), unspec, false},
		{"detach the pages of a guest blob", detach(blobGuest), unspec, false},
		{"flush a blob that was never shown", flush(blobFree, rect(0, 0, 1, 1)), anAnswer, false},
		{"classic scanout of a blob", scanout(0, blobGuest, rect(0, 0, 8, 8)), anError, false},
		{"cursor of a blob", cursor(virtiogpu.CmdUpdateCursor, virtiogpu.UpdateCursor{ResourceID: blobFree}), anAnswer, true},
		{"transfer to a blob", transfer2D(blobFree, rect(huge, huge, huge, huge), ^uint64(0)), anAnswer, false},
		{"attach a blob to a context", ctxRes(virtiogpu.CmdCtxAttachResource, ctxA, blobGuest), anAnswer, false},
		{"3D transfer of a blob", transfer3D(virtiogpu.CmdTransferToHost3D, virtiogpu.TransferHost3D{ResourceID: blobGuest, Box: virtiogpu.Box{W: huge, H: huge, D: huge}}), anError, false},
	}, nil
}

func tableMaps(*VM) ([]Command, error) {
	return []Command{
		{"id 0", mapBlob(0, 0), noResource, false},
		{"what is not there", mapBlob(none, 0), noResource, false},
		{"a 2D resource", mapBlob(res2D, 0), noResource, false},
		{"a guest blob", mapBlob(blobGuest, 0), noResource, false},
		{"what is not mappable", mapBlob(blobHidden, 0), bad, false},
		{"twice", mapBlob(blobMapped, 0), bad, false},
		{"twice at the same place", mapBlob(blobMapped, blobMappedAt), bad, false},
		{"over another", mapBlob(blobFree, blobMappedAt), bad, false},
		{"over another's first page", mapBlob(blobFree, blobMappedAt-blobSize+4096), bad, false},
		{"over another's last page", mapBlob(blobFree, blobMappedAt+blobSize-4096), bad, false},
		{"not at a page", mapBlob(blobFree, 1), bad, false},
		{"past the window", mapBlob(blobFree, hostMem), bad, false},
		{"over the window's end", mapBlob(blobFree, hostMem-4096), bad, false},
		{"at the last page of 64 bits", mapBlob(blobFree, 1<<64-4096), bad, false},
		{"an offset that wraps with the size", mapBlob(blobFree, 1<<64-blobSize), bad, false},
		{"unmap id 0", unmapBlob(0), noResource, false},
		{"unmap what is not there", unmapBlob(none), noResource, false},
		{"unmap what is not mapped", unmapBlob(blobFree), bad, false},
		{"unmap a guest blob", unmapBlob(blobGuest), bad, false},
		{"unmap a 2D resource", unmapBlob(res2D), bad, false},
	}, nil
}

func tableBlobScanouts(*VM) ([]Command, error) {
	var out []Command
	add := func(name string, want Want, change func(c *virtiogpu.SetScanoutBlob)) {
		c := virtiogpu.SetScanoutBlob{R: rect(0, 0, blobW, blobH), ResourceID: blobGuest, Width: blobW, Height: blobH,
			Format: virtiogpu.FormatB8G8R8X8, Strides: [4]uint32{blobW * 4}}
		change(&c)
		out = append(out, Command{name, c.Append(nil), want, false})
	}
	add("head 2", noScanout, func(c *virtiogpu.SetScanoutBlob) { c.ScanoutID = 2 })
	add("head all ones", noScanout, func(c *virtiogpu.SetScanoutBlob) { c.ScanoutID = huge })
	add("what is not there", noResource, func(c *virtiogpu.SetScanoutBlob) { c.ResourceID = none })
	add("a 2D resource", noResource, func(c *virtiogpu.SetScanoutBlob) { c.ResourceID = res2D })
	add("format 0", bad, func(c *virtiogpu.SetScanoutBlob) { c.Format = 0 })
	add("format all ones", bad, func(c *virtiogpu.SetScanoutBlob) { c.Format = virtiogpu.Format(huge) })
	add("size 0", bad, func(c *virtiogpu.SetScanoutBlob) { c.Width, c.R = 0, rect(0, 0, 0, 0) })
	add("width all ones", bad, func(c *virtiogpu.SetScanoutBlob) { c.Width = huge })
	add("height all ones", bad, func(c *virtiogpu.SetScanoutBlob) { c.Height = huge })
	add("empty rectangle", bad, func(c *virtiogpu.SetScanoutBlob) { c.R = rect(0, 0, 0, 0) })
	add("rectangle outside", bad, func(c *virtiogpu.SetScanoutBlob) { c.R = rect(1, 0, blobW, blobH) })
	add("rectangle that wraps", bad, func(c *virtiogpu.SetScanoutBlob) { c.R = rect(huge, huge, 2, 2) })
	add("stride 0", bad, func(c *virtiogpu.SetScanoutBlob) { c.Strides[0] = 0 })
	add("stride below a row", bad, func(c *virtiogpu.SetScanoutBlob) { c.Strides[0] = blobW*4 - 4 })
	add("stride not of pixels", bad, func(c *virtiogpu.SetScanoutBlob) { c.Strides[0] = blobW*4 + 1 })
	add("stride all ones", bad, func(c *virtiogpu.SetScanoutBlob) { c.Strides[0] = huge &^ 3 })
	add("picture four bytes too long", bad, func(c *virtiogpu.SetScanoutBlob) { c.Offsets[0] = blobSize - blobW*4*blobH + 4 })
	add("offset not of pixels", bad, func(c *virtiogpu.SetScanoutBlob) { c.Offsets[0] = 2 })
	add("offset all ones", bad, func(c *virtiogpu.SetScanoutBlob) { c.Offsets[0] = huge &^ 3 })
	add("second plane's stride", bad, func(c *virtiogpu.SetScanoutBlob) { c.Strides[1] = 256 })
	add("fourth plane's offset", bad, func(c *virtiogpu.SetScanoutBlob) { c.Offsets[3] = 1 })
	add("taller than the blob", bad, func(c *virtiogpu.SetScanoutBlob) { c.Height, c.R.Height = 257, 257 })
	add("the largest picture on a small blob", bad, func(c *virtiogpu.SetScanoutBlob) {
		c.Width, c.Height, c.R, c.Strides[0] = 16384, 16384, rect(0, 0, 16384, 16384), 65536
	})
	return out, nil
}

// fillWindow maps blobs until the window is full, then resets without a word.
func fillWindow(v *VM) error {
	for i := range uint32(hostMem >> 20) {
		if err := v.OK(hostBlob(1000+i, virtiogpu.BlobFlagMappable, 1<<20), mapBlob(1000+i, uint64(i)<<20)); err != nil {
			return err
		}
	}
	return v.Reload()
}

// manyMaps asks for more mappings than the front-end has memory slots.
func manyMaps(v *VM) error {
	for i := range uint32(600) {
		if err := v.OK(hostBlob(1000+i, virtiogpu.BlobFlagMappable, 4096)); err != nil {
			return err
		}
		if err := v.Try(mapBlob(1000+i, uint64(i)*8192)); err != nil {
			return err
		}
	}
	for i := range uint32(600) {
		if err := v.OK(unref(1000 + i)); err != nil {
			return err
		}
	}
	return noProblems(v)
}

// mapGames uses a place and an id again while the unmapping may still run.
func mapGames(v *VM) error {
	for range 200 {
		if err := v.OK(hostBlob(50, virtiogpu.BlobFlagMappable, 8192), mapBlob(50, 0), unref(50)); err != nil {
			return err
		}
		if err := v.Try(unmapBlob(50), mapBlob(50, 0)); err != nil {
			return err
		}
	}
	return noProblems(v)
}
