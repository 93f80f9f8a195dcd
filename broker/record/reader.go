package record

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/klauspost/compress/s2"
)

// Reader reads a recording. It holds one record at a time, whatever the file says.
type Reader struct {
	r        *bufio.Reader
	path     string
	off      int64 // bytes read, unpacked
	head     [sizeRecord]byte
	raw      []byte // a record as it is in the file
	data     []byte // and unpacked
	records  uint64
	commands uint64
	ended    bool
}

// NewReader begins to read a recording, also one that was packed with gzip. path is for
// messages. The first error of the file comes from here.
func NewReader(r io.Reader, path string) (*Reader, error) {
	d := &Reader{r: bufio.NewReaderSize(r, 64<<10), path: path}
	if magic, err := d.r.Peek(2); err == nil && bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(d.r)
		if err != nil {
			return nil, d.fail(0, err)
		}
		d.r = bufio.NewReaderSize(z, 64<<10)
	}
	var h [sizeHeader]byte
	if n, err := io.ReadFull(d.r, h[:]); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: %d bytes, the header has %d", ErrFormat, n, sizeHeader)
		}
		return nil, d.fail(0, err)
	}
	d.off = sizeHeader
	if string(h[:len(Magic)]) != Magic {
		return nil, d.fail(0, fmt.Errorf("%w: it begins with %q, want %q", ErrFormat, h[:len(Magic)], Magic))
	}
	if v := binary.LittleEndian.Uint32(h[len(Magic):]); v != Version {
		return nil, d.fail(int64(len(Magic)), fmt.Errorf("%w: version %d, this program knows %d", ErrFormat, v, Version))
	}
	if z := binary.LittleEndian.Uint32(h[len(Magic)+4:]); z != 0 {
		return nil, d.fail(int64(len(Magic)+4), fmt.Errorf("%w: reserved %#x, want 0", ErrFormat, z))
	}
	return d, nil
}

func (d *Reader) fail(off int64, err error) error {
	return &OpError{Op: "read", Path: d.path, Offset: off, Err: err}
}

// Commands is how many commands were read.
func (d *Reader) Commands() uint64 { return d.commands }

// Next reads a record. At the end of the file the error is io.EOF, also behind one that
// says why the recording ends; inside a record it is ErrTruncated.
func (d *Reader) Next(rec *Record) error {
	at := d.off
	n, err := io.ReadFull(d.r, d.head[:])
	switch {
	case errors.Is(err, io.EOF) && n == 0:
		return io.EOF
	case err != nil:
		return d.short(at, err)
	}
	length := binary.LittleEndian.Uint32(d.head[:])
	kind, flags := Kind(d.head[4]), d.head[5]
	bad := func(field string, value, limit any) error {
		return d.fail(at, fmt.Errorf("%w: record %d (%v): %s %v, limit %v", ErrFormat, d.records, kind, field, value, limit))
	}
	switch {
	case kind == 0 || kind >= numKinds:
		return bad("kind", d.head[4], uint8(numKinds-1))
	case flags&^flagS2 != 0:
		return bad("flags", flags, flagS2)
	case d.head[6]|d.head[7] != 0:
		return bad("reserved", binary.LittleEndian.Uint16(d.head[6:]), 0)
	case length > MaxRecord:
		return bad("length", length, MaxRecord)
	case (kind == KindInfo) != (d.records == 0):
		return d.fail(at, fmt.Errorf("%w: record %d is of kind %v; the first has to be info, and no other", ErrFormat, d.records, kind))
	case d.ended:
		return d.fail(at, fmt.Errorf("%w: record %d is behind the end", ErrFormat, d.records))
	}
	if uint32(cap(d.raw)) < length {
		d.raw = make([]byte, length)
	}
	d.raw = d.raw[:length]
	if _, err := io.ReadFull(d.r, d.raw); err != nil {
		return d.short(at, err)
	}
	d.off += sizeRecord + int64(length)
	body := d.raw
	if flags&flagS2 != 0 {
		size, err := s2.DecodedLen(d.raw)
		if err != nil {
			return d.fail(at, fmt.Errorf("%w: record %d (%v): %w", ErrFormat, d.records, kind, err))
		}
		if size > MaxRecord {
			return bad("unpacked length", size, MaxRecord)
		}
		if cap(d.data) < size {
			d.data = make([]byte, size)
		}
		if body, err = s2.Decode(d.data[:size], d.raw); err != nil {
			return d.fail(at, fmt.Errorf("%w: record %d (%v): %w", ErrFormat, d.records, kind, err))
		}
	}
	*rec = Record{Kind: kind, Offset: at, Time: binary.LittleEndian.Uint64(d.head[8:])}
	if err := d.decode(rec, body); err != nil {
		return d.fail(at, fmt.Errorf("%w: record %d (%v): %w", ErrFormat, d.records, kind, err))
	}
	d.records++
	return nil
}

// short tells a file that ends from one that cannot be read.
func (d *Reader) short(at int64, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = ErrTruncated
	}
	return d.fail(at, err)
}

// decode reads a record's body. Its errors name the field.
func (d *Reader) decode(rec *Record, p []byte) error {
	le := binary.LittleEndian
	if fixed := fixedSizes[rec.Kind]; len(p) < fixed {
		return fmt.Errorf("length %d, want %d or more", len(p), fixed)
	}
	switch rec.Kind {
	case KindInfo:
		if len(p) > maxInfo {
			return fmt.Errorf("length %d, limit %d", len(p), maxInfo)
		}
		return json.Unmarshal(p, &rec.Info)
	case KindMachine:
		flags, n := le.Uint32(p[8:]), le.Uint32(p[12:])
		if flags&^machineMaps != 0 {
			return fmt.Errorf("flags %#x, known are %#x", flags, machineMaps)
		}
		if n > MaxRegions || len(p) != sizeMachine+int(n)*sizeRegion {
			return fmt.Errorf("%d regions (limit %d) in %d bytes", n, MaxRegions, len(p))
		}
		rec.Machine = Machine{Features: le.Uint64(p), Maps: flags&machineMaps != 0}
		for p = p[sizeMachine:]; len(p) > 0; p = p[sizeRegion:] {
			rec.Machine.Regions = append(rec.Machine.Regions, Region{le.Uint64(p), le.Uint64(p[8:])})
		}
	case KindMemory:
		rec.Addr, rec.Data = le.Uint64(p), p[sizeMemory:]
	case KindBlob:
		rec.ID, rec.Addr, rec.Data = le.Uint32(p), le.Uint64(p[8:]), p[sizeBlob:]
	case KindCommand:
		rec.Queue, rec.Size, rec.Data = le.Uint32(p), le.Uint32(p[4:]), p[sizeCommand:]
		if rec.Queue > 1 {
			return fmt.Errorf("queue %d, limit 1", rec.Queue)
		}
		if uint64(len(rec.Data)) > uint64(rec.Size) {
			return fmt.Errorf("%d bytes of a command of %d", len(rec.Data), rec.Size)
		}
		rec.Number = d.commands
		d.commands++
	case KindAnswer:
		rec.Number, rec.Type = le.Uint64(p), le.Uint32(p[8:])
		if rec.Number >= d.commands || len(p) != sizeAnswer {
			return fmt.Errorf("an answer of %d bytes to command %d, there were %d", len(p), rec.Number, d.commands)
		}
	case KindReset:
		if len(p) != 0 {
			return fmt.Errorf("length %d, want 0", len(p))
		}
	case KindEnd:
		if len(p) > reserve || !utf8.Valid(p) {
			return fmt.Errorf("a reason of %d bytes, limit %d of UTF-8", len(p), reserve)
		}
		rec.Reason, d.ended = string(p), true
	}
	if n := len(rec.Data); n > MaxMemory && rec.Kind != KindCommand {
		return fmt.Errorf("%d bytes of memory, limit %d", n, MaxMemory)
	}
	return nil
}
