package vtest

import (
	"testing"

	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/virgl"
)

// fakeGPU makes what it is asked for and remembers what there is.
type fakeGPU struct{ open int }

type fakeContext struct {
	g         *fakeGPU
	last      uint32
	resources map[uint32]bool
	signalled func(uint32)
	closed    bool
	fence     uint32
}

func (g *fakeGPU) Capsets() []virgl.CapsetInfo {
	return []virgl.CapsetInfo{{ID: 1, MaxVersion: 1, MaxSize: 308}, {ID: 2, MaxVersion: 2, MaxSize: 1376}}
}

func (g *fakeGPU) FillCapset(_, _ uint32, _ []byte) error { return nil }

func (g *fakeGPU) NewContext(_ uint32, _ string, signalled func(uint32)) (Context, error) {
	g.open++
	return &fakeContext{g: g, resources: map[uint32]bool{}, signalled: signalled, last: 1 << 31}, nil
}

func (c *fakeContext) has(id uint32) {
	if c.closed || !c.resources[id] {
		panic("a resource that is not there")
	}
}

func (c *fakeContext) Create(a *virgl.ResourceArgs, shm uint64) (uint32, *dmabuf.FD, error) {
	if a.Width > 1<<14 || len(c.resources) > 100 {
		return 0, nil, virgl.ErrInvalid
	}
	c.last++
	c.resources[c.last] = true
	if shm == 0 {
		return c.last, nil, nil
	}
	fd, err := dmabuf.NewMemfd("fuzz", int64(shm))
	return c.last, fd, err
}

func (c *fakeContext) CreateBlob(a *virgl.BlobArgs) (uint32, *dmabuf.FD, error) {
	return c.Create(&virgl.ResourceArgs{}, a.Size)
}

func (c *fakeContext) Unref(id uint32) {
	c.has(id)
	delete(c.resources, id)
}

func (c *fakeContext) ToHost(t *virgl.Transfer, _ []byte) error {
	c.has(t.Resource)
	return nil
}

func (c *fakeContext) FromHost(t *virgl.Transfer, _ []byte) error {
	c.has(t.Resource)
	return nil
}

func (c *fakeContext) Submit(s []byte) error {
	if len(s)%4 != 0 || c.closed {
		panic("a stream of an odd length, or too late")
	}
	return nil
}

func (c *fakeContext) Fence() (uint32, bool, error) {
	c.fence++
	return c.fence, c.fence%3 == 0, nil
}

func (c *fakeContext) Close() {
	c.closed = true
	c.g.open--
}

// sinkhole takes replies.
type sinkhole struct{ bytes, fds int }

func (s *sinkhole) room() []byte   { return nil }
func (s *sinkhole) reply(b []byte) { s.bytes += len(b) }
func (s *sinkhole) replyFD(fd *dmabuf.FD) {
	s.fds++
	_ = fd.Close()
}

// FuzzClient: any bytes, in pieces, with fences that signal late.
func FuzzClient(f *testing.F) {
	hello := append(Header{4, CreateRenderer}.Append(nil), "fuzz"...)
	version := func(v uint32) []byte { return AppendWords(Header{1, ProtocolVersion}.Append(nil), v) }
	create := (&Create{Handle: 1, Target: 2, Format: 1, Bind: 2, Width: 4, Height: 4, Depth: 1, ArraySize: 1, DataSize: 64})
	add := func(parts ...[]byte) {
		b := append([]byte(nil), hello...)
		for _, p := range parts {
			b = append(b, p...)
		}
		f.Add(b, uint16(7))
		f.Add(b, uint16(4096))
	}
	add(Header{0, PingProtocolVersion}.Append(nil), AppendWords(Header{2, ResourceBusyWait}.Append(nil), 0, 0), version(2),
		Header{0, GetCaps2}.Append(nil), Header{0, GetCaps}.Append(nil))
	add(version(2), create.Append(nil, true), (&Transfer{Handle: 1, W: 4, H: 4, D: 1, DataSize: 64}).AppendPut2(nil),
		AppendWords(Header{3, SubmitCmd}.Append(nil), 11|2<<16, 1, 4), (&Transfer{Handle: 1, W: 4, H: 4, D: 1, DataSize: 64}).AppendGet2(nil),
		AppendWords(Header{2, ResourceBusyWait}.Append(nil), 1, 1), AppendWords(Header{1, ResourceUnref}.Append(nil), 1))
	add(version(0), create.Append(nil, false), (&Transfer{Handle: 1, W: 4, H: 4, D: 1}).AppendPut(nil, make([]byte, 64)),
		(&Transfer{Handle: 1, W: 4, H: 4, D: 1, DataSize: 64}).AppendGet(nil))
	add(version(3), AppendWords(Header{1, GetParam}.Append(nil), 1), AppendWords(Header{2, GetCapset}.Append(nil), 2, 1), AppendWords(Header{1, ContextInit}.Append(nil), 2),
		AppendWords(Header{2, SyncCreate}.Append(nil), 5, 0), AppendWords(Header{1, SyncRead}.Append(nil), 1), AppendWords(Header{3, SyncWrite}.Append(nil), 1, 6, 0),
		AppendWords(Header{5, SyncWait}.Append(nil), 0, 100, 1, 9, 0),
		AppendWords(Header{13, SubmitCmd2}.Append(nil), 1, 1, 9, 1, 10, 1, 0, 0, 0, 0, 1, 9, 0), (&Blob{Type: 1, Size: 4096}).Append(nil))
	f.Fuzz(func(t *testing.T, data []byte, piece uint16) {
		g := &fakeGPU{}
		out := &sinkhole{}
		resumed := 0
		c := newClient(g, out, func() { resumed++ })
		var buf []byte
		for len(data) > 0 || len(buf) > 0 {
			n := min(len(data), int(piece)+1)
			buf = append(buf, data[:n]...)
			data = data[n:]
			used, err := c.feed(buf, 16)
			if used > len(buf) {
				t.Fatalf("used %d of %d bytes", used, len(buf))
			}
			buf = buf[used:]
			if c.waiting {
				before := resumed
				c.signalled(c.fence)
				if c.waiting || resumed != before+1 {
					t.Fatal("the fence signalled and the client waits on")
				}
				continue
			}
			if err != nil || used == 0 && len(data) == 0 {
				break
			}
		}
		c.close()
		if g.open != 0 {
			t.Fatalf("%d contexts left", g.open)
		}
	})
}

// FuzzRename: streams of any content: no name is left that is not in the table, and a
// stream that is accepted is walked in the same way afterwards.
func FuzzRename(f *testing.F) {
	f.Add(AppendWords(nil, 1|8<<8|5<<16, 7, 1, 1, 0, 0, 6|6<<16, 0, 0, 1, 0, 0, 2))
	f.Add(AppendWords(nil, 16|21<<16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0))
	f.Add(AppendWords(nil, 35|12<<16, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 2, 8|20<<16))
	f.Add(AppendWords(nil, 45|14<<16, 1, 0, 0, 0, 0, 0, 0, 0, 4, 4, 1, 2, 0, 0))
	names := map[uint32]*owned{1: {id: 1<<31 + 5}, 2: {id: 1<<31 + 6}}
	back := map[uint32]*owned{1<<31 + 5: {id: 1}, 1<<31 + 6: {id: 2}}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := append([]byte(nil), data[:len(data)/4*4]...)
		if rename(s, names) != nil {
			return
		}
		if err := rename(s, back); err != nil {
			t.Fatalf("a renamed stream has other names: %v", err)
		}
		if string(s) != string(data[:len(s)]) {
			t.Fatal("renamed there and back it is another stream")
		}
	})
}
