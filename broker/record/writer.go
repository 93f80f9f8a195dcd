package record

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/klauspost/compress/s2"
	"golang.org/x/sys/unix"
)

// DefaultLimit is how many bytes a recording has at most if nobody says otherwise.
const DefaultLimit = 1 << 30

// reserve is kept free below the limit for the record that says why it ends.
const reserve = 256

// packFrom is from how many bytes on a record is packed.
const packFrom = 256

// flushAt is how many bytes wait for the next write at most.
const flushAt = 1 << 20

// Writer writes a recording. Its methods belong to one goroutine at a time. After an
// error, or at the limit, it writes nothing more; Stopped tells.
type Writer struct {
	f     io.WriteCloser
	path  string
	limit uint64
	start time.Time

	buf     []byte // records that are not written yet
	payload []byte
	packed  []byte
	size    uint64 // bytes, buf's included
	next    uint64 // number of the next command
	stopped error
	ended   bool
}

// Create is Open and NewWriter.
func Create(path string, limit uint64) (*Writer, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	return NewWriter(f, path, limit), nil
}

// Open opens the file of a recording to write it. It must not exist, or be empty. Only its
// owner can read it afterwards: it is to hold the guest's pixels.
func Open(path string) (*os.File, error) {
	fail := func(err error) (*os.File, error) {
		return nil, &OpError{Op: "create", Path: path, Offset: -1, Err: err}
	}
	// A FIFO without a reader must not make it wait.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|unix.O_NONBLOCK|unix.O_NOCTTY, 0o600)
	if err != nil {
		var p *os.PathError
		if errors.As(err, &p) {
			err = p.Err
		}
		return fail(err)
	}
	st, err := f.Stat()
	switch {
	case err != nil:
	case !st.Mode().IsRegular():
		err = ErrNotRegular
	case st.Size() > 0:
		err = fmt.Errorf("%w (%d bytes)", ErrNotEmpty, st.Size())
	default:
		err = f.Chmod(0o600) // it may have been there, with other rights
	}
	if err != nil {
		_ = f.Close()
		return fail(err)
	}
	return f, nil
}

// NewWriter records to f and owns it. limit is the most bytes that it writes, 0 for
// DefaultLimit.
func NewWriter(f io.WriteCloser, path string, limit uint64) *Writer {
	if limit == 0 {
		limit = DefaultLimit
	}
	w := &Writer{f: f, path: path, limit: limit, start: time.Now()}
	w.buf = append(w.buf, Magic...)
	w.buf = binary.LittleEndian.AppendUint32(w.buf, Version)
	w.buf = binary.LittleEndian.AppendUint32(w.buf, 0)
	w.size = sizeHeader
	return w
}

// Path is where it writes, for messages.
func (w *Writer) Path() string { return w.path }

// Size is how many bytes were written.
func (w *Writer) Size() uint64 { return w.size }

// Stopped is why nothing more is written; nil while it is.
func (w *Writer) Stopped() error { return w.stopped }

// Info writes the first record.
func (w *Writer) Info(i *Info) {
	i.Start = w.start.UTC().Format(time.RFC3339)
	body, err := json.Marshal(i)
	if err != nil {
		w.stop(err)
		return
	}
	w.payload = append(w.payload[:0], body...)
	w.add(KindInfo)
	w.Flush()
}

// Machine writes how guest memory and features are from now on.
func (w *Writer) Machine(m *Machine) {
	p := binary.LittleEndian.AppendUint64(w.payload[:0], m.Features)
	flags := uint32(0)
	if m.Maps {
		flags = machineMaps
	}
	p = binary.LittleEndian.AppendUint32(p, flags)
	p = binary.LittleEndian.AppendUint32(p, uint32(len(m.Regions)))
	for _, r := range m.Regions {
		p = binary.LittleEndian.AppendUint64(p, r.GPA)
		p = binary.LittleEndian.AppendUint64(p, r.Size)
	}
	w.payload = p
	w.add(KindMachine)
}

// Memory writes what guest memory holds at a guest-physical address: at most MaxMemory
// bytes.
func (w *Writer) Memory(gpa uint64, data []byte) {
	w.payload = append(binary.LittleEndian.AppendUint64(w.payload[:0], gpa), data...)
	w.add(KindMemory)
}

// Blob writes what a blob's host memory holds, off bytes from its start: at most
// MaxMemory bytes.
func (w *Writer) Blob(id uint32, off uint64, data []byte) {
	p := binary.LittleEndian.AppendUint32(w.payload[:0], id)
	p = binary.LittleEndian.AppendUint32(p, 0)
	p = binary.LittleEndian.AppendUint64(p, off)
	w.payload = append(p, data...)
	w.add(KindBlob)
}

// Command writes a command, and everything before it, to the file: it is there whatever
// becomes of the process that runs it. size is how many bytes the guest's buffers had.
// The result is the command's number.
func (w *Writer) Command(queue uint32, size uint64, data []byte) uint64 {
	p := binary.LittleEndian.AppendUint32(w.payload[:0], queue)
	p = binary.LittleEndian.AppendUint32(p, uint32(min(size, 1<<32-1)))
	w.payload = append(p, data...)
	w.add(KindCommand)
	w.Flush()
	n := w.next
	w.next++
	return n
}

// Answer writes the type of the response to a command. It reaches the file with the next
// command, or with Flush.
func (w *Writer) Answer(number uint64, typ uint32) {
	p := binary.LittleEndian.AppendUint64(w.payload[:0], number)
	w.payload = binary.LittleEndian.AppendUint32(p, typ)
	w.add(KindAnswer)
}

// Reset writes that the device was reset.
func (w *Writer) Reset() {
	w.payload = w.payload[:0]
	w.add(KindReset)
	w.Flush()
}

// add appends the payload as a record.
func (w *Writer) add(k Kind) {
	if w.stopped != nil {
		return
	}
	body, flags := w.payload, byte(0)
	if len(body) >= packFrom {
		if need := s2.MaxEncodedLen(len(body)); cap(w.packed) < need {
			w.packed = make([]byte, need)
		}
		if packed := s2.Encode(w.packed[:cap(w.packed)], body); len(packed) < len(body)-len(body)/16 {
			body, flags = packed, flagS2
		}
	}
	if w.size+sizeRecord+uint64(len(body))+reserve > w.limit && k != KindEnd {
		w.end(fmt.Errorf("%w of %d bytes", ErrLimit, w.limit))
		return
	}
	before := len(w.buf)
	w.buf = binary.LittleEndian.AppendUint32(w.buf, uint32(len(body)))
	w.buf = append(w.buf, byte(k), flags, 0, 0)
	w.buf = binary.LittleEndian.AppendUint64(w.buf, uint64(time.Since(w.start)))
	w.buf = append(w.buf, body...)
	w.size += uint64(len(w.buf) - before)
	if len(w.buf) >= flushAt {
		w.Flush()
	}
}

// end writes why the recording ends, as its last record, and stops.
func (w *Writer) end(why error) {
	if w.stopped != nil || w.ended {
		return
	}
	w.ended = true
	w.payload = append(w.payload[:0], why.Error()...)
	w.add(KindEnd)
	w.Flush()
	w.stop(why)
}

// Flush writes what waits.
func (w *Writer) Flush() {
	if w.stopped != nil || len(w.buf) == 0 {
		return
	}
	_, err := w.f.Write(w.buf)
	w.buf = w.buf[:0]
	if err != nil {
		var p *os.PathError
		if errors.As(err, &p) {
			err = p.Err
		}
		w.stop(&OpError{Op: "write", Path: w.path, Offset: -1, Err: err})
	}
}

func (w *Writer) stop(why error) {
	if w.stopped == nil {
		w.stopped = why
	}
	w.buf, w.payload, w.packed = nil, nil, nil
}

// ErrClosed is why a Writer stopped that was closed.
var ErrClosed = errors.New("the broker ended")

// Close ends the recording and closes the file. A recording of nothing leaves it empty.
func (w *Writer) Close() error {
	if w.size == sizeHeader {
		w.stop(ErrClosed)
	}
	w.end(ErrClosed)
	err := w.f.Close()
	if w.stopped != nil && !errors.Is(w.stopped, ErrClosed) && !errors.Is(w.stopped, ErrLimit) {
		return w.stopped
	}
	return err
}
