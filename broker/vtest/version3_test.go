package vtest_test

import (
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/vtest"
	"github.com/gpubroker/gpubroker/virgl/virgltest"
)

// TestSyncs: version 3's syncs, waits on them, and batches that set them.
func TestSyncs(t *testing.T) {
	r := newRig(t, rigConfig{fake: virgltest.Config{ManualFences: true}})
	c := r.dial("syncs", 3)
	if w := must(c.Call(vtest.GetParam, 2, vtest.ParamMaxSyncQueueCount))(t); w[0] != 1 || w[1] != 64 {
		t.Errorf("sync queues %v", w)
	}
	if w := must(c.Call(vtest.GetParam, 2, 99))(t); w[0] != 0 {
		t.Errorf("unknown parameter %v", w)
	}
	create := func(v uint64) uint32 {
		return must(c.Call(vtest.SyncCreate, 1, uint32(v), uint32(v>>32)))(t)[0]
	}
	value := func(id uint32) uint64 {
		w := must(c.Call(vtest.SyncRead, 2, id))(t)
		return uint64(w[0]) | uint64(w[1])<<32
	}
	wait := func(flags uint32, list ...vtest.SyncValue) int {
		t.Helper()
		b := vtest.AppendWords(vtest.Header{Length: uint32(2 + 3*len(list)), Command: vtest.SyncWait}.Append(nil), flags, 60000)
		for _, s := range list {
			b = s.Append(b)
		}
		r.must(c.Send(b))
		_ = must(c.Reply(vtest.SyncWait, 0))(t)
		fd := must(c.FD())(t)
		t.Cleanup(func() { _ = fd.Close() })
		return fd.Int()
	}
	ready := func(fd int) bool {
		_ = must(c.Busy(0, false))(t) // so that what was sent is done
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		r.must(err)
		return n == 1
	}
	x, y := create(1<<40), create(0)
	if value(x) != 1<<40 {
		t.Errorf("sync has %d", value(x))
	}
	all := wait(0, vtest.SyncValue{ID: x, Value: 1<<40 + 1}, vtest.SyncValue{ID: y, Value: 5})
	either := wait(vtest.SyncWaitFlagAny, vtest.SyncValue{ID: x, Value: 1<<40 + 1}, vtest.SyncValue{ID: y, Value: 5})
	if now := wait(0, vtest.SyncValue{ID: x, Value: 7}); !ready(now) || ready(all) || ready(either) {
		t.Error("waits are ready when they should not, or not when they should")
	}
	r.must(c.Message(vtest.SyncWrite, y, 5, 0))
	if ready(all) || !ready(either) {
		t.Error("after one of two: all is ready, or any is not")
	}
	// Batches: one that sets x at once, one that sets y when its work is done.
	r.must(c.Message(vtest.SubmitCmd2, 2,
		0, 17, 1, 18, 1, 0, 0, 0,
		vtest.Submit2FlagSyncQueue, 17, 1, 21, 1, 3, 0, 0,
		0 /* NOP */, x, 1, 1<<8 /* 1<<40+1 */, y, 9, 0))
	if !ready(all) || value(x) != 1<<40+1 {
		t.Error("a batch without a queue did not set its sync")
	}
	if value(y) != 5 {
		t.Error("a batch set its sync before its work was done")
	}
	r.fake.Signal(-1)
	for end := time.Now().Add(20 * time.Second); value(y) != 9; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the sync was not set when the work was done")
		}
	}
	r.must(c.Message(vtest.SyncUnref, x))
	r.must(c.Message(vtest.SyncRead, x))
	r.must(c.Gone())
}

// TestBlobs: version 3's blobs: memory of ours, and the renderer's.
func TestBlobs(t *testing.T) {
	r := newRig(t, rigConfig{})
	c := r.dial("blobs", 3)
	_ = must(c.Busy(0, false))(t)
	r.must(c.Message(vtest.ContextInit, 2))
	for _, kind := range []uint32{vtest.BlobGuest, vtest.BlobHost3D} {
		r.must(c.Send((&vtest.Blob{Type: kind, Flags: 1, Size: 8192, ID: uint64(kind)}).Append(nil)))
		w, err := c.Reply(vtest.ResourceCreateBlob, 1)
		if err != nil {
			t.Fatalf("type %d: %v; %v", kind, err, r.logs.All())
		}
		fd := must(c.FD())(t)
		if end, err := unix.Seek(fd.Int(), 0, io.SeekEnd); err != nil || end < 8192 {
			t.Errorf("type %d: memory of %d bytes, %v", kind, end, err)
		}
		r.must(fd.Close())
		r.must(c.Unref(w[0]))
	}
	_ = must(c.Busy(0, false))(t)
}
