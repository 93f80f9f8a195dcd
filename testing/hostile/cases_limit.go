package hostile

import (
	"fmt"

	"github.com/gpubroker/gpubroker/broker/virtiogpu"
)

// limitCases make as much of everything as the broker lets them. What is refused
// does not matter; what was given works on, and comes back.
func limitCases() []Case {
	return []Case{
		{Group: "limit", Name: "2D resources", Do: func(v *VM) error {
			return until(v, 100000, func(i uint32) [][]byte { return [][]byte{create2D(i, bgra, 1, 1)} })
		}},
		{Group: "limit", Name: "2D resources of the largest size", Do: func(v *VM) error {
			return until(v, 2000, func(i uint32) [][]byte { return [][]byte{create2D(i, bgra, 16384, 16384)} })
		}},
		{Group: "limit", Name: "host blobs", Do: func(v *VM) error {
			return until(v, 100000, func(i uint32) [][]byte { return [][]byte{hostBlob(i, virtiogpu.BlobFlagMappable, 4096)} })
		}},
		{Group: "limit", Name: "pages of backing", Do: manyEntries},
		{Group: "limit", Name: "3D buffers", On: OnGL, Do: func(v *VM) error {
			return until(v, 100000, func(i uint32) [][]byte { return [][]byte{create3D(buffer(i, 64))} })
		}},
		{Group: "limit", Name: "3D textures of 256 MiB", On: OnGL, Do: func(v *VM) error {
			return until(v, 200, func(i uint32) [][]byte { return [][]byte{create3D(texture(i, 8192, 8192))} })
		}},
		{Group: "limit", Name: "contexts", On: OnGL, Do: func(v *VM) error {
			return until(v, 3000, func(i uint32) [][]byte { return [][]byte{createCtx(i)} })
		}},
		{Group: "limit", Name: "sub-contexts", On: OnGL, Do: func(v *VM) error {
			if err := v.OK(createCtx(ctxA)); err != nil {
				return err
			}
			return until(v, 100, func(i uint32) [][]byte {
				return [][]byte{submit(ctxA, dwords(head(cmdCreateSub, 0, 1), i))}
			})
		}},
		{Group: "limit", Name: "pictures of one blob", Do: manyPictures},
	}
}

// until sends the commands for 1, 2, … until one is refused, or all were taken.
// A limit of the broker's is an error of its own, not of a library that ran out.
func until(v *VM, most uint32, cmds func(i uint32) [][]byte) error {
	for i := uint32(1); i <= most; i++ {
		for _, cmd := range cmds(i) {
			typ, _, err := v.Do(cmd)
			if err != nil {
				return fmt.Errorf("number %d: %w", i, err)
			}
			if !typ.IsOK() {
				return roomAgain(v, typ)
			}
		}
	}
	return nil
}

// roomAgain frees one and looks whether the guest can go on.
func roomAgain(v *VM, typ virtiogpu.Type) error {
	if typ != virtiogpu.RespErrOutOfMemory {
		return fmt.Errorf("refused with %v, want %v", typ, virtiogpu.RespErrOutOfMemory)
	}
	for id := uint32(1); id <= 8; id++ {
		if err := v.Try(unref(id), bare(virtiogpu.CmdCtxDestroy, id)); err != nil {
			return err
		}
	}
	return nil
}

// manyEntries backs resources with as many pieces of memory as a command holds.
func manyEntries(v *VM) error {
	entries := make([]virtiogpu.MemEntry, 100000)
	for i := range entries {
		entries[i] = virtiogpu.MemEntry{Addr: 1 << 20, Length: 1}
	}
	return until(v, 200, func(i uint32) [][]byte {
		return [][]byte{create2D(i, bgra, 1, 1), attach(i, uint32(len(entries)), entries...)}
	})
}

// manyPictures shows one blob in ever other shapes.
func manyPictures(v *VM) error {
	if err := stateBlobs(v); err != nil {
		return err
	}
	for i := range uint32(2000) {
		c := virtiogpu.SetScanoutBlob{R: rect(0, 0, 1+i%blobW, 1), ResourceID: blobGuest, Width: 1 + i%blobW, Height: 1 + i/blobW,
			Format: virtiogpu.FormatB8G8R8X8, Strides: [4]uint32{blobW * 4}}
		if err := v.OK(c.Append(nil)); err != nil {
			return fmt.Errorf("picture %d: %w", i, err)
		}
	}
	return nil
}
