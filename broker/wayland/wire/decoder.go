package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// Message is one framed message. Body aliases the receive buffer: it is valid
// until the next [Conn.Receive].
type Message struct {
	Object ID
	Opcode uint16
	Body   []byte
	// FDs is the connection's queue; the message's descriptors are its first.
	FDs *FDQueue
}

// Decoder reads the arguments of a message in order. Errors stick: a failed
// read returns the zero value, and [Decoder.Done] tells.
type Decoder struct {
	body []byte
	fds  *FDQueue
	err  error
}

// Decoder returns a decoder for m's arguments.
func (m Message) Decoder() Decoder { return Decoder{body: m.Body, fds: m.FDs} }

func (d *Decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
	}
}

// Uint reads a 32-bit unsigned argument.
func (d *Decoder) Uint() uint32 {
	if d.err != nil {
		return 0
	}
	if len(d.body) < 4 {
		d.fail("argument needs 4 bytes, %d left", len(d.body))
		return 0
	}
	v := binary.LittleEndian.Uint32(d.body)
	d.body = d.body[4:]
	return v
}

// Int reads a 32-bit signed argument.
func (d *Decoder) Int() int32 { return int32(d.Uint()) }

// Fixed reads a 24.8 argument.
func (d *Decoder) Fixed() Fixed { return Fixed(d.Uint()) }

// OptObject reads an object argument that may be null (0).
func (d *Decoder) OptObject() ID { return ID(d.Uint()) }

// Object reads an object or new_id argument that must not be null.
func (d *Decoder) Object() ID {
	id := ID(d.Uint())
	if id == 0 {
		d.fail("null object where one is required")
	}
	return id
}

// Array reads an array argument. The result aliases the message.
func (d *Decoder) Array() []byte {
	n := d.Uint()
	return d.bytes(n)
}

func (d *Decoder) bytes(n uint32) []byte {
	if d.err != nil {
		return nil
	}
	if (uint64(n)+3)&^3 > uint64(len(d.body)) {
		d.fail("length %d, %d bytes left", n, len(d.body))
		return nil
	}
	b := d.body[:n:n]
	d.body = d.body[pad(int(n)):]
	return b
}

// StringBytes reads a string argument without its NUL, aliasing the message;
// nil is a null string.
func (d *Decoder) StringBytes() []byte {
	n := d.Uint()
	if n == 0 {
		return nil
	}
	b := d.bytes(n)
	if d.err != nil {
		return nil
	}
	if end := bytes.IndexByte(b, 0); end != len(b)-1 {
		d.fail("string of %d bytes has its first NUL at %d, want %d", len(b), end, len(b)-1)
		return nil
	}
	return b[:len(b)-1]
}

// OptString reads a string that may be null, which comes out as "".
func (d *Decoder) OptString() string { return string(d.StringBytes()) }

// String reads a string that must not be null.
func (d *Decoder) String() string {
	b := d.StringBytes()
	if b == nil {
		d.fail("null string where one is required")
	}
	return string(b)
}

// FD takes the next descriptor from the queue; the caller owns it. It is nil
// after an error.
func (d *Decoder) FD() *dmabuf.FD {
	if d.err != nil {
		return nil
	}
	fd := d.fds.Take()
	if fd == nil {
		d.err = fmt.Errorf("%w: the message carries one, none arrived", ErrDescriptors)
	}
	return fd
}

// Err returns the first error so far.
func (d *Decoder) Err() error { return d.err }

// Done checks that all bytes were read and returns the first error, with the
// message's name ("wl_surface.enter") in it.
func (d *Decoder) Done(message string) error {
	if d.err == nil && len(d.body) > 0 {
		d.fail("%d bytes after the last argument", len(d.body))
	}
	if d.err == nil {
		return nil
	}
	return &OpError{Op: "decode", Arg: message, Err: d.err}
}

// FDQueue holds received descriptors until a message claims them.
type FDQueue struct {
	fds []*dmabuf.FD
}

// Take removes the oldest descriptor and hands it to the caller; nil if none.
func (q *FDQueue) Take() *dmabuf.FD {
	if q == nil || len(q.fds) == 0 {
		return nil
	}
	fd := q.fds[0]
	n := copy(q.fds, q.fds[1:])
	q.fds[n] = nil
	q.fds = q.fds[:n]
	return fd
}

// Skip closes the oldest n descriptors, those of a message that nobody reads.
func (q *FDQueue) Skip(n int) error {
	for range n {
		fd := q.Take()
		if fd == nil {
			return &OpError{Op: "decode", Err: fmt.Errorf("%w: the message carries %d, fewer arrived", ErrDescriptors, n)}
		}
		_ = fd.Close()
	}
	return nil
}

// Len returns the number of descriptors waiting.
func (q *FDQueue) Len() int { return len(q.fds) }

// Push adds a descriptor, which the queue then owns.
func (q *FDQueue) Push(fd *dmabuf.FD) { q.fds = append(q.fds, fd) }

// Close closes what is left.
func (q *FDQueue) Close() {
	for _, fd := range q.fds {
		_ = fd.Close()
	}
	q.fds = nil
}
