package vtest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gpubroker/gpubroker/broker/vtest"
	"github.com/gpubroker/gpubroker/broker/vtest/vtesttest"
	"github.com/gpubroker/gpubroker/virgl/virgltest"
)

// msg is a message of words whose header says length.
func msg(cmd vtest.Command, length uint32, words ...uint32) []byte {
	return vtest.AppendWords(vtest.Header{Length: length, Command: cmd}.Append(nil), words...)
}

// whole is a message whose header is right.
func whole(cmd vtest.Command, words ...uint32) []byte { return msg(cmd, uint32(len(words)), words...) }

// stream is a SUBMIT_CMD.
func stream(words ...uint32) []byte { return whole(vtest.SubmitCmd, words...) }

// malformed are messages that end the client that sends them. Resource 1 has 16x16 texels
// in versions 0 and 2; from version 2 on it has memory.
var malformed = []struct {
	name    string
	version uint32
	send    []byte
	want    string // in the log
}{
	{"command 0", 2, whole(0), "command 0, known are 1 to 24"},
	{"command beyond the last", 2, whole(25), "command 25"},
	{"a command of a newer version", 2, whole(vtest.GetParam, 1), "needs version 3"},
	{"shared memory in version 0", 0, whole(vtest.ResourceCreate2, 9, 2, 1, 2, 4, 4, 1, 1, 0, 0, 64), "needs version 2"},
	{"a second CREATE_RENDERER", 2, append(msg(vtest.CreateRenderer, 4), "evil"...), "the first message"},
	{"a name too long", 2, msg(vtest.CreateRenderer, 4097), "limit 4096"},
	{"PING with a body", 2, whole(vtest.PingProtocolVersion, 1), "length 1 words, want 0"},
	{"GET_CAPS with a body", 2, whole(vtest.GetCaps, 1), "length 1 words, want 0"},
	{"RESOURCE_CREATE too short", 0, msg(vtest.ResourceCreate, 9), "length 9 words, want 10"},
	{"RESOURCE_CREATE2 too long", 2, msg(vtest.ResourceCreate2, 12), "length 12 words, want 11"},
	{"RESOURCE_CREATE of a name that exists", 2, whole(vtest.ResourceCreate2, 1, 2, 1, 2, 4, 4, 1, 1, 0, 0, 64), "handle 1 exists"},
	{"RESOURCE_CREATE of name 0", 2, whole(vtest.ResourceCreate2, 0, 2, 1, 2, 4, 4, 1, 1, 0, 0, 64), "handle 0"},
	{"RESOURCE_CREATE with a name in version 3", 3, whole(vtest.ResourceCreate2, 7, 2, 1, 2, 4, 4, 1, 1, 0, 0, 64), "want 0"},
	{"memory beyond the limit", 2, whole(vtest.ResourceCreate2, 9, 2, 1, 2, 4, 4, 1, 1, 0, 0, 1<<30+1), "limit 1073741824"},
	{"texture too large", 2, whole(vtest.ResourceCreate2, 9, 2, 1, 2, 1<<20, 1<<20, 1, 1, 0, 0, 0), "limit"},
	{"texture that the renderer refuses", 2, whole(vtest.ResourceCreate2, 9, 2, 1, 2, 0, 0, 1, 1, 0, 0, 0), "size 0x0"},
	{"RESOURCE_UNREF of nothing", 2, whole(vtest.ResourceUnref, 2), "resource 2: not this client's"},
	{"RESOURCE_UNREF of 0", 2, whole(vtest.ResourceUnref, 0), "resource 0: not this client's"},
	{"RESOURCE_UNREF twice", 2, slices.Concat(whole(vtest.ResourceUnref, 1), whole(vtest.ResourceUnref, 1)), "resource 1: not this client's"},
	{"TRANSFER_GET of nothing", 0, (&vtest.Transfer{Handle: 2, W: 1, H: 1, D: 1, DataSize: 4}).AppendGet(nil), "resource 2: not this client's"},
	{"TRANSFER_GET beyond the edge", 0, (&vtest.Transfer{Handle: 1, X: 9, W: 8, H: 1, D: 1, DataSize: 32}).AppendGet(nil), "outside"},
	{"TRANSFER_GET of a box that wraps", 0, (&vtest.Transfer{Handle: 1, X: 1<<32 - 1, W: 2, H: 1, D: 1, DataSize: 32}).AppendGet(nil), "outside"},
	{"TRANSFER_GET of too few bytes", 0, (&vtest.Transfer{Handle: 1, W: 16, H: 16, D: 1, DataSize: 16}).AppendGet(nil), "outside the backing"},
	{"TRANSFER_GET of too many bytes", 0, (&vtest.Transfer{Handle: 1, W: 16, H: 16, D: 1, DataSize: 64<<20 + 1}).AppendGet(nil), "limit 67108864"},
	{"TRANSFER_GET of no bytes and no memory", 0, (&vtest.Transfer{Handle: 1, W: 16, H: 16, D: 1}).AppendGet(nil), "no shared memory"},
	{"TRANSFER_PUT of no bytes and no memory", 0, (&vtest.Transfer{Handle: 1, W: 16, H: 16, D: 1}).AppendPut(nil, nil), "no shared memory"},
	{"TRANSFER_PUT of too many bytes", 0, msg(vtest.TransferPut, 11+16<<20+1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 64<<20+4), "limit 67108864"},
	{"TRANSFER_PUT whose lengths differ", 0, msg(vtest.TransferPut, 12, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 64), "length 12 words, want 27"},
	{"TRANSFER_PUT too short", 0, msg(vtest.TransferPut, 3), "length 3 words, want 11"},
	{"TRANSFER_GET2 at the memory's end", 2, (&vtest.Transfer{Handle: 1, W: 1, H: 1, D: 1, Offset: 1024}).AppendGet2(nil), "offset 1024, the memory has 1024"},
	{"TRANSFER_GET2 beyond the memory's end", 2, (&vtest.Transfer{Handle: 1, W: 2, H: 1, D: 1, Offset: 1020}).AppendGet2(nil), "outside the backing"},
	{"TRANSFER_PUT2 beyond the edge", 2, (&vtest.Transfer{Handle: 1, Y: 16, W: 1, H: 1, D: 1}).AppendPut2(nil), "outside"},
	{"TRANSFER_PUT2 whose lengths differ", 2, msg(vtest.TransferPut2, 11, 1, 0, 0, 0, 0, 1, 1, 1, 64, 0), "length 11 words, want 26"},
	{"TRANSFER_PUT2 of nothing", 2, (&vtest.Transfer{Handle: 3, W: 1, H: 1, D: 1}).AppendPut2(nil), "resource 3: not this client's"},
	{"RESOURCE_BUSY_WAIT for nothing", 2, vtesttest.AppendBusyWait(nil, 2, 1), "resource 2: not this client's"},
	{"SUBMIT_CMD too long", 2, msg(vtest.SubmitCmd, 1<<20+1), "want 0 to 1048576"},
	{"SUBMIT_CMD of a length that wraps", 2, msg(vtest.SubmitCmd, 1<<30), "words"},
	{"a stream that the renderer refuses", 2, stream(0xff << 16), "words"},
	{"a stream with an unknown command", 2, stream(200), "command 200 at word 0"},
	{"a stream that ends inside a command", 2, stream(7|8<<16, 0, 0), "2 are left"},
	{"a stream that names another's resource", 2, stream(16|21<<16, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0), "resource 2: not this client's"},
	{"a stream that fails", 3, stream(0xbad<<16 | 255), "the fake refuses"},
	{"GET_CAPSET too short", 3, msg(vtest.GetCapset, 1), "length 1 words, want 2"},
	{"CONTEXT_INIT of venus", 3, whole(vtest.ContextInit, 4), "capability set 4"},
	{"CONTEXT_INIT of another set", 3, slices.Concat(whole(vtest.ContextInit, 1), whole(vtest.ContextInit, 2)), "the context has"},
	{"a blob of an unknown kind", 3, (&vtest.Blob{Type: 4, Size: 4096}).Append(nil), "type 4"},
	{"a blob of no size", 3, (&vtest.Blob{Type: 1}).Append(nil), "size 0"},
	{"a blob too large", 3, (&vtest.Blob{Type: 2, Size: 1 << 40, ID: 1}).Append(nil), "limit"},
	{"SYNC_READ of nothing", 3, whole(vtest.SyncRead, 1), "sync 1: not this client's"},
	{"SYNC_WRITE of nothing", 3, whole(vtest.SyncWrite, 1, 0, 0), "sync 1: not this client's"},
	{"SYNC_UNREF of nothing", 3, whole(vtest.SyncUnref, 0), "sync 0: not this client's"},
	{"SYNC_WAIT for nothing", 3, whole(vtest.SyncWait, 0, 1, 1, 0, 0), "sync 1: not this client's"},
	{"SYNC_WAIT with half a sync", 3, whole(vtest.SyncWait, 0, 1, 1), "length 3 words"},
	{"SYNC_WAIT too short", 3, whole(vtest.SyncWait, 0), "length 1 words"},
	{"SYNC_WAIT too long", 3, msg(vtest.SyncWait, 2+3*1024+1), "words"},
	{"SUBMIT_CMD2 with more batches than words", 3, whole(vtest.SubmitCmd2, 1<<29), "batch_count"},
	{"SUBMIT_CMD2 with commands beyond its end", 3, whole(vtest.SubmitCmd2, 1, 0, 9, 1, 0, 0, 0, 0, 0), "batch 0"},
	{"SUBMIT_CMD2 with commands that wrap", 3, whole(vtest.SubmitCmd2, 1, 0, 1<<32-1, 2, 0, 0, 0, 0, 0), "batch 0"},
	{"SUBMIT_CMD2 with syncs that wrap", 3, whole(vtest.SubmitCmd2, 1, 0, 0, 0, 8, 1<<31, 0, 0, 0), "batch 0"},
	{"SUBMIT_CMD2 with a sync of nobody", 3, whole(vtest.SubmitCmd2, 1, 0, 0, 0, 9, 1, 0, 0, 0, 77, 0, 0), "sync 77: not this client's"},
	{"SUBMIT_CMD2 on a queue that is not there", 3, whole(vtest.SubmitCmd2, 1, 1, 0, 0, 0, 0, 64, 0, 0), "sync queue 64, limit 63"},
}

// TestMalformed: what is wrong ends its client, with an error that says what it was, and
// nobody else.
func TestMalformed(t *testing.T) {
	r := newRig(t, rigConfig{misuse: true, fake: virgltest.Config{OnSubmit: func(_ *virgltest.Fake, _ uint32, cmds []byte) error {
		if len(cmds) > 3 && cmds[2] == 0xad && cmds[3] == 0x0b {
			return fmt.Errorf("the fake refuses")
		}
		return nil
	}}})
	good := r.dial("good", 2)
	res := r.texture(good, 16, 16)
	want := must(pattern(good, res, 16, 16, 3))(t)
	for _, c := range malformed {
		t.Run(c.name, func(t *testing.T) {
			bad, err := vtesttest.Dial(r.path, c.name, c.version)
			r.must(err)
			defer func() { _ = bad.Close() }()
			x, err := bad.Texture(16, 16)
			r.must(err)
			defer x.Close()
			before := r.logs.FilterMessage("a vtest client was ended").Len()
			if err := bad.Send(c.send); err != nil {
				t.Fatal(err)
			}
			if err := bad.Gone(); err != nil {
				t.Error(err)
			}
			if got := must(good.Read(res, 0, 0, 16, 16))(t); string(got) != string(want) {
				t.Error("another client's pixels changed")
			}
			ended := r.logs.FilterMessage("a vtest client was ended").All()[before:]
			if len(ended) != 1 || !strings.Contains(fmt.Sprint(ended[0].ContextMap()["error"]), c.want) {
				t.Errorf("log %v, want one entry with %q", ended, c.want)
			}
		})
	}
	r.waitClients(1)
}

// TestNotGreeted: before it gives its name a client can do nothing.
func TestNotGreeted(t *testing.T) {
	r := newRig(t, rigConfig{})
	for cmd := vtest.GetCaps; cmd <= vtest.SubmitCmd2; cmd++ {
		if cmd == vtest.CreateRenderer {
			continue
		}
		c := must(vtesttest.Connect(r.path))(t)
		r.must(c.Send(whole(cmd, make([]uint32, 11)...)))
		if err := c.Gone(); err != nil {
			t.Errorf("%v: %v", cmd, err)
		}
		r.must(c.Close())
	}
	r.waitClients(0)
}

// TestLeaving: clients that leave anywhere leave nothing behind.
func TestLeaving(t *testing.T) {
	r := newRig(t, rigConfig{})
	for _, c := range malformed {
		for _, n := range []int{1, 7, 9, len(c.send) / 2} {
			if n >= len(c.send) {
				continue
			}
			x := must(vtesttest.Dial(r.path, c.name, c.version))(t)
			res := must(x.Texture(4, 4))(t)
			res.Close()
			_ = x.Send(c.send[:n])
			r.must(x.Close())
		}
		c := must(vtesttest.Connect(r.path))(t)
		r.must(c.Close())
	}
	r.waitClients(0)
}
