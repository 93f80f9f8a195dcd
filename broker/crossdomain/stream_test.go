package crossdomain

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"time"
)

// TestStream: a channel of our own carries bytes both ways, a whole ring at a time.
func TestStream(t *testing.T) {
	r := newRig(t)
	r.rings[channelRing] = scattered(100000)
	r.connect(ChannelStream)
	s := <-r.stream
	r.refuse(ErrRefused, sendCmd(MaxIDs, []byte("x"), id{id: buffer, typ: IDBlob}))
	r.submit(sendCmd(MaxIDs, []byte("he")), sendCmd(MaxIDs, nil), sendCmd(MaxIDs, []byte("llo")))
	got := make([]byte, 5)
	if _, err := io.ReadFull(s, got); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	want := bytes.Repeat([]byte("0123456789abcde\n"), 20000)
	done := make(chan error, 1)
	go func() {
		_, err := s.Write(want)
		done <- err
	}()
	var back []byte
	messages := 0
	for len(back) < len(want) {
		back = append(back, received(t, r.message(), MaxIDs).data...)
		messages++
	}
	if err := <-done; err != nil || !bytes.Equal(back, want) {
		t.Errorf("%d bytes of %d, %v", len(back), len(want), err)
	}
	if most := len(want)/(100000-SizeSendReceive) + 1; messages > most {
		t.Errorf("%d messages, want at most %d", messages, most)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(got); !errors.Is(err, io.EOF) {
		t.Errorf("read after Close: %v", err)
	}
	if _, err := s.Write(got); !errors.Is(err, ErrClosed) {
		t.Errorf("write after Close: %v", err)
	}
	r.finish <- nil
	if m := received(t, r.message(), MaxIDs); len(m.data) != 0 {
		t.Errorf("%q, want the end", m.data)
	}
}

// TestStreamDeadlines: reads and writes that wait end at their time, also when it is
// set while they wait, and go on when it is taken back.
func TestStreamDeadlines(t *testing.T) {
	r := newRig(t)
	r.connect(ChannelStream)
	s := (<-r.stream).(interface {
		io.ReadWriteCloser
		SetReadDeadline(time.Time) error
		SetWriteDeadline(time.Time) error
	})
	for name, c := range map[string]struct {
		set func(time.Time) error
		do  func([]byte) (int, error)
	}{"read": {s.SetReadDeadline, s.Read}, "write": {s.SetWriteDeadline, s.Write}} {
		done := make(chan error, 1)
		go func() {
			_, err := c.do([]byte("12345"))
			done <- err
		}()
		time.Sleep(5 * time.Millisecond)
		_ = c.set(time.Now().Add(time.Hour)) // looks again, waits again
		time.Sleep(5 * time.Millisecond)
		_ = c.set(time.Now())
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := c.do([]byte("12345")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s again: %v", name, err)
		}
		_ = c.set(time.Time{})
	}
	r.submit(sendCmd(MaxIDs, []byte("x")))
	if n, err := s.Read(make([]byte, 5)); n != 1 || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
	hold := r.poll()
	if n, err := s.Write([]byte("y")); n != 1 || err != nil {
		t.Errorf("wrote %d bytes, %v", n, err)
	}
	r.waitFor(hold)
}
