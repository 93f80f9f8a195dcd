package crossdomain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// TestReceive: what is for the guest comes one message for each fence, split at the
// ring's size, with descriptors as numbers.
func TestReceive(t *testing.T) {
	r := newRig(t)
	g := r.wayland()
	data := bytes.Repeat([]byte("wayland "), 1000)
	chunk := proxy.Chunk{Data: data}
	for i := range 40 { // more than one message can have
		chunk.Items = append(chunk.Items, proxy.Item{Kind: proxy.ItemBytes, Bytes: []byte(fmt.Sprintf("keymap %d", i))})
	}
	done := make(chan error, 1)
	go func() { done <- g.Send(context.Background(), chunk) }()
	var got []byte
	var ids []id
	for len(got) < len(data) {
		m := received(t, r.message(), MaxIDs)
		if len(m.data) > pageData-SizeSendReceive || len(m.data) == 0 {
			t.Fatalf("%d bytes in one message", len(m.data))
		}
		got, ids = append(got, m.data...), append(ids, m.ids...)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) || len(ids) != 40 {
		t.Fatalf("%d bytes and %d identifiers", len(got), len(ids))
	}
	for i, x := range ids {
		want := fmt.Sprintf("keymap %d", i)
		if x.typ != IDBlob || x.size != uint32(len(want)) || x.id < firstItem {
			t.Fatalf("identifier %d: %+v", i, x)
		}
		if _, err := r.c.Blob(uint64(x.id), 8192); !errors.Is(err, ErrRefused) {
			t.Errorf("blob larger than its memory: %v", err)
		}
		b, err := r.c.Blob(uint64(x.id), 4096)
		if err != nil {
			t.Fatal(err)
		}
		if seals, err := dmabuf.Seals(b.FD); err != nil || seals&unix.F_SEAL_WRITE == 0 || !b.ReadOnly {
			t.Errorf("seals %#x, read-only %v, %v", seals, b.ReadOnly, err)
		}
		text := make([]byte, len(want))
		if _, err := unix.Pread(b.FD.Int(), text, 0); err != nil || string(text) != want {
			t.Errorf("blob %d holds %q, %v", i, text, err)
		}
		_ = b.FD.Close()
		if _, err := r.c.Blob(uint64(x.id), 4096); !errors.Is(err, ErrRefused) {
			t.Errorf("blob %d twice: %v", i, err)
		}
	}
	if _, err := r.c.Blob(1<<32+uint64(ids[0].id), 4096); !errors.Is(err, ErrRefused) {
		t.Error("the high half of blob_id was ignored")
	}
}

// TestReceiveRefused: what cannot be told to a guest is an error of that Send alone,
// closes what came with it, and costs no fence.
func TestReceiveRefused(t *testing.T) {
	r := newRig(t)
	g := r.wayland()
	hold := r.poll()
	for _, c := range []proxy.Chunk{
		{Data: []byte("x"), Items: []proxy.Item{{Kind: proxy.ItemResource, Resource: 3}}},
		{Data: []byte("x"), Items: []proxy.Item{{Kind: proxy.ItemMemory}}},
		{Data: []byte("x"), Items: []proxy.Item{{Kind: 99}}},
		{Items: []proxy.Item{{Kind: proxy.ItemBytes, Bytes: []byte("a descriptor without a byte to ride on")}}},
		{Update: &proxy.Update{}},
	} {
		if err := g.Send(t.Context(), c); !errors.Is(err, ErrRefused) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	r.quiet()
	if err := g.Send(t.Context(), proxy.Chunk{Data: []byte("fine")}); err != nil {
		t.Fatal(err)
	}
	r.waitFor(hold)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := g.Send(ctx, proxy.Chunk{Data: []byte("no fence")}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a fence: %v", err)
	}
}

// TestReceiveHuge: memory whose size has no room in 32 bits is refused, not cut.
// Defect 7.
func TestReceiveHuge(t *testing.T) {
	r := newRig(t)
	g := r.wayland()
	mem, err := unix.Mmap(-1, 0, 1<<32, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(mem) }()
	r.poll()
	if err := g.Send(t.Context(), proxy.Chunk{Data: []byte{1}, Items: []proxy.Item{{Kind: proxy.ItemBytes, Bytes: mem}}}); !errors.Is(err, ErrRefused) {
		t.Errorf("%v", err)
	}
	r.quiet()
}

// TestBlobLimit: what the guest does not take is limited.
func TestBlobLimit(t *testing.T) {
	r := newRig(t)
	g := r.wayland()
	for range maxBlobs {
		hold := r.poll()
		if err := g.Send(t.Context(), proxy.Chunk{Data: []byte{1}, Items: []proxy.Item{{Kind: proxy.ItemBytes}}}); err != nil {
			t.Fatal(err)
		}
		r.waitFor(hold)
	}
	r.poll()
	if err := g.Send(t.Context(), proxy.Chunk{Data: []byte{1}, Items: []proxy.Item{{Kind: proxy.ItemBytes}}}); !errors.Is(err, ErrRefused) {
		t.Errorf("%v", err)
	}
}
