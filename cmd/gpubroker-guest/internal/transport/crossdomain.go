package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/drm"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// What cross-domain contexts speak; docs/cross-domain.md has all of it.
const (
	cmdInit    = 1
	cmdPoll    = 3
	cmdSend    = 4
	cmdReceive = 5

	sizeInit    = 20
	sizePoll    = 16
	sizeMessage = 352 // SEND and RECEIVE without their data

	channelStream = 31 // our own type: the bytes of a link

	ringQuery   = 0
	ringChannel = 1

	// maxSend is the most data in one SEND: cmd_size has 16 bits.
	maxSend = 0xffff - sizeMessage
	// queryBytes and channelBytes are the sizes of the two rings.
	queryBytes   = 4096
	channelBytes = 64 << 10

	capsSize   = 16
	eventSize  = 8 // struct drm_event
	eventFence = 0x90000000
)

// crossDomain makes a context of the GPU for each stream.
type crossDomain struct{ node string }

// openCrossDomain finds a GPU with such contexts, whose host offers our channel.
func openCrossDomain(nodes []drm.Node) (Transport, error) {
	unavailable := func(format string, args ...any) (Transport, error) {
		return nil, &OpError{"open", "cross-domain", fmt.Errorf("%w: "+format, append([]any{ErrUnavailable}, args...)...)}
	}
	if len(nodes) == 0 {
		return unavailable("there is no render node of virtio-gpu, or this user may not open it")
	}
	for _, n := range nodes {
		if !n.CrossDomain() {
			continue
		}
		d, err := drm.Open(n.Path)
		if err != nil {
			return nil, &OpError{"open", "cross-domain", err}
		}
		caps := make([]byte, capsSize)
		err = d.Caps(drm.CapsetCrossDomain, caps)
		_ = d.Close()
		if err != nil {
			return nil, &OpError{"open", "cross-domain", err}
		}
		if channels := binary.LittleEndian.Uint32(caps[4:]); channels>>channelStream&1 == 0 {
			return unavailable("the host of %s offers channels %#x, and gpubroker's is not among them", n.Path, channels)
		}
		return &crossDomain{n.Path}, nil
	}
	return unavailable("the GPU has no cross-domain contexts (with QEMU they need vhost-user-test-device-pci)")
}

func (x *crossDomain) Name() string { return "cross-domain " + x.node }

func (x *crossDomain) Close() error { return nil }

// crossStream is a context as a stream. Read and Write are each for one goroutine.
type crossStream struct {
	dev    *drm.Device
	events *os.File // the node, for the runtime's poller

	query, channel       *drm.Handle
	queryMem, channelMem []byte

	rest []byte // received and not read yet
	buf  []byte
	cmd  []byte
	sent bool // a SEND's fence is to be waited for
	eof  bool

	mu     sync.Mutex // guards the rings against Close
	closed bool
}

func (x *crossDomain) Dial(context.Context) (Stream, error) {
	s := &crossStream{}
	if err := s.open(x.node); err != nil {
		_ = s.Close()
		return nil, &OpError{"connect", x.Name(), err}
	}
	return s, nil
}

func (s *crossStream) open(node string) (err error) {
	if s.dev, err = drm.Open(node); err != nil {
		return err
	}
	if err := s.dev.InitContext(drm.Context{Capset: drm.CapsetCrossDomain, Rings: 2, PollRings: 1 << ringChannel}); err != nil {
		return err
	}
	if s.query, s.queryMem, err = s.ring(queryBytes); err != nil {
		return err
	}
	if s.channel, s.channelMem, err = s.ring(channelBytes); err != nil {
		return err
	}
	raw, err := unix.FcntlInt(uintptr(s.dev.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("dup: %w", err)
	}
	fd := dmabuf.NewFD(raw, "events of "+node)
	// The description is shared with the node, whose requests do not care.
	if err := unix.SetNonblock(raw, true); err != nil {
		_ = fd.Close()
		return fmt.Errorf("make non-blocking: %w", err)
	}
	s.events = os.NewFile(uintptr(fd.Disown()), "events of "+node)
	init := header(nil, cmdInit, sizeInit)
	init = binary.LittleEndian.AppendUint32(init, s.query.Resource())
	init = binary.LittleEndian.AppendUint32(init, s.channel.Resource())
	init = binary.LittleEndian.AppendUint32(init, channelStream)
	if err := s.dev.Exec(init, -1); err != nil {
		return err
	}
	return s.poll()
}

func (s *crossStream) ring(size uint64) (*drm.Handle, []byte, error) {
	h, err := s.dev.CreateBlob(drm.BlobGuest, drm.BlobMappable, size, 0)
	if err != nil {
		return nil, nil, err
	}
	mem, err := h.Map()
	if err != nil {
		h.Close()
	}
	return h, mem, err
}

func header(dst []byte, cmd byte, size int) []byte {
	dst = append(dst, cmd, 0)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(size))
	return append(dst, 0, 0, 0, 0)
}

// poll lets the host write one message into the channel's ring; its fence, an event to
// read, says that it has.
func (s *crossStream) poll() error {
	var cmd [sizePoll]byte
	header(cmd[:0], cmdPoll, sizePoll)
	return s.dev.Exec(cmd[:], ringChannel)
}

// GPU implements Stream.
func (s *crossStream) GPU() *drm.Device { return s.dev }

// Read implements io.Reader.
func (s *crossStream) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.eof {
			return 0, io.EOF
		}
		if err := s.receive(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// receive waits for a message and copies it out, so that the host may write the next.
func (s *crossStream) receive() error {
	var events [4 * eventSize]byte
	n, err := s.events.Read(events[:])
	if err != nil {
		return err
	}
	fences := 0
	for b := events[:n]; len(b) >= eventSize; b = b[eventSize:] {
		if binary.LittleEndian.Uint32(b) == eventFence {
			fences++
		}
	}
	if fences == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return os.ErrClosed
	}
	ring := s.channelMem
	cmd, size := ring[0], binary.LittleEndian.Uint32(ring[12:])
	if cmd != cmdReceive || size > uint32(len(ring)-sizeMessage) {
		return fmt.Errorf("message %d of %d bytes from the host, want message %d of at most %d", cmd, size, cmdReceive, len(ring)-sizeMessage)
	}
	if size == 0 {
		s.eof = true
		return nil
	}
	s.buf = append(s.buf[:0], ring[sizeMessage:sizeMessage+int(size)]...)
	s.rest = s.buf
	return s.poll()
}

// Write implements io.Writer. It waits while the host does not read: the fence of each
// SEND comes when there is room again.
func (s *crossStream) Write(p []byte) (int, error) {
	done := 0
	for len(p) > 0 {
		if err := s.room(); err != nil {
			return done, err
		}
		n := min(len(p), maxSend)
		s.cmd = header(s.cmd[:0], cmdSend, sizeMessage+n)
		s.cmd = binary.LittleEndian.AppendUint32(s.cmd, 0)
		s.cmd = binary.LittleEndian.AppendUint32(s.cmd, uint32(n))
		s.cmd = append(s.cmd, make([]byte, sizeMessage-len(s.cmd))...)
		s.cmd = append(s.cmd, p[:n]...)
		if err := s.dev.Exec(s.cmd, ringQuery, s.query); err != nil {
			return done, err
		}
		s.sent = true
		done, p = done+n, p[n:]
	}
	return done, nil
}

// room waits for the fence of the SEND before.
func (s *crossStream) room() error {
	for s.sent {
		s.mu.Lock()
		closed := s.closed
		s.mu.Unlock()
		if closed {
			return os.ErrClosed
		}
		err := s.query.Wait()
		if errors.Is(err, unix.EBUSY) { // the driver waits for 15 seconds at most
			continue
		}
		if err != nil {
			return err
		}
		s.sent = false
	}
	return nil
}

// Close implements io.Closer: it ends the context.
func (s *crossStream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if s.events != nil {
		_ = s.events.Close()
	}
	for _, h := range []*drm.Handle{s.query, s.channel} {
		h.Close()
	}
	for _, mem := range [][]byte{s.queryMem, s.channelMem} {
		_ = dmabuf.Unmap(mem)
	}
	s.queryMem, s.channelMem = nil, nil
	if s.dev != nil {
		return s.dev.Close()
	}
	return nil
}
