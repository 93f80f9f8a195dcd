package record

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// buffer is a file in memory.
type buffer struct {
	bytes.Buffer
	closed bool
}

func (b *buffer) Close() error { b.closed = true; return nil }

// sample writes a recording with a record of each kind.
func sample() []byte {
	var b buffer
	w := NewWriter(&b, "sample", 0)
	w.Info(&Info{Version: "test", GL: true, Heads: 1, Width: 640, Height: 480})
	w.Machine(&Machine{Features: 0x1f, Maps: true, Regions: []Region{{0, 1 << 20}, {4 << 30, 1 << 20}}})
	w.Memory(0x1000, bytes.Repeat([]byte{1, 2, 3, 4}, 4096))
	w.Blob(7, 8192, []byte("pixels"))
	n := w.Command(0, 24, bytes.Repeat([]byte{9}, 24))
	w.Answer(n, 0x1100)
	n = w.Command(1, 9<<20, bytes.Repeat([]byte{8}, 24))
	w.Answer(n, 0x1201)
	w.Reset()
	_ = w.Close()
	return b.Bytes()
}

func readAll(t *testing.T, body []byte) (out []Record, err error) {
	t.Helper()
	r, err := NewReader(bytes.NewReader(body), "sample")
	if err != nil {
		return nil, err
	}
	for {
		var rec Record
		if err := r.Next(&rec); err != nil {
			return out, err
		}
		rec.Data = bytes.Clone(rec.Data)
		out = append(out, rec)
	}
}

// TestRoundTrip: what was written is read again, also when the file was packed.
func TestRoundTrip(t *testing.T) {
	body := sample()
	if len(body) > 2048 {
		t.Errorf("%d bytes: memory that repeats was not packed", len(body))
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(body)
	_ = z.Close()
	for name, body := range map[string][]byte{"plain": body, "gzip": packed.Bytes()} {
		list, err := readAll(t, body)
		if !errors.Is(err, io.EOF) {
			t.Fatalf("%s: %v", name, err)
		}
		var times uint64
		for i := range list {
			if list[i].Time < times {
				t.Errorf("%s: record %d goes back in time", name, i)
			}
			times = list[i].Time
			list[i].Time, list[i].Offset, list[i].Info.Start = 0, 0, ""
		}
		want := []Record{
			{Kind: KindInfo, Info: Info{Version: "test", GL: true, Heads: 1, Width: 640, Height: 480}},
			{Kind: KindMachine, Machine: Machine{Features: 0x1f, Maps: true, Regions: []Region{{0, 1 << 20}, {4 << 30, 1 << 20}}}},
			{Kind: KindMemory, Addr: 0x1000, Data: bytes.Repeat([]byte{1, 2, 3, 4}, 4096)},
			{Kind: KindBlob, ID: 7, Addr: 8192, Data: []byte("pixels")},
			{Kind: KindCommand, Size: 24, Data: bytes.Repeat([]byte{9}, 24)},
			{Kind: KindAnswer, Type: 0x1100},
			{Kind: KindCommand, Number: 1, Queue: 1, Size: 9 << 20, Data: bytes.Repeat([]byte{8}, 24)},
			{Kind: KindAnswer, Number: 1, Type: 0x1201},
			{Kind: KindReset},
			{Kind: KindEnd, Reason: ErrClosed.Error()},
		}
		if d := cmp.Diff(want, list); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// TestCut: a file that was cut anywhere gives the records before the cut, and says so.
func TestCut(t *testing.T) {
	body := sample()
	whole, _ := readAll(t, body)
	ends := map[int64]bool{int64(len(body)): true}
	for _, rec := range whole {
		ends[rec.Offset] = true
	}
	for n := range body {
		list, err := readAll(t, body[:n])
		switch {
		case n < sizeHeader:
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("%d bytes: %v", n, err)
			}
		case ends[int64(n)]:
			if !errors.Is(err, io.EOF) {
				t.Fatalf("%d bytes, whole records: %v", n, err)
			}
		case !errors.Is(err, ErrTruncated):
			t.Fatalf("%d bytes: %v", n, err)
		}
		if len(list) > 0 && !reflect.DeepEqual(whole[:len(list)], list) {
			t.Fatalf("%d bytes: other records", n)
		}
	}
}

// raw is a record as it stands in a file.
func raw(kind Kind, flags byte, body []byte) []byte {
	p := binary.LittleEndian.AppendUint32(nil, uint32(len(body)))
	p = append(p, byte(kind), flags, 0, 0)
	p = binary.LittleEndian.AppendUint64(p, 0)
	return append(p, body...)
}

// TestBadFile: each broken rule is named, with its place, value and limit.
func TestBadFile(t *testing.T) {
	head := append([]byte(Magic), 1, 0, 0, 0, 0, 0, 0, 0)
	info := raw(KindInfo, 0, []byte(`{"heads":1}`))
	file := func(parts ...[]byte) []byte { return bytes.Join(append([][]byte{head, info}, parts...), nil) }
	long := raw(KindCommand, 0, nil)
	binary.LittleEndian.PutUint32(long, MaxRecord+1)
	zero := make([]byte, 64)
	at := fmt.Sprintf("at offset %d: ", len(head)+len(info))
	for _, c := range []struct {
		name string
		body []byte
		want string
	}{
		{"other file", []byte("\x89PNG\r\n\x1a\n and more of it"), `offset 0: no good recording: it begins with "\x89PNG`},
		{"version", append([]byte(Magic), 2, 0, 0, 0, 0, 0, 0, 0), "offset 8: no good recording: version 2, this program knows 1"},
		{"reserved", append([]byte(Magic), 1, 0, 0, 0, 5, 0, 0, 0), "offset 12: no good recording: reserved 0x5, want 0"},
		{"no info", bytes.Join([][]byte{head, raw(KindReset, 0, nil)}, nil), "record 0 is of kind reset; the first has to be info"},
		{"two infos", file(info), "record 1 is of kind info"},
		{"kind", file(raw(99, 0, nil)), at + "no good recording: record 1 (unknown): kind 99, limit 8"},
		{"flags", file(raw(KindReset, 2, nil)), at + "no good recording: record 1 (reset): flags 2, limit 1"},
		{"length", file(long), fmt.Sprintf("length %d, limit %d", MaxRecord+1, MaxRecord)},
		{"garbage instead of S2", file(raw(KindCommand, flagS2, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})), "record 1 (command): s2"},
		{"S2 bomb", file(raw(KindCommand, flagS2, []byte{0xff, 0xff, 0xff, 0x7f, 0, 0})), fmt.Sprintf("unpacked length 268435455, limit %d", MaxRecord)},
		{"short command", file(raw(KindCommand, 0, zero[:7])), "record 1 (command): length 7, want 8 or more"},
		{"queue", file(raw(KindCommand, 0, append([]byte{2, 0, 0, 0, 24, 0, 0, 0}, zero[:24]...))), "queue 2, limit 1"},
		{"more than there was", file(raw(KindCommand, 0, append([]byte{0, 0, 0, 0, 23, 0, 0, 0}, zero[:24]...))), "24 bytes of a command of 23"},
		{"answer to nothing", file(raw(KindAnswer, 0, zero[:12])), "to command 0, there were 0"},
		{"regions", file(raw(KindMachine, 0, append(append(zero[:12:12], 2, 0, 0, 0), zero[:16]...))), "2 regions (limit 512) in 32 bytes"},
		{"machine flags", file(raw(KindMachine, 0, append(zero[:8:8], 2, 0, 0, 0, 0, 0, 0, 0))), "flags 0x2, known are 0x1"},
		{"memory", file(raw(KindMemory, 0, make([]byte, sizeMemory+MaxMemory+1))), fmt.Sprintf("%d bytes of memory, limit %d", MaxMemory+1, MaxMemory)},
		{"reset", file(raw(KindReset, 0, zero[:1])), "length 1, want 0"},
		{"behind the end", file(raw(KindEnd, 0, nil), raw(KindReset, 0, nil)), "record 2 is behind the end"},
		{"reason", file(raw(KindEnd, 0, []byte{0xff})), "a reason of 1 bytes"},
		{"info", bytes.Join([][]byte{head, raw(KindInfo, 0, []byte("{"))}, nil), "record 0 (info): unexpected end of JSON"},
	} {
		_, err := readAll(t, c.body)
		var op *OpError
		if !errors.Is(err, ErrFormat) || !errors.As(err, &op) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestLimit: the file never grows over the limit, ends with a whole record, and says why.
func TestLimit(t *testing.T) {
	var b buffer
	const limit = 20000
	w := NewWriter(&b, "limited", limit)
	w.Info(&Info{})
	data := make([]byte, 1000)
	for i := range data {
		data[i] = byte(i * i)
	}
	for i := 0; i < 1000 && w.Stopped() == nil; i++ {
		for j := range data {
			data[j] += byte(j*7 + i)
		}
		n := w.Command(0, uint64(len(data)), data)
		w.Answer(n, 0x1100)
	}
	if !errors.Is(w.Stopped(), ErrLimit) {
		t.Fatalf("stopped because of %v", w.Stopped())
	}
	size := b.Len()
	w.Command(0, 24, data[:24])
	w.Memory(0, data)
	if err := w.Close(); err != nil || !b.closed {
		t.Errorf("close: %v, %v", err, b.closed)
	}
	if b.Len() != size || size > limit || size < limit/2 {
		t.Errorf("%d bytes, then %d, limit %d", size, b.Len(), limit)
	}
	list, err := readAll(t, b.Bytes())
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if last := list[len(list)-1]; last.Kind != KindEnd || !strings.Contains(last.Reason, "limit of 20000 bytes") {
		t.Errorf("last record %+v", last)
	}
}

// full is a disk that has no room left after some writes.
type full struct{ room int }

func (f *full) Write(p []byte) (int, error) {
	if f.room--; f.room < 0 {
		return len(p) / 2, &os.PathError{Op: "write", Path: "x", Err: unix.ENOSPC}
	}
	return len(p), nil
}
func (f *full) Close() error { return nil }

// TestDiskFull: a write that fails stops the recording, once and for all.
func TestDiskFull(t *testing.T) {
	w := NewWriter(&full{room: 3}, "/mnt/x", 0)
	w.Info(&Info{})
	for range 10 {
		w.Command(0, 24, make([]byte, 24))
	}
	err := w.Stopped()
	var op *OpError
	if !errors.Is(err, unix.ENOSPC) || !errors.As(err, &op) || op.Path != "/mnt/x" {
		t.Errorf("stopped because of %v", err)
	}
	if got := w.Close(); !errors.Is(got, unix.ENOSPC) {
		t.Errorf("close: %v", got)
	}
}

// TestCreate: what can be recorded to, and what is refused without touching it.
func TestCreate(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"empty", "used"} {
		body := map[string]string{"used": "precious"}[name]
		if err := os.WriteFile(path(name), []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(path("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{
		"used": ErrNotEmpty, "fifo": unix.ENXIO, ".": unix.EISDIR, "no/such": unix.ENOENT, "/dev/null": ErrNotRegular,
	} {
		p := path(name)
		if filepath.IsAbs(name) {
			p = name
		}
		_, err := Create(p, 0)
		if !errors.Is(err, want) || !strings.Contains(err.Error(), p) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	if body, _ := os.ReadFile(path("used")); string(body) != "precious" {
		t.Errorf("the file was changed to %q", body)
	}
	for _, name := range []string{"empty", "new"} {
		w, err := Create(path(name), 0)
		if err != nil {
			t.Fatal(err)
		}
		w.Info(&Info{})
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		st, err := os.Stat(path(name))
		if err != nil || st.Mode().Perm() != 0o600 || st.Size() == 0 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	// Nothing recorded: the path can be used again.
	for range 2 {
		w, err := Create(path("again"), 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
}

// FuzzRecord: whatever a file holds, reading ends, with bounded records and one of the
// errors.
func FuzzRecord(f *testing.F) {
	body := sample()
	f.Add(body)
	f.Add(body[:len(body)-5])
	f.Add([]byte(Magic))
	f.Add(append([]byte(Magic), 1, 0, 0, 0, 0, 0, 0, 0))
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(body)
	_ = z.Close()
	f.Add(packed.Bytes())
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := NewReader(bytes.NewReader(body), "")
		var rec Record
		for n := 0; err == nil; n++ {
			if err = r.Next(&rec); err != nil {
				break
			}
			if len(rec.Data) > MaxRecord || len(rec.Machine.Regions) > MaxRegions || n == 0 != (rec.Kind == KindInfo) {
				t.Fatalf("record %d: %+v", n, rec.Kind)
			}
			if rec.Kind == KindAnswer && rec.Number >= r.Commands() {
				t.Fatalf("an answer to command %d of %d", rec.Number, r.Commands())
			}
		}
		var op *OpError
		if !errors.Is(err, io.EOF) && !errors.As(err, &op) {
			t.Fatalf("error %T: %v", err, err)
		}
	})
}
