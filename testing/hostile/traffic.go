package hostile

import (
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/json"
	"fmt"
	"path"

	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

// Record is one command of recorded traffic.
type Record struct {
	Cursor bool   `json:"cursor,omitempty"` // on the cursor queue
	Cmd    []byte `json:"cmd"`
}

// The arena is the guest memory that recorded backings lie in, from arenaBase on.
// It is where a new VM's first large piece of contiguous pages is.
const arenaSize = 24 << 20

// recorded is traffic of real programs, made by testing/cmd/hostile -record: the
// virgl commands of Mesa as GL programs ran, one file each.
//
//go:embed testdata/*.json.gz
var recorded embed.FS

// Traffics lists the sessions that mutations start from, by name.
func Traffics() (map[string][]Record, error) {
	out := map[string][]Record{"desktop": desktop(), "scene": sceneTraffic()}
	files, err := recorded.ReadDir("testdata")
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		body, err := recorded.ReadFile(path.Join("testdata", f.Name()))
		if err != nil {
			return nil, err
		}
		var list []Record
		if err := decodeTraffic(body, &list); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name(), err)
		}
		out[f.Name()[:len(f.Name())-len(".json.gz")]] = list
	}
	return out, nil
}

func decodeTraffic(body []byte, list *[]Record) error {
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return err
	}
	return json.NewDecoder(z).Decode(list)
}

func encodeTraffic(list []Record) ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if err := json.NewEncoder(z).Encode(list); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// arena deals out recorded backings: addresses count from 0 until replay.
type arena struct {
	next uint64
	list []Record
}

func (a *arena) add(cmds ...[]byte) {
	for _, c := range cmds {
		a.list = append(a.list, Record{Cmd: bytes.Clone(c)})
	}
}

// back attaches pages to a resource, in two pieces that are no neighbours.
func (a *arena) back(id uint32, size uint64) {
	half := (size/2 + 4095) &^ 4095
	if half >= size {
		half = size
	}
	e := []virtiogpu.MemEntry{{Addr: a.next, Length: uint32(half)}}
	a.next += half + 4096
	if size > half {
		e = append(e, virtiogpu.MemEntry{Addr: a.next, Length: uint32(size - half)})
		a.next += (size - half + 4095) &^ 4095
	}
	a.add(attach(id, uint32(len(e)), e...))
	a.next %= arenaSize / 2 // wraps: old pages are used again
}

func (a *arena) cursor(cmd []byte) {
	a.list = append(a.list, Record{Cursor: true, Cmd: bytes.Clone(cmd)})
}

// desktop is what a guest without GL does: a console, a pointer, blobs.
func desktop() []Record {
	var a arena
	a.add(bare(virtiogpu.CmdGetDisplayInfo, 0), (&virtiogpu.GetEDID{}).Append(nil))
	for i := range uint32(3) {
		w, h := 320+64*i, 200+i
		a.add(create2D(1+i, bgra, w, h))
		a.back(1+i, uint64(w)*uint64(h)*4)
		a.add(scanout(i%2, 1+i, rect(0, 0, w, h)))
		for j := range uint32(4) {
			r := rect(j*10, j*7, 64, 32)
			a.add(transfer2D(1+i, r, uint64(r.Y*w+r.X)*4), flush(1+i, r))
		}
	}
	a.add(create2D(9, bgra, 64, 64))
	a.back(9, 64*64*4)
	a.add(transfer2D(9, rect(0, 0, 64, 64), 0))
	a.cursor(cursor(virtiogpu.CmdUpdateCursor, virtiogpu.UpdateCursor{ResourceID: 9, X: 5, Y: 6, HotX: 1, HotY: 2}))
	for i := range uint32(4) {
		a.cursor(cursor(virtiogpu.CmdMoveCursor, virtiogpu.UpdateCursor{X: 10 * i, Y: 3 * i}))
	}
	for i := range uint32(4) {
		a.add(hostBlob(20+i, virtiogpu.BlobFlagMappable, 64<<10), mapBlob(20+i, uint64(i)<<20))
	}
	a.add(createBlob(0, virtiogpu.ResourceCreateBlob{ResourceID: 30, BlobMem: virtiogpu.BlobMemGuest, BlobFlags: virtiogpu.BlobFlagShareable,
		Size: 128 << 10}, 2, virtiogpu.MemEntry{Addr: 0x10000, Length: 64 << 10}, virtiogpu.MemEntry{Addr: 0x40000, Length: 64 << 10}),
		(&virtiogpu.SetScanoutBlob{R: rect(0, 0, 128, 128), ResourceID: 30, Width: 128, Height: 128, Format: virtiogpu.FormatB8G8R8X8,
			Strides: [4]uint32{512}}).Append(nil), flush(30, rect(0, 0, 128, 128)),
		(&virtiogpu.SetScanoutBlob{R: rect(0, 0, 64, 64), ScanoutID: 1, ResourceID: 21, Width: 64, Height: 64, Format: virtiogpu.FormatB8G8R8X8,
			Strides: [4]uint32{256}}).Append(nil), flush(21, rect(0, 0, 64, 64)),
		(&virtiogpu.ResourceAssignUUID{ResourceID: 30}).Append(nil))
	a.add(unmapBlob(20), unref(20), unmapBlob(21), unref(30), detach(1), unref(1), unref(9))
	return a.list
}

// sceneTraffic draws with one context, shows the picture, and reads it back.
func sceneTraffic() []Record {
	var a arena
	a.add((&virtiogpu.GetCapsetInfo{}).Append(nil), (&virtiogpu.GetCapset{CapsetID: 2, CapsetVersion: 2}).Append(nil), createCtx(ctxA), createCtx(ctxB))
	for _, c := range []virtiogpu.ResourceCreate3D{texture(res3D, resW, resH), texture(resAlien, 128, 128), buffer(resBuf, 4096)} {
		a.add(create3D(c))
		a.back(c.ResourceID, uint64(max(c.Width*4, 4096))*uint64(c.Height))
		a.add(ctxRes(virtiogpu.CmdCtxAttachResource, ctxA, c.ResourceID))
	}
	for i := range 6 {
		var s virglcmd.Builder
		if i == 0 {
			drawScene(&s)
		}
		s.SetScissor(0, 0, resW/2, resH)
		s.SetConstants(virglcmd.StageFragment, 1, 2, 3, 4)
		s.Draw(virglcmd.TriangleStrip, 0, 4)
		s.CopyRegion(resAlien, 3, 4, res3D, virglcmd.Box{W: 16, H: 16, D: 1})
		a.add(withFlags(submit(ctxA, s.Bytes()), virtiogpu.FlagFence, uint64(i), 0))
		for _, t := range []virtiogpu.Type{virtiogpu.CmdTransferFromHost3D, virtiogpu.CmdTransferToHost3D} {
			a.add(transfer3D(t, virtiogpu.TransferHost3D{CtrlHdr: ctxHdr(ctxA), ResourceID: res3D, Box: virtiogpu.Box{X: 1, Y: 2, W: 30, H: 20, D: 1},
				Stride: resW * 4}))
		}
		a.add(scanout(0, res3D, whole), flush(res3D, whole))
	}
	a.add(ctxRes(virtiogpu.CmdCtxDetachResource, ctxA, resAlien), unref(resAlien), bare(virtiogpu.CmdCtxDestroy, ctxA), unref(res3D))
	return a.list
}
