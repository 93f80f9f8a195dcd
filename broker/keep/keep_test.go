package keep

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

func pair(t *testing.T) (a, b *Socket) {
	t.Helper()
	fa, fb, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	a, b = NewSocket(fa), NewSocket(fb)
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return a, b
}

// TestMessages: keys, values of every size and descriptors come as they were sent.
func TestMessages(t *testing.T) {
	a, b := pair(t)
	file, err := dmabuf.NewMemfd("test", 4096)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	var want unix.Stat_t
	if err := unix.Fstat(file.Int(), &want); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{0, 1, 1000, maxPacket, maxPacket + 1, 3 << 20} {
		for _, fds := range []int{0, 1, 3} {
			m := &Message{Op: OpPut, Key: "gpu/resource 7", Value: bytes.Repeat([]byte{byte(size), 7}, size/2+1)[:size]}
			for range fds {
				m.FDs = append(m.FDs, file)
			}
			if err := a.Send(m); err != nil {
				t.Fatal(err)
			}
			got, err := b.Receive()
			if err != nil {
				t.Fatal(err)
			}
			if got.Op != m.Op || got.Key != m.Key || !bytes.Equal(got.Value, m.Value) || len(got.FDs) != fds {
				t.Errorf("%d bytes, %d descriptors: got %d, %q, %d bytes, %d", size, fds, got.Op, got.Key, len(got.Value), len(got.FDs))
			}
			for _, fd := range got.FDs {
				var st unix.Stat_t
				if err := unix.Fstat(fd.Int(), &st); err != nil || st.Ino != want.Ino {
					t.Errorf("another file: %v", err)
				}
			}
			got.CloseFDs()
		}
	}
	for _, m := range []*Message{
		{Op: OpPut, Key: string(make([]byte, maxKey+1))},
		{Op: OpPut, Value: make([]byte, MaxValue+1)},
		{Op: OpPut, FDs: make([]*dmabuf.FD, maxFDs)},
	} {
		if err := a.Send(m); !errors.Is(err, ErrMessage) {
			t.Errorf("%v, want ErrMessage", err)
		}
	}
	a.Shutdown()
	if _, err := b.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("%v, want io.EOF", err)
	}
}

// TestBadMessages: what makes no sense is an error, and its descriptors are closed
// (fdtest counts them).
func TestBadMessages(t *testing.T) {
	pipe, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(pipe) }()
	for _, p := range [][]byte{
		{1}, {1, 200, 0, 0, 0, 0, 0, 0}, {1, 0, 0, 0, 9, 0, 0, 0, 1}, {1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff},
		{1, 0, flagFile, 0, 9, 0, 0, 0},
	} {
		for _, fds := range [][]int{nil, {pipe}} {
			a, b := pair(t)
			var oob []byte
			if fds != nil {
				oob = unix.UnixRights(fds...)
			}
			var sent error
			if err := a.raw.Control(func(fd uintptr) { _, sent = unix.SendmsgN(int(fd), p, oob, nil, 0) }); err != nil || sent != nil {
				t.Fatal(err, sent)
			}
			var op *OpError
			if _, err := b.Receive(); !errors.Is(err, ErrMessage) || !errors.As(err, &op) {
				t.Errorf("%v: %v, want ErrMessage", p, err)
			}
		}
	}
}

// TestPage: what one process writes another reads, whole.
func TestPage(t *testing.T) {
	p, fd, err := NewPage()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fd.Close() }()
	other, err := MapPage(fd)
	if err != nil {
		t.Fatal(err)
	}
	if pageNeeds > os.Getpagesize() {
		t.Fatalf("the page needs %d bytes", pageNeeds)
	}
	var none *Page
	none.Enter(1, 2, "x")
	none.Leave()
	none.Idle(true)
	none.SetHead(0, []byte{1})
	none.SetCursor(0, nil)
	none.ClearHeads()
	if none.Retry(1) {
		t.Error("without a page something was tried before")
	}
	p.Idle(true)
	if d := other.Doing(); !d.Idle || d.Culprit() != "nothing yet" {
		t.Errorf("%+v", d)
	}
	p.Idle(false)
	long := string(bytes.Repeat([]byte("n"), 100))
	p.Enter(0x207, 5, long)
	if d := other.Doing(); d.Idle || !d.Inside || d.Command != 0x207 || d.Context != 5 || d.Name != long[:maxName-1] {
		t.Errorf("%+v", d)
	}
	p.Enter(0x101, 0, "")
	if d := other.Doing(); d.Inside || d.Command != 0x101 || d.Context != 5 || d.Culprit() != "a command without a context" {
		t.Errorf("%+v: %s", d, d.Culprit())
	}
	p.Leave()
	if d := other.Doing(); d.Inside || d.Command != 0 || d.Context != 5 || d.Beat != 4 {
		t.Errorf("%+v", d)
	}
	for head := range maxHeads {
		p.SetHead(head, bytes.Repeat([]byte{byte(head)}, 96))
		p.SetCursor(head, bytes.Repeat([]byte{byte(head), 1}, 100)) // longer than there is room
	}
	other.Begin()
	for head := range maxHeads {
		if got := other.Head(head); !bytes.Equal(got, bytes.Repeat([]byte{byte(head)}, 96)) {
			t.Errorf("head %d: %v", head, got)
		}
		if got := other.Cursor(head); len(got) != cursorMemory || got[0] != byte(head) {
			t.Errorf("cursor %d: %v", head, got)
		}
	}
	if other.Retry(7) || !p.Retry(7) || p.Retry(8) {
		t.Error("Retry does not tell what was tried before")
	}
	p.ClearHeads()
	if other.Head(3) != nil || other.Cursor(3) != nil {
		t.Error("ClearHeads leaves something")
	}
	if err := errors.Join(p.Close(), other.Close()); err != nil {
		t.Error(err)
	}
}

// FuzzMessage: a worker that was taken over sends what it likes.
func FuzzMessage(f *testing.F) {
	f.Add([]byte{1, 3, 0, 0, 2, 0, 0, 0, 'k', 'e', 'y', 1, 2})
	f.Add([]byte{1, 0, flagFile, 0, 2, 0, 0, 0})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, p []byte) {
		m := &Message{}
		if err := m.decode(p); err == nil && headSize+len(m.Key)+len(m.Value) != len(p) {
			t.Errorf("%d bytes became a key of %d and a value of %d", len(p), len(m.Key), len(m.Value))
		}
		m.CloseFDs()
	})
}
