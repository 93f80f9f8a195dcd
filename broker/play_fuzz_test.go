package broker_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/record"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/virgl/virgltest"
)

type writeCloser struct{ bytes.Buffer }

func (*writeCloser) Close() error { return nil }

// smallBytes is what the guests of FuzzPlay may make: pictures of 1 GiB are honest work
// that takes long.
const smallBytes = 4 << 20

// playSeed is a short recording of everything that works without a renderer.
func playSeed() []byte {
	var b writeCloser
	w := record.NewWriter(&b, "seed", 0)
	w.Info(&record.Info{Heads: 2, Width: 64, Height: 64, HostMem: 1 << 20, Apps: true, Limits: record.Limits{Bytes: smallBytes}})
	w.Machine(&record.Machine{Features: 1<<virtiogpu.FeatureResourceBlob | 1<<virtiogpu.FeatureContextInit, Maps: true,
		Regions: []record.Region{{GPA: 0, Size: 1 << 20}, {GPA: 4 << 30, Size: 1 << 20}}})
	do := func(cmd []byte) {
		var h virtiogpu.CtrlHdr
		_ = h.Decode(cmd)
		w.Answer(w.Command(0, uint64(len(cmd)), cmd), uint32(virtiogpu.Lookup(h.Type).Resp))
	}
	do((&virtiogpu.CtrlHdr{Type: virtiogpu.CmdGetDisplayInfo}).Append(nil))
	do((&virtiogpu.ResourceCreate2D{ResourceID: 1, Format: virtiogpu.FormatB8G8R8X8, Width: 16, Height: 16}).Append(nil))
	do(virtiogpu.MemEntry{Addr: 4096, Length: 1024}.Append((&virtiogpu.ResourceAttachBacking{ResourceID: 1, NrEntries: 1}).Append(nil)))
	do((&virtiogpu.SetScanout{ResourceID: 1, R: rect(0, 0, 16, 16)}).Append(nil))
	w.Memory(4096, bytes.Repeat([]byte{1, 2, 3}, 300))
	do(transfer2D(1, rect(0, 0, 16, 16), 0))
	do((&virtiogpu.ResourceFlush{ResourceID: 1, R: rect(0, 0, 16, 16)}).Append(nil))
	do(createBlob(virtiogpu.CtrlHdr{}, 2, virtiogpu.BlobMemHost3D, virtiogpu.BlobFlagMappable, 0, 4096, nil))
	do(mapBlob(2, 0))
	w.Blob(2, 0, make([]byte, 100))
	do(scanoutBlob(1, 2, 16, 16, 64, 0, virtiogpu.FormatB8G8R8X8))
	do((&virtiogpu.ResourceFlush{ResourceID: 2, R: rect(0, 0, 16, 16)}).Append(nil))
	do(unmapBlob(2))
	do((&virtiogpu.CtxCreate{CtrlHdr: ctxHdr(1), ContextInit: 5}).Append(nil))
	do(createBlob(ctxHdr(1), 3, virtiogpu.BlobMemHost3D, virtiogpu.BlobFlagMappable, 9, 4096, nil))
	do(submit(ctxHdr(1), make([]byte, 16)))
	c := virtiogpu.UpdateCursor{ResourceID: 1}
	w.Command(1, virtiogpu.SizeUpdateCursor, typed(&c, virtiogpu.CmdUpdateCursor))
	w.Command(0, 8<<20, make([]byte, 24))
	w.Reset()
	_ = w.Close()
	return b.Bytes()
}

// TestPlaySkips: what was for a compositor is skipped, and what depends on it goes on.
func TestPlaySkips(t *testing.T) {
	rep, err := play(t, playSeed(), virgltest.Config{NoGL: true}, broker.PlayConfig{Shot: true, Scanout: 1})
	if err != nil || rep.Different != 0 || rep.Skipped != 1 || rep.Unanswered != 2 || rep.Commands != 16 || rep.Shot == nil || rep.Last == nil || rep.Last.Answered {
		t.Errorf("%+v, %v", rep, err)
	}
}

// FuzzPlay: whatever a recording says, playing it ends with a report or an error, and
// leaves nothing behind (TestMain looks).
func FuzzPlay(f *testing.F) {
	seed := playSeed()
	f.Add(seed)
	f.Add(seed[:len(seed)*2/3])
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := record.NewReader(bytes.NewReader(body), "")
		if err != nil {
			return
		}
		var rec record.Record
		if r.Next(&rec) != nil || rec.Info.Limits.Bytes == 0 || rec.Info.Limits.Bytes > smallBytes {
			return
		}
		for { // packed files can be long
			if err := r.Next(&rec); err != nil {
				break
			}
			if r.Commands() > 200 {
				return
			}
		}
		rep, err := play(t, body, virgltest.Config{NoGL: true}, broker.PlayConfig{Shot: true, Memory: 16 << 20})
		var op *record.OpError
		if err != nil && !errors.As(err, &op) || errors.Is(err, io.EOF) {
			t.Fatalf("%T: %v", err, err)
		}
		if rep.Compared+rep.Skipped+rep.Unanswered != rep.Commands || rep.Different > rep.Compared {
			t.Fatalf("%+v", rep)
		}
	})
}
