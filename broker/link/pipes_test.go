package link

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
)

// osPipe returns the read end as a file of the test and the write end as what a peer
// passes.
func osPipe(t testing.TB) (*os.File, *dmabuf.FD) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	_ = unix.SetNonblock(p[0], true)
	r := os.NewFile(uintptr(p[0]), "test's end")
	t.Cleanup(func() { r.Close() })
	return r, dmabuf.NewFD(p[1], "test's write end")
}

// file makes an os.File of a write end that AcceptPipe gave.
func file(t testing.TB, fd *dmabuf.FD, err error) *os.File {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if flags, err := unix.FcntlInt(uintptr(fd.Int()), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("a program that gets the pipe's write end would see O_NONBLOCK (%#x, %v)", flags, err)
	}
	_ = unix.SetNonblock(fd.Int(), true)
	f := os.NewFile(uintptr(fd.Disown()), "writer")
	t.Cleanup(func() { f.Close() })
	return f
}

// name makes from name a pipe in to.
func name(t testing.TB, from, to *Conn) (io.WriteCloser, *os.File, uint32) {
	t.Helper()
	r, w := osPipe(t)
	id, err := from.NamePipe(w)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := to.AcceptPipe(id)
	return file(t, fd, err), r, id
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}

// TestPipeBothWays: 10 MB in pieces of odd sizes, with pauses, arrive whole; the end
// comes when the last writer closes, not with a short read.
func TestPipeBothWays(t *testing.T) {
	g, h := pair(t, Limits{Pipes: NewBudget(2), Queued: NewBudget(Window)})
	keepReceiving(t, g)
	keepReceiving(t, h)
	for _, c := range []struct {
		name     string
		from, to *Conn
	}{{"named by the guest", g, h}, {"named by the host", h, g}} {
		t.Run(c.name, func(t *testing.T) {
			w, r, _ := name(t, c.from, c.to)
			want := pattern(10e6 + 3)
			go func() {
				defer w.Close()
				for rest, n := want, 1; len(rest) > 0; n = n*3%99991 + 1 {
					n = min(n, len(rest))
					if _, err := w.Write(rest[:n]); err != nil {
						t.Error(err)
						return
					}
					if n%7 == 0 {
						time.Sleep(50 * time.Microsecond)
					}
					rest = rest[n:]
				}
			}()
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%d bytes (%v), want %d", len(got), err, len(want))
			}
			waitNoPipes(t, g, h)
		})
	}
}

func waitNoPipes(t *testing.T, conns ...*Conn) {
	t.Helper()
	for _, c := range conns {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err := c.DrainPipes(ctx)
		cancel()
		if err != nil || c.OpenPipes() != 0 {
			t.Fatalf("%d pipes left, %v", c.OpenPipes(), err)
		}
	}
}

// TestSlowReader: somebody who does not read holds up his pipe at the window and
// nothing else, and memory is bounded.
func TestSlowReader(t *testing.T) {
	budget := NewBudget(1 << 20)
	g, h := pair(t, Limits{Queued: budget})
	keepReceiving(t, g)
	keepReceiving(t, h)
	stuck, r, _ := name(t, h, g) // data goes to the host, where nobody reads
	sent := make(chan int)
	go func() {
		n, _ := stuck.Write(pattern(4 << 20))
		sent <- n
	}()
	other, r2, _ := name(t, h, g)
	go func() {
		_, _ = other.Write(pattern(3 << 20))
		other.Close()
	}()
	if got, err := io.ReadAll(r2); err != nil || len(got) != 3<<20 {
		t.Fatalf("the other pipe: %d bytes, %v", len(got), err)
	}
	if used := budget.Used(); used > Window {
		t.Errorf("%d bytes wait, the window is %d", used, Window)
	}
	r.Close() // nobody will ever read: the writer hears of it
	select {
	case n := <-sent:
		if n >= 4<<20 {
			t.Errorf("all was written, but nobody read")
		}
	case <-time.After(patience):
		t.Fatal("the writer waits for ever")
	}
	waitNoPipes(t, g, h)
	if used := budget.Used(); used != 0 {
		t.Errorf("%d bytes still counted", used)
	}
}

// TestQueueBudget: a pipe for which there is no room is closed, its writer hears of
// it, and the connection goes on.
func TestQueueBudget(t *testing.T) {
	budget := NewBudget(100 << 10)
	g, h := pair(t, Limits{Queued: budget})
	keepReceiving(t, g)
	end := keepReceiving(t, h)
	w, r, _ := name(t, h, g)
	var err error
	for range 100 {
		if _, err = w.Write(pattern(10 << 10)); err != nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if !errors.Is(err, unix.EPIPE) {
		t.Errorf("the writer: %v, want EPIPE", err)
	}
	_ = r.Close()
	waitNoPipes(t, g, h)
	if budget.Used() != 0 {
		t.Errorf("%d bytes still counted", budget.Used())
	}
	select {
	case err := <-end:
		t.Errorf("the connection ended: %v", err)
	default:
	}
}

// TestLastWords: data that came before the peer left is written.
func TestLastWords(t *testing.T) {
	g, h := pair(t, Limits{})
	end := keepReceiving(t, h)
	guestEnd := keepReceiving(t, g)
	w, r, _ := name(t, h, g)
	_, r2, _ := name(t, h, g) // this one has no end of its own
	if _, err := w.Write(pattern(200 << 10)); err != nil {
		t.Fatal(err)
	}
	for ctx := timeout(t); h.Stats().BytesIn < 200<<10; time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatal("the data does not come")
		}
	}
	g.Close()
	<-guestEnd
	if err := <-end; err != io.EOF {
		t.Fatal(err)
	}
	h.PeerGone()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, pattern(200<<10)) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if got, err := io.ReadAll(r2); err != nil || len(got) != 0 {
		t.Errorf("second pipe: %d bytes, %v", len(got), err)
	}
	waitNoPipes(t, h)
}

func TestWriterClosesAtOnce(t *testing.T) {
	g, h := pair(t, Limits{})
	keepReceiving(t, g)
	keepReceiving(t, h)
	for range 1000 { // ids go on, nothing piles up
		w, r, _ := name(t, g, h)
		w.Close()
		if got, err := io.ReadAll(r); err != nil || len(got) != 0 {
			t.Fatal(got, err)
		}
		r.Close()
	}
	waitNoPipes(t, g, h)
}

// TestPipeLimits: this end's own, the peer's and the one for all connections.
func TestPipeLimits(t *testing.T) {
	before := fdtest.Count(t)
	all := NewBudget(2 * MaxPipes)
	g, h := pair(t, Limits{Pipes: all})
	r, w := osPipe(t)
	defer r.Close()
	var writers []*dmabuf.FD
	for i := range MaxPipes + 1 {
		dup, err := w.Dup()
		if err != nil {
			t.Fatal(err)
		}
		id, err := g.NamePipe(dup)
		if i == MaxPipes {
			if !errors.Is(err, ErrTooMany) {
				t.Errorf("pipe %d: %v, want ErrTooMany", i+1, err)
			}
			break
		}
		if err != nil || id != uint32(2*i+1) {
			t.Fatalf("pipe %d: id %d, %v", i, id, err)
		}
		fd, err := h.AcceptPipe(id)
		if err != nil {
			t.Fatal(err)
		}
		defer fd.Close()
		writers = append(writers, fd)
	}
	if _, err := h.AcceptPipe(2*MaxPipes + 1); !errors.Is(err, ErrProtocol) {
		t.Errorf("a pipe above the limit: %v, want a protocol error", err)
	}
	for _, fd := range writers {
		fd.Close()
	}
	g.Close()
	h.Close()
	w.Close()
	r.Close()
	if all.Used() != 0 {
		t.Errorf("%d pipes still counted", all.Used())
	}
	if after := fdtest.Count(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}

	few := NewBudget(1)
	_, h = pair(t, Limits{Pipes: few})
	fd, err := h.AcceptPipe(1)
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	if _, err := h.AcceptPipe(3); !errors.Is(err, ErrTooMany) {
		t.Errorf("second pipe of one: %v, want ErrTooMany", err)
	}
}

// TestHostilePipes: frames that break the rules of pipes end the connection and say
// why; late ones do not.
func TestHostilePipes(t *testing.T) {
	data := func(id uint32, n int) Frame {
		return Frame{TypeData, append(le.AppendUint32(nil, id), make([]byte, n)...)}
	}
	closed := func(id uint32, r Reason) Frame { return Frame{TypeClose, Close{id, r}.Append(nil)} }
	credit := func(id, n uint32) Frame { return Frame{TypeCredit, Credit{id, n}.Append(nil)} }
	// Pipe 1 is the guest's and accepted, pipe 2 the host's; nobody reads what comes.
	for _, c := range []struct {
		name string
		say  []Frame
		word string // "" if it is fine
	}{
		{"data for nobody", []Frame{data(4, 1)}, "nobody named"},
		{"data for pipe 0", []Frame{data(0, 1)}, "nobody named"},
		{"close of an unknown one", []Frame{closed(3, EndOfData)}, "nobody named"},
		{"credit for an unknown one", []Frame{credit(1001, 1)}, "nobody named"},
		{"data the wrong way", []Frame{data(1, 1)}, "other way"},
		{"credit the wrong way", []Frame{credit(2, 1)}, "other way"},
		{"end of data that it has not", []Frame{closed(1, EndOfData)}, "has none"},
		{"overrun", []Frame{data(2, Window-100), data(2, Window/2)}, "credit is"},
		{"data after the end", []Frame{data(2, Window/2), closed(2, EndOfData), data(2, 1)}, "after its end"},
		{"end twice", []Frame{data(2, Window/2), closed(2, EndOfData), closed(2, EndOfData)}, "second time"},
		{"credit overflow", []Frame{credit(1, MaxCredit), credit(1, MaxCredit)}, "limit"},
		{"late data and credit", []Frame{closed(1, NoReader), credit(1, 1), closed(1, NoReader)}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, h := pair(t, Limits{})
			w1, err := h.AcceptPipe(1)
			if err != nil {
				t.Fatal(err)
			}
			defer w1.Close()
			_, w2 := osPipe(t)
			if _, err := h.NamePipe(w2); err != nil {
				t.Fatal(err)
			}
			said := make(chan struct{})
			go func() { // waits when the socket is full
				defer close(said)
				for _, f := range c.say {
					_ = g.WriteFrame(f.Type, f.Payload)
				}
				_ = g.WriteWayland(nil, []byte("done"))
			}()
			defer func() { g.Close(); <-said }()
			_, err = h.Recv()
			if c.word == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.Is(err, ErrProtocol) || !strings.Contains(err.Error(), c.word) {
				t.Fatalf("error %v, want %q", err, c.word)
			}
		})
	}
	t.Run("named again", func(t *testing.T) {
		_, h := pair(t, Limits{})
		for i, id := range []uint32{5, 5, 3, 2} {
			fd, err := h.AcceptPipe(id)
			if i == 0 && err != nil || i > 0 && !errors.Is(err, ErrProtocol) {
				t.Errorf("pipe %d: %v", id, err)
			}
			_ = fd.Close()
		}
	})
	t.Run("late data for a pipe that this end closed", func(t *testing.T) {
		g, h := pair(t, Limits{})
		r, w := osPipe(t)
		id, err := h.NamePipe(w)
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		for range 3 {
			if err := g.WriteFrame(TypeData, le.AppendUint32(nil, id), make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			if err := g.WriteWayland(nil, nil); err != nil {
				t.Fatal(err)
			}
			if _, err := h.Recv(); err != nil {
				t.Fatal(err)
			}
			waitNoPipes(t, h)
		}
	})
}

// TestDescriptorsOfAllKinds: a client may pass what it likes as the end of a pipe.
func TestDescriptorsOfAllKinds(t *testing.T) {
	open := func(path string, flags int) *dmabuf.FD {
		raw, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		return dmabuf.NewFD(raw, path)
	}
	tmp := t.TempDir() + "/file"
	for _, c := range []struct {
		name string
		fd   *dmabuf.FD
		fine bool
	}{
		{"file", open(tmp, unix.O_RDWR|unix.O_CREAT), true},
		{"file to read", open(tmp, unix.O_RDONLY), false},
		{"null", open("/dev/null", unix.O_WRONLY), true},
		{"full", open("/dev/full", unix.O_WRONLY), false},
		{"folder", open("/", unix.O_RDONLY), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, h := pair(t, Limits{})
			keepReceiving(t, g)
			keepReceiving(t, h)
			id, err := g.NamePipe(c.fd)
			if err != nil {
				t.Fatal(err)
			}
			fd, err := h.AcceptPipe(id)
			w := file(t, fd, err)
			n := 0
			for ; n < 1<<20 && err == nil; n += 1 << 16 {
				_, err = w.Write(make([]byte, 1<<16))
			}
			w.Close()
			if c.fine != (err == nil) {
				t.Errorf("after %d bytes: %v", n, err)
			}
			waitNoPipes(t, g, h)
		})
	}
	if st, err := os.Stat(tmp); err != nil || st.Size() != 1<<20 {
		t.Errorf("the file: %v %v", st, err)
	}
	g, _ := pair(t, Limits{})
	if _, err := g.NamePipe(nil); err == nil {
		t.Error("no descriptor was taken for one")
	}
}
