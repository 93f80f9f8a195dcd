package crossdomain

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// TestImages: templates can be asked for again and again and used again and again;
// each use is memory of its own. Defect 8.
func TestImages(t *testing.T) {
	r := newRig(t)
	r.connect(ChannelNone)
	ask := func(w, h uint32, f dmabuf.Fourcc) []byte {
		return cmd(CmdGetImageRequirements, SizeImageQuery, w, h, uint32(f), 0x11)
	}
	r.submit(ask(64, 32, dmabuf.XRGB8888))
	p := r.ring(queryRing)[:SizeImageReply]
	blob, size := le.Uint32(p[48:]), le.Uint64(p[40:])
	if le.Uint32(p) != 256 || le.Uint64(p[32:]) != 0 || size != 8192 || le.Uint32(p[52:]) != 1 || int32(le.Uint32(p[56:])) != -1 || int32(le.Uint32(p[60:])) != -1 {
		t.Errorf("reply %x", p)
	}
	for range 10 {
		r.submit(ask(64, 32, dmabuf.XRGB8888))
		if got := le.Uint32(r.ring(queryRing)[48:]); got != blob {
			t.Fatalf("blob_id %d, before %d", got, blob)
		}
	}
	if _, err := r.c.Blob(uint64(blob), size-1); !errors.Is(err, ErrRefused) {
		t.Errorf("wrong size: %v", err)
	}
	inode := uint64(0)
	for range 3 {
		b, err := r.c.Blob(uint64(blob), size)
		if err != nil || b.ReadOnly {
			t.Fatalf("%+v, %v", b, err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(b.FD.Int(), &st); err != nil || st.Ino == inode || st.Size != int64(size) {
			t.Errorf("inode %d, before %d; %d bytes, %v", st.Ino, inode, st.Size, err)
		}
		inode = st.Ino
		_ = b.FD.Close()
	}
	for _, bad := range [][]byte{ask(0, 32, dmabuf.XRGB8888), ask(64, 1<<31, dmabuf.XRGB8888), ask(64, 32, dmabuf.NV12), ask(64, 32, 0)} {
		r.refuse(ErrRefused, bad)
		if p := r.ring(queryRing)[:SizeImageReply]; !bytes.Equal(p, make([]byte, SizeImageReply)) {
			t.Errorf("an error leaves %x in the ring", p)
		}
	}
	for w := uint32(1); w < maxTemplates; w++ {
		r.submit(ask(w, 1, dmabuf.XRGB8888))
	}
	r.refuse(ErrRefused, ask(maxTemplates, 1, dmabuf.XRGB8888))
	r.submit(ask(1, 1, dmabuf.XRGB8888))
	if _, err := r.c.Blob(9999, 4096); !errors.Is(err, ErrRefused) {
		t.Errorf("unknown blob_id: %v", err)
	}
}
