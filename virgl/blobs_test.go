package virgl

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

// blob_mem values that are not the guest's own memory.
const (
	testMemHost3D      = 2
	testMemHost3DGuest = 3
)

// TestBlobTexture: a texture that a context made becomes a blob that contexts draw
// on and that can be read back.
func TestBlobTexture(t *testing.T) {
	onThread(t, nil, func(r *renderer) {
		g := newGuest(t, r, 1)
		g.b.PipeResourceCreate(virglcmd.BlobResource{
			Target: virglcmd.TargetTexture2D, Format: virglcmd.FormatB8G8R8A8,
			Bind: virglcmd.BindRenderTarget | virglcmd.BindSamplerView, Width: 32, Height: 16, BlobID: 7,
		})
		g.submit()
		a := BlobArgs{ID: 5, Ctx: 1, Mem: testMemHost3D, BlobID: 7, Size: 32 * 16 * 4}
		if err := r.CreateBlob(&a, nil); err != nil {
			t.Fatal(err)
		}
		r.AttachResource(1, 5)
		g.clear(5, virglcmd.FormatB8G8R8A8, [4]float32{1, 0.5, 0, 1})
		p := g.read(5, 32, 16, 4)
		if p[0] != 0 || p[1] < 127 || p[1] > 128 || p[2] != 255 || p[len(p)-2] != 255 {
			t.Errorf("pixels % x … % x", p[:4], p[len(p)-4:])
		}
		if err := r.ReadPixels(5, 0, 0, 33, 16, 33*4, make([]byte, 33*16*4)); !errors.Is(err, ErrInvalid) {
			t.Errorf("read past the texture: %v, want ErrInvalid", err)
		}
		if err := r.CreateBlob(&a, nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("the id again: %v, want ErrInvalid", err)
		}
		a.ID = 6
		if err := r.CreateBlob(&a, nil); !errors.Is(err, unix.EINVAL) {
			t.Errorf("the blob id again: %v, want EINVAL", err)
		}
		r.UnrefResource(5)
	})
}

// TestBlobShared: a texture with guest pages takes what is written to them, and
// gives it back.
func TestBlobShared(t *testing.T) {
	onThread(t, nil, func(r *renderer) {
		const w, h = 16, 8
		g := newGuest(t, r, 1)
		g.b.PipeResourceCreate(virglcmd.BlobResource{
			Target: virglcmd.TargetTexture2D, Format: virglcmd.FormatB8G8R8A8,
			Bind: virglcmd.BindRenderTarget | virglcmd.BindSamplerView, Width: w, Height: h, BlobID: 3,
		})
		g.submit()
		mem := make([]byte, w*h*4)
		for i := range mem {
			mem[i] = byte(i * 7)
		}
		want := bytes.Clone(mem)
		a := BlobArgs{ID: 9, Ctx: 1, Mem: testMemHost3DGuest, BlobID: 3, Size: w * h * 4}
		if err := r.CreateBlob(&a, [][]byte{mem[:100], mem[100:]}); err != nil {
			t.Fatal(err)
		}
		r.AttachResource(1, 9)
		all := Transfer{Resource: 9, Ctx: 1, Box: Box{W: w, H: h, D: 1}}
		if err := r.TransferToHost(&all); err != nil {
			t.Fatal(err)
		}
		if got := g.read(9, w, h, 4); !bytes.Equal(got, want) {
			t.Errorf("texture % x…, want % x…", got[:8], want[:8])
		}
		clear(mem)
		if err := r.TransferFromHost(&all); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(mem, want) {
			t.Errorf("pages % x…, want % x…", mem[:8], want[:8])
		}
		all.Box.W = w + 1
		if err := r.TransferToHost(&all); !errors.Is(err, ErrInvalid) {
			t.Errorf("box outside: %v, want ErrInvalid", err)
		}
		r.UnrefResource(9)
	})
}

// TestBlobBuffer: a buffer that the guest wants to map has a descriptor, or its
// export says that it has none.
func TestBlobBuffer(t *testing.T) {
	onThread(t, nil, func(r *renderer) {
		g := newGuest(t, r, 1)
		g.b.PipeResourceCreate(virglcmd.BlobResource{
			Target: virglcmd.TargetBuffer, Format: virglcmd.FormatR8, Bind: virglcmd.BindVertexBuffer, Width: 8192, Height: 1,
			Flags: virglcmd.FlagMapPersistent | virglcmd.FlagMapCoherent, BlobID: 8,
		})
		g.submit()
		if err := r.CreateBlob(&BlobArgs{ID: 6, Ctx: 1, Mem: testMemHost3D, Flags: 1, BlobID: 8, Size: 8192}, nil); err != nil {
			t.Fatal(err)
		}
		fd, info, err := r.ExportBlob(6)
		if err == nil {
			_ = fd.Close()
			t.Logf("this driver exports buffers, cache type %d", info)
		} else if !errors.Is(err, ErrNotSupported) {
			t.Errorf("export: %v, want ErrNotSupported", err)
		}
		if _, _, err := r.ExportBlob(77); !errors.Is(err, ErrInvalid) {
			t.Errorf("export of nothing: %v, want ErrInvalid", err)
		}
	})
}

// TestBlobGuest: guest pages as a blob, in pieces; too few of them are refused.
func TestBlobGuest(t *testing.T) {
	onThread(t, nil, func(r *renderer) {
		mem := make([]byte, 8192)
		segs := [][]byte{mem[:4096], mem[4096:]}
		if err := r.CreateBlob(&BlobArgs{ID: 1, Mem: blobMemGuest, Size: 8192}, segs); err != nil {
			t.Fatal(err)
		}
		if err := r.CreateBlob(&BlobArgs{ID: 2, Mem: blobMemGuest, Size: 8193}, segs); !errors.Is(err, unix.EINVAL) {
			t.Errorf("too few pages: %v, want EINVAL", err)
		}
		if err := r.CreateBlob(&BlobArgs{ID: 3, Ctx: 9, Mem: testMemHost3DGuest, BlobID: 1, Size: 4096}, segs); !errors.Is(err, unix.EINVAL) {
			t.Errorf("unknown context: %v, want EINVAL", err)
		}
		if err := r.CreateContext(1, 0, ""); err != nil {
			t.Fatal(err)
		}
		r.AttachResource(1, 1)
		if _, _, err := r.ExportBlob(1); !errors.Is(err, ErrNotSupported) {
			t.Errorf("export of guest pages: %v, want ErrNotSupported", err)
		}
		if n := r.Stats().Resources; n != 1 {
			t.Errorf("%d resources", n)
		}
		r.UnrefResource(1)
	})
}
