package vtest_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/vtest"
	"github.com/gpubroker/gpubroker/broker/vtest/vtesttest"
	"github.com/gpubroker/gpubroker/virgl/virgltest"
)

// TestVersions: what a client asks for and what it gets.
func TestVersions(t *testing.T) {
	r := newRig(t, rigConfig{})
	for ask, want := range map[uint32]uint32{0: 0, 1: 0, 2: 2, 3: 3, 4: 3, 1 << 31: 3} {
		if c := r.dial("versions", ask); c.Version != want {
			t.Errorf("asked for version %d, got %d, want %d", ask, c.Version, want)
		}
	}
	c := r.dial("again", 3) // as Mesa does with an old renderer
	r.must(c.Choose(2))
	r.texture(c, 4, 4)
	r.must(c.Choose(2))
	if err := c.Choose(3); err == nil {
		t.Error("version changed under a resource")
	}
}

// TestCaps: both capability sets, asked for in one write, as Mesa does.
func TestCaps(t *testing.T) {
	r := newRig(t, rigConfig{})
	c := r.dial("caps", 2)
	for set, size := range map[uint32]int{1: 308, 2: 1376} {
		if b := must(c.Caps(set))(t); len(b) != size {
			t.Errorf("set %d has %d bytes, want %d", set, len(b), size)
		}
	}
	r.must(c.Send(vtest.Header{Command: vtest.GetCaps}.Append(vtest.Header{Command: vtest.GetCaps2}.Append(nil))))
	for _, want := range []vtest.Header{{Length: 1377, Command: 2}, {Length: 309, Command: 1}} {
		if h := vtest.DecodeHeader(must(c.Recv(vtest.HeaderSize))(t)); h != want {
			t.Fatalf("header %+v, want %+v", h, want)
		}
		_ = must(c.Recv(int(want.Length - 1)))(t)
	}
	c = r.dial("capset", 3)
	b, err := c.Call(vtest.GetCapset, 1+1376/4, 2, 2)
	r.must(err)
	if b[0] != 1 {
		t.Error("capset 2 is not valid")
	}
	for _, ask := range [][2]uint32{{2, 3}, {4, 0}, {0, 0}} {
		if w := must(c.Call(vtest.GetCapset, 1, ask[0], ask[1]))(t); w[0] != 0 {
			t.Errorf("capset %v is valid", ask)
		}
	}
}

// pattern writes a picture that is a client's own.
func pattern(c *vtesttest.Client, res *vtesttest.Resource, w, h uint32, seed byte) ([]byte, error) {
	picture := make([]byte, w*h*4)
	for i := range picture {
		picture[i] = seed + byte(i)
	}
	t := vtest.Transfer{Handle: res.Handle, W: w, H: h, D: 1}
	if c.Version < 2 {
		return picture, c.Send(t.AppendPut(nil, picture))
	}
	copy(res.Mem, picture)
	t.DataSize = w * h * 4
	if err := c.Send(t.AppendPut2(nil)); err != nil {
		return nil, err
	}
	_, err := c.Busy(res.Handle, true)
	clear(res.Mem)
	return picture, err
}

// TestTransfers: texels go to the renderer and come back, in every version.
func TestTransfers(t *testing.T) {
	for _, version := range []uint32{0, 2, 3} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			r := newRig(t, rigConfig{})
			c := r.dial("transfers", version)
			res := r.texture(c, 61, 33)
			want := must(pattern(c, res, 61, 33, 7))(t)
			if got := must(c.Read(res, 0, 0, 61, 33))(t); !bytes.Equal(got, want) {
				t.Error("other pixels came back")
			}
			// A part, at an offset and with the whole's stride.
			if version >= 2 {
				clear(res.Mem)
				q := vtest.Transfer{Handle: res.Handle, X: 3, Y: 2, W: 5, H: 1, D: 1, DataSize: 20, Offset: 400}
				r.must(c.Send(q.AppendGet2(nil)))
				_ = must(c.Busy(res.Handle, true))(t)
				if !bytes.Equal(res.Mem[400:420], want[(2*61+3)*4:][:20]) {
					t.Error("other pixels in the part")
				}
			} else {
				q := vtest.Transfer{Handle: res.Handle, X: 3, Y: 2, W: 5, H: 1, D: 1, DataSize: 20}
				r.must(c.Send(q.AppendGet(nil)))
				if got := must(c.Recv(20))(t); !bytes.Equal(got, want[(2*61+3)*4:][:20]) {
					t.Error("other pixels in the part")
				}
			}
			r.must(c.Unref(res.Handle))
			_ = must(c.Busy(0, true))(t)
			if st := r.srv.Status(); st.Resources != 0 || st.Bytes != 0 || st.Clients[0].Resources != 0 {
				t.Errorf("after unref: %+v", st)
			}
		})
	}
}

// TestPages: memory of small resources is used again, only by the same client, zeroed, and
// not while another resource has it.
func TestPages(t *testing.T) {
	r := newRig(t, rigConfig{})
	a, b := r.dial("a", 2), r.dial("b", 2)
	small := func(c *vtesttest.Client) *vtesttest.Resource { return r.texture(c, 8, 8) }
	var live []*vtesttest.Resource
	for range 40 { // more than are kept
		live = append(live, small(a))
	}
	for i, x := range live {
		for j := range x.Mem {
			x.Mem[j] = byte(i + 1)
		}
	}
	for i, x := range live {
		if x.Mem[0] != byte(i+1) {
			t.Fatal("two resources have the same memory")
		}
		r.must(a.Unref(x.Handle))
	}
	other := small(b)
	old := small(a) // on a page that a's gone resources had
	for _, x := range []*vtesttest.Resource{other, old} {
		if !bytes.Equal(x.Mem, make([]byte, len(x.Mem))) {
			t.Error("memory is not zero")
		}
	}
	old.Mem[5] = 99
	shared := 0
	for _, x := range live {
		if x.Mem[5] == 99 {
			shared++
		}
		x.Mem[5] = 77
	}
	if shared != 1 || other.Mem[5] != 0 {
		t.Errorf("%d of the gone resources share the new one's memory, want 1; another client's has %d", shared, other.Mem[5])
	}
	for range 200 {
		x := small(a)
		want := must(pattern(a, x, 8, 8, 9))(t)
		if got := must(a.Read(x, 0, 0, 8, 8))(t); !bytes.Equal(got, want) {
			t.Fatal("other pixels came back")
		}
		r.must(a.Unref(x.Handle))
		x.Close()
	}
}

// TestLargeInline: transfers in the stream that are larger than any buffer, to a client
// that reads slowly, while another is served.
func TestLargeInline(t *testing.T) {
	r := newRig(t, rigConfig{})
	c, other := r.dial("large", 0), r.dial("other", 2)
	res := r.texture(c, 1024, 1024)
	want := must(pattern(c, res, 1024, 1024, 1))(t)
	q := vtest.Transfer{Handle: res.Handle, W: 1024, H: 1024, D: 1, DataSize: 4 << 20}
	r.must(c.Send(q.AppendGet(nil)))
	for range 20 {
		_ = must(other.Busy(0, true))(t)
	}
	if got := must(c.Recv(4 << 20))(t); !bytes.Equal(got, want) {
		t.Error("other pixels came back")
	}
	_ = must(c.Busy(res.Handle, true))(t)
}

// TestLargeBuffers: clients that send much and complete nothing, or read nothing, are
// bounded together.
func TestLargeBuffers(t *testing.T) {
	r := newRig(t, rigConfig{})
	const clients = 10
	var all []*vtesttest.Client
	part := make([]byte, 1<<20)
	for i := range clients {
		c := r.dial(fmt.Sprint("large ", i), 0)
		all = append(all, c)
		res := r.texture(c, 16, 16)
		q := vtest.Transfer{Handle: res.Handle, W: 16, H: 16, D: 1, DataSize: 64 << 20}
		if i%2 == 0 {
			r.must(c.Send(q.AppendGet(nil))) // and does not read
			continue
		}
		b := vtest.AppendWords(vtest.Header{Length: 11 + 16<<20, Command: vtest.TransferPut}.Append(nil), res.Handle, 0, 0, 0, 0, 0, 0, 16, 16, 1, 64<<20)
		for range 33 {
			if err := c.Send(b); err != nil {
				break
			}
			b = part
		}
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		ended := r.logs.FilterMessage("a vtest client was ended").All()
		if len(ended) > 0 {
			if text := fmt.Sprint(ended[0].ContextMap()["error"]); !strings.Contains(text, "limit 536870912") {
				t.Errorf("ended for %q", text)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatal("nobody was ended")
		}
	}
	for _, c := range all {
		_ = c.Close()
	}
	r.waitClients(0)
	c := r.dial("after", 0)
	res := r.texture(c, 16, 16)
	_ = must(c.Read(res, 0, 0, 16, 16))(t)
}

// TestIsolated: clients number their resources alike, and each has its own; what one
// names is never another's.
func TestIsolated(t *testing.T) {
	for _, version := range []uint32{0, 2, 3} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			r := newRig(t, rigConfig{misuse: true})
			a, b := r.dial("a", version), r.dial("b", version)
			ra, rb := r.texture(a, 16, 16), r.texture(b, 16, 16)
			if same := ra.Handle == rb.Handle; same != (version < 3) {
				t.Fatalf("handles %d and %d", ra.Handle, rb.Handle)
			}
			pa, pb := must(pattern(a, ra, 16, 16, 1))(t), must(pattern(b, rb, 16, 16, 100))(t)
			check := func(c *vtesttest.Client, res *vtesttest.Resource, want []byte) {
				t.Helper()
				if got := must(c.Read(res, 0, 0, 16, 16))(t); !bytes.Equal(got, want) {
					t.Error("a client reads other pixels than it wrote")
				}
			}
			check(a, ra, pa)
			check(b, rb, pb)

			// A third names what only the others have.
			for _, handle := range []uint32{ra.Handle, rb.Handle, 1<<31 + 1, 1<<31 + 2} {
				for _, send := range [][]byte{
					(&vtest.Transfer{Handle: handle, W: 16, H: 16, D: 1, DataSize: 1024}).AppendGet(nil),
					(&vtest.Transfer{Handle: handle, W: 16, H: 16, D: 1}).AppendPut(nil, make([]byte, 1024)),
					vtest.AppendWords(vtest.Header{Length: 1, Command: vtest.ResourceUnref}.Append(nil), handle),
					vtesttest.AppendBusyWait(nil, handle, 1),
				} {
					c := r.dial("thief", version)
					r.must(c.Send(send))
					r.must(c.Gone())
				}
			}
			check(a, ra, pa)
			check(b, rb, pb)
			if n := r.logs.FilterMessage("a vtest client was ended").Len(); n != 16 {
				t.Errorf("%d clients were ended, want 16", n)
			}
			r.must(a.Close())
			r.waitClients(1)
			check(b, rb, pb)
		})
	}
}

func (r *rig) waitClients(n int) {
	r.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		st := r.srv.Status()
		if len(st.Clients) == n && st.Contexts <= n {
			return
		}
		if time.Now().After(end) {
			r.Fatalf("%d clients and %d contexts, want %d", len(st.Clients), st.Contexts, n)
		}
	}
}

// TestStreamNames: a stream's names become the table's in versions 0 and 2, and stay in 3.
func TestStreamNames(t *testing.T) {
	type sent struct {
		ctx    uint32
		stream []byte
	}
	streams := make(chan sent, 8)
	r := newRig(t, rigConfig{fake: virgltest.Config{OnSubmit: func(_ *virgltest.Fake, ctx uint32, cmds []byte) error {
		streams <- sent{ctx, slices.Clone(cmds)}
		return nil
	}}})
	a, b := r.dial("a", 2), r.dial("b", 2)
	_ = r.texture(a, 4, 4) // so that the same name is another resource
	ra, rb := r.texture(a, 4, 4), r.texture(b, 4, 4)
	surface := func(handle uint32) []byte {
		return vtest.AppendWords(nil, 1|8<<8|5<<16, 77, handle, 1, 0, 0) // CREATE_OBJECT of a surface
	}
	seen := map[uint32]bool{}
	for _, c := range []struct {
		c *vtesttest.Client
		r *vtesttest.Resource
	}{{a, ra}, {b, rb}} {
		r.must(c.c.Submit(surface(c.r.Handle)))
		_ = must(c.c.Busy(0, true))(t)
		s := <-streams
		id := binary.LittleEndian.Uint32(s.stream[8:])
		if !r.fake.Attached(s.ctx, id) || seen[id] {
			t.Errorf("the stream of context %d names resource %d", s.ctx, id)
		}
		seen[id] = true
		if name := binary.LittleEndian.Uint32(s.stream[4:]); name != 77 {
			t.Errorf("object %d, want 77", name)
		}
	}
	r.must(b.Submit(surface(ra.Handle))) // 2: only a has it
	r.must(b.Gone())

	c := r.dial("c", 3)
	rc := r.texture(c, 4, 4)
	r.must(c.Submit(surface(rc.Handle)))
	_ = must(c.Busy(0, true))(t)
	if s := <-streams; binary.LittleEndian.Uint32(s.stream[8:]) != rc.Handle {
		t.Error("a stream of version 3 was changed")
	}
}

// TestBusyWait: a wait ends when the work has, and holds up nobody else.
func TestBusyWait(t *testing.T) {
	r := newRig(t, rigConfig{fake: virgltest.Config{ManualFences: true}})
	a, b := r.dial("a", 2), r.dial("b", 2)
	if must(a.Busy(0, true))(t) {
		t.Error("busy before there is work")
	}
	res := r.texture(a, 4, 4)
	r.must(a.Submit(make([]byte, 4)))
	if !must(a.Busy(res.Handle, false))(t) {
		t.Error("not busy with a fence that did not signal")
	}
	if must(b.Busy(0, true))(t) {
		t.Error("busy with another's work")
	}
	waited := make(chan error, 1)
	go func() {
		_, err := a.Busy(res.Handle, true)
		waited <- err
	}()
	select {
	case err := <-waited:
		t.Fatalf("the wait ended before the work: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	for range 10 {
		_ = must(b.Busy(0, true))(t)
	}
	r.fake.Signal(-1)
	r.must(<-waited)
	if must(a.Busy(res.Handle, false))(t) {
		t.Error("busy after the work")
	}
	// A client that leaves while it waits.
	r.must(a.Submit(make([]byte, 4)))
	if !must(a.Busy(res.Handle, false))(t) { // now its fence is there to be signalled
		t.Error("not busy with the second fence")
	}
	r.must(a.Send(vtesttest.AppendBusyWait(nil, 0, 1)))
	_ = must(b.Busy(0, true))(t)
	r.must(a.Close())
	r.fake.Signal(-1)
	r.waitClients(1)
}

// TestPieces: messages come in pieces of any size.
func TestPieces(t *testing.T) {
	r := newRig(t, rigConfig{})
	c, err := vtesttest.Connect(r.path)
	r.must(err)
	t.Cleanup(func() { _ = c.Close() })
	name := "pieces"
	b := vtest.Header{Length: uint32(len(name)), Command: vtest.CreateRenderer}.Append(nil)
	b = append(b, name...) // ends at an odd place
	b = vtest.Header{Command: vtest.PingProtocolVersion}.Append(b)
	q := vtest.Create{Handle: 5, Target: 2, Format: 1, Bind: 2, Width: 3, Height: 1, Depth: 1, ArraySize: 1}
	b = q.Append(b, false)
	b = (&vtest.Transfer{Handle: 5, W: 3, H: 1, D: 1}).AppendPut(b, []byte("hello, world"))
	b = vtest.AppendWords(vtest.Header{Length: 1, Command: vtest.SubmitCmd}.Append(b), 0)
	b = (&vtest.Transfer{Handle: 5, W: 3, H: 1, D: 1, DataSize: 12}).AppendGet(b)
	for len(b) > 0 {
		n := min(len(b), 3)
		r.must(c.Send(b[:n]))
		b = b[n:]
		time.Sleep(time.Millisecond)
	}
	_ = must(c.Reply(vtest.PingProtocolVersion, 0))(t)
	if got := must(c.Recv(12))(t); string(got) != "hello, world" {
		t.Errorf("got %q", got)
	}
	if st := r.srv.Status(); len(st.Clients) != 1 || st.Clients[0].Name != name || st.Clients[0].Submits != 1 {
		t.Errorf("status %+v", st)
	}
}

// TestLimits: what one client may have, and that others are none the worse.
func TestLimits(t *testing.T) {
	r := newRig(t, rigConfig{limits: broker.Limits{Resources: 8, Bytes: 1 << 20}, clients: 3})
	a, b := r.dial("a", 2), r.dial("b", 2)
	for range 4 {
		r.texture(a, 4, 4)
	}
	if _, err := a.Texture(4, 4); err == nil {
		t.Error("a fifth resource, the limit for one client is 4")
	}
	r.texture(b, 4, 4)
	r.waitClients(1)
	if _, err := b.Texture(400, 400); err == nil { // 640000 bytes twice
		t.Error("more than half of the bytes for one client")
	}
	r.waitClients(0)
	for range 3 {
		r.dial("three", 2)
	}
	if c, err := vtesttest.Dial(r.path, "four", 2); err == nil {
		_ = c.Close()
		t.Error("a fourth client, limit 3")
	}
	ended := r.logs.FilterMessage("a vtest client was ended").All()
	for i, want := range []string{"4 resources, limit 4", "640000 bytes, limit 524288"} {
		if i >= len(ended) || !strings.Contains(fmt.Sprint(ended[i].ContextMap()["error"]), want) {
			t.Errorf("log %d: %v, want %q", i, ended, want)
		}
	}
}
