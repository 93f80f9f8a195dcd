package crossdomain

import (
	"errors"
	"slices"
	"testing"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// FuzzSubmit runs any bytes as the commands of a context that is connected. Each is
// carried out or refused; nothing grows without limit and nothing waits.
func FuzzSubmit(f *testing.F) {
	add := func(typ ChannelType, p ...[]byte) { f.Add(byte(typ), slices.Concat(p...)) }
	pipe := id{id: firstReadPipe, typ: IDReadPipe}
	for _, slots := range []int{MaxIDs, MaxIDsOld} {
		add(ChannelWayland, sendCmd(slots, []byte("hello"), id{id: buffer, typ: IDBlob}, pipe), cmd(CmdPoll, SizePoll))
		add(ChannelWayland, sendCmd(slots, nil, pipe), sendCmd(slots, nil, pipe))
		add(ChannelStream, sendCmd(slots, []byte("hello")))
	}
	for _, size := range []int{SizeInitOld, SizeInit, SizeInitLibkrun, SizeInitUUID, 28} {
		add(0xff, initCmd(size, ChannelWayland), sendCmd(MaxIDs, []byte("x")))
		add(ChannelNone, initCmd(size, ChannelStream))
	}
	add(ChannelNone, cmd(CmdGetImageRequirements, SizeImageQuery, 64, 32, uint32(dmabuf.XRGB8888), 0x11))
	add(ChannelWayland, writeCmd(2, true, []byte("data")), writeCmd(2, false, nil))
	add(ChannelWayland, []byte{4, 0, 0, 0, 0, 0, 0, 0}, []byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, typ byte, p []byte) {
		r := newRig(t)
		switch typ := ChannelType(typ); typ {
		case ChannelNone, ChannelWayland, ChannelStream:
			r.connect(typ)
		}
		for i := range 3 {
			err := r.c.Submit(p)
			var op *OpError
			if err != nil && !errors.As(err, &op) {
				t.Fatalf("untyped error %v", err)
			}
			r.c.Hold(uint64(i))
		}
		r.c.mu.Lock()
		defer r.c.mu.Unlock()
		if len(r.c.reads) > maxPipes || len(r.c.templates) > maxTemplates || len(r.c.blobs) > 0 || r.c.in.bytes > hardBytes {
			t.Errorf("%d pipes, %d templates, %d blobs, %d bytes", len(r.c.reads), len(r.c.templates), len(r.c.blobs), r.c.in.bytes)
		}
	})
}
