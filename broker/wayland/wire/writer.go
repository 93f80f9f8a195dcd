package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// Writer collects outgoing messages and their descriptors until [Conn.Flush]
// sends them. The zero Writer is ready to use; errors stick and come out of
// [Writer.Err] and of Flush. Once its buffers have grown it allocates nothing.
type Writer struct {
	// MaxPending is the most unsent bytes that are kept; 0 means 1 MiB.
	MaxPending int

	buf   []byte
	sent  int    // buf[:sent] is on its way already
	start int    // where the message being written begins in buf
	base  uint64 // stream position of buf[0]
	fds   []outFD
	nfds  int // descriptors of the message being written
	err   error
}

// outFD is a descriptor that must leave no later than the first byte of its message.
type outFD struct {
	fd  *dmabuf.FD
	pos uint64 // stream position where its message begins
}

// Begin starts a message; arguments follow in order, then End.
func (w *Writer) Begin(object ID, opcode uint16) {
	w.start = len(w.buf)
	w.nfds = 0
	w.Uint(uint32(object))
	w.Uint(uint32(opcode)) // End puts the size above it
}

// Uint appends a 32-bit unsigned argument.
func (w *Writer) Uint(v uint32) { w.buf = binary.LittleEndian.AppendUint32(w.buf, v) }

// Int appends a 32-bit signed argument.
func (w *Writer) Int(v int32) { w.Uint(uint32(v)) }

// Fixed appends a 24.8 argument.
func (w *Writer) Fixed(v Fixed) { w.Uint(uint32(v)) }

// Object appends an object or new_id argument; 0 is null.
func (w *Writer) Object(v ID) { w.Uint(uint32(v)) }

// String appends a string, which must not contain NUL.
func (w *Writer) String(s string) {
	if w.tooLong(len(s)) {
		return
	}
	w.Uint(uint32(len(s) + 1))
	w.buf = append(w.buf, s...)
	w.buf = append(w.buf, "\x00\x00\x00\x00"[:pad(len(s)+1)-len(s)]...)
}

// NullString appends a string argument that is null.
func (w *Writer) NullString() { w.Uint(0) }

// OptString appends s, or null when it is empty.
func (w *Writer) OptString(s string) {
	if s == "" {
		w.NullString()
		return
	}
	w.String(s)
}

// Array appends an array argument.
func (w *Writer) Array(b []byte) {
	if w.tooLong(len(b)) {
		return
	}
	w.Uint(uint32(len(b)))
	w.buf = append(w.buf, b...)
	w.buf = append(w.buf, "\x00\x00\x00"[:pad(len(b))-len(b)]...)
}

// Raw appends arguments that are encoded already, padding included.
func (w *Writer) Raw(b []byte) { w.buf = append(w.buf, b...) }

// Patch replaces the 32-bit word at off bytes after the header of the message
// that is being written.
func (w *Writer) Patch(off int, v uint32) {
	binary.LittleEndian.PutUint32(w.buf[w.start+headerSize+off:], v)
}

func (w *Writer) tooLong(n int) bool {
	if n < maxSize {
		return false
	}
	w.fail(fmt.Errorf("%w: argument of %d bytes, limit %d", ErrTooBig, n, maxSize))
	return true
}

// FD appends a descriptor argument, which takes no bytes. The Writer owns fd
// from here on and closes it once it was sent, or with the connection.
func (w *Writer) FD(fd *dmabuf.FD) {
	w.fds = append(w.fds, outFD{fd, w.base + uint64(w.start)})
	w.nfds++
}

// End finishes the message. A message that breaks a limit is taken back whole,
// and the error sticks.
func (w *Writer) End() {
	size := len(w.buf) - w.start
	switch {
	case w.err != nil:
	case size > maxSize:
		w.fail(fmt.Errorf("%w: %d bytes, limit %d", ErrTooBig, size, maxSize))
	case w.nfds > MaxFDs:
		w.fail(fmt.Errorf("%w: %d descriptors in a message, limit %d", ErrTooBig, w.nfds, MaxFDs))
	case len(w.buf)-w.sent > w.maxPending():
		w.fail(fmt.Errorf("%w: %d bytes, limit %d", ErrBacklog, len(w.buf)-w.sent, w.maxPending()))
	}
	if w.err != nil {
		w.buf = w.buf[:w.start]
		keep := len(w.fds) - w.nfds
		closeOut(w.fds[keep:])
		w.fds = w.fds[:keep]
		return
	}
	opcode := binary.LittleEndian.Uint32(w.buf[w.start+4:])
	binary.LittleEndian.PutUint32(w.buf[w.start+4:], uint32(size)<<16|opcode)
	w.start = len(w.buf)
}

func (w *Writer) fail(err error) {
	if w.err == nil {
		w.err = &OpError{Op: "encode", Err: err}
	}
}

func (w *Writer) maxPending() int {
	if w.MaxPending > 0 {
		return w.MaxPending
	}
	return 1 << 20
}

// Pending returns the bytes that wait to be sent.
func (w *Writer) Pending() int { return len(w.buf) - w.sent }

// PendingFDs returns how many descriptors wait to be sent.
func (w *Writer) PendingFDs() int { return len(w.fds) }

// Unsent returns the bytes that wait to be sent, for writers whose messages do not
// go to a socket; they are valid until the next message. See [Writer.Reset].
func (w *Writer) Unsent() []byte { return w.buf[w.sent:] }

// Reset forgets everything that was not sent, closing its descriptors, and keeps
// the memory and the error.
func (w *Writer) Reset() { w.discard() }

// Err returns the first error of the messages written so far.
func (w *Writer) Err() error { return w.err }

// window returns what one sendmsg may carry: bytes, and how many descriptors.
func (w *Writer) window() (b []byte, nfds int) {
	end := len(w.buf)
	nfds = len(w.fds)
	if nfds > MaxFDs {
		nfds = MaxFDs
		// Bytes stop before the first message whose descriptors stay behind.
		end = int(w.fds[nfds].pos - w.base)
	}
	return w.buf[w.sent:end], nfds
}

// advance notes that n bytes, and with them nfds descriptors, were sent.
func (w *Writer) advance(n, nfds int) {
	closeOut(w.fds[:nfds])
	w.fds = append(w.fds[:0], w.fds[nfds:]...)
	w.sent += n
	if w.sent == len(w.buf) || w.sent > 1<<14 {
		w.base += uint64(w.sent)
		w.buf = append(w.buf[:0], w.buf[w.sent:]...)
		w.sent, w.start = 0, len(w.buf)
	}
}

// discard closes the descriptors that were never sent.
func (w *Writer) discard() {
	closeOut(w.fds)
	w.fds = w.fds[:0]
	w.buf, w.sent, w.start = w.buf[:0], 0, 0
}

func closeOut(fds []outFD) {
	for i := range fds {
		_ = fds[i].fd.Close()
		fds[i].fd = nil
	}
}
