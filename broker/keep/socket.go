package keep

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// Op says what a message is.
type Op byte

// Messages of the worker.
const (
	OpPut   Op = iota + 1 // keep an entry: Key, Value, one descriptor or none
	OpDrop                // forget it: Key
	OpClear               // forget all whose keys begin with Key
	OpReady               // the worker serves
	OpEnded               // it let go of the front-end of role Key; Value is why, empty if the front-end did
)

// Messages of the supervisor.
const (
	OpHello Op = iota + 64 // the first: Value is a Hello as JSON; descriptors: the page, then each role's ledgers
	OpEntry                // one of Hello.Entries: as it was put
	OpConn                 // a front-end for role Key; Value is how many of its messages are told again
)

// Message is one message. Its descriptors belong to who has it.
type Message struct {
	Op    Op
	Key   string
	Value []byte
	FDs   []*dmabuf.FD
}

// CloseFDs closes the descriptors.
func (m *Message) CloseFDs() {
	for _, fd := range m.FDs {
		_ = fd.Close()
	}
	m.FDs = nil
}

// Limits of a message.
const (
	maxKey    = 255
	maxPacket = 64 << 10 // bytes; larger values go in a file
	maxFDs    = 16
)

// MaxValue is the longest value of an entry: a command with its entries.
const MaxValue = 8 << 20

const headSize = 8 // op, key's length, flags, 0, value's length

const flagFile = 1 // the value is in a file, the last descriptor

// Socket carries messages between the two. One goroutine may send and one receive at
// a time.
type Socket struct {
	file *os.File
	raw  syscall.RawConn
	out  []byte
	in   []byte
	oob  []byte
}

// NewSocket uses one end of Pair. It takes fd over. Whoever waits does so in the runtime's
// poller: a thread that waits inside a system call keeps its processor, and then the
// runtime's monitor does not sleep for the next 10 ms, message after message.
func NewSocket(fd *dmabuf.FD) *Socket {
	_ = unix.SetNonblock(fd.Int(), true) // else it waits as it is
	file := os.NewFile(uintptr(fd.Disown()), fd.Name())
	raw, _ := file.SyscallConn() // fails without a file
	return &Socket{file: file, raw: raw, in: make([]byte, headSize+maxKey+maxPacket), oob: make([]byte, unix.CmsgSpace(4*maxFDs))}
}

// Pair makes the two ends of a socket.
func Pair() (ours, theirs *dmabuf.FD, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, &OpError{Op: "make socket", Err: err}
	}
	return dmabuf.NewFD(fds[0], "worker socket"), dmabuf.NewFD(fds[1], "supervisor socket"), nil
}

// Shutdown makes a blocked Receive, here and at the other end, return io.EOF.
func (s *Socket) Shutdown() {
	_ = s.raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) }) // fails when it is closed
}

// Close closes the socket; a blocked Send or Receive returns with an error.
func (s *Socket) Close() error { return s.file.Close() }

// Send sends a message; its descriptors are borrowed. It waits while the other end has
// much to read.
func (s *Socket) Send(m *Message) error {
	if len(m.Key) > maxKey || len(m.Value) > MaxValue || len(m.FDs) >= maxFDs {
		return &OpError{Op: "send", Err: fmt.Errorf("%w: key of %d bytes, value of %d, %d descriptors", ErrMessage, len(m.Key), len(m.Value), len(m.FDs))}
	}
	raws := make([]int, 0, len(m.FDs)+1)
	for _, fd := range m.FDs {
		raws = append(raws, fd.Int())
	}
	value, flags := m.Value, byte(0)
	if len(value) > maxPacket {
		file, err := fileOf(value)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
		raws, flags, value = append(raws, file.Int()), flagFile, nil
	}
	s.out = append(s.out[:0], byte(m.Op), byte(len(m.Key)), flags, 0)
	s.out = binary.LittleEndian.AppendUint32(s.out, uint32(len(m.Value)))
	s.out = append(append(s.out, m.Key...), value...)
	var oob []byte
	if len(raws) > 0 {
		oob = unix.UnixRights(raws...)
	}
	for {
		var err error
		if closed := s.raw.Write(func(fd uintptr) bool {
			for err = unix.EINTR; errors.Is(err, unix.EINTR); {
				_, err = unix.SendmsgN(int(fd), s.out, oob, nil, unix.MSG_NOSIGNAL)
			}
			return !errors.Is(err, unix.EAGAIN)
		}); closed != nil {
			err = closed
		}
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.ETOOMANYREFS): // many descriptors are under way
			time.Sleep(time.Millisecond)
		default:
			return &OpError{Op: "send", Err: err}
		}
	}
}

// fileOf puts a long value into a file.
func fileOf(value []byte) (*dmabuf.FD, error) {
	fd, err := dmabuf.NewMemfd("kept value", int64(len(value)))
	if err != nil {
		return nil, err
	}
	if n, err := unix.Pwrite(fd.Int(), value, 0); err != nil || n != len(value) {
		_ = fd.Close()
		return nil, &OpError{Op: "send", Err: fmt.Errorf("write %d bytes to a memfd: %d, %w", len(value), n, err)}
	}
	return fd, nil
}

// Receive waits for a message. The caller owns its descriptors. io.EOF: the other end
// is gone.
func (s *Socket) Receive() (*Message, error) {
	var n, oobn, flags int
	var err error
	if closed := s.raw.Read(func(fd uintptr) bool {
		for err = unix.EINTR; errors.Is(err, unix.EINTR); {
			n, oobn, flags, _, err = unix.Recvmsg(int(fd), s.in, s.oob, unix.MSG_CMSG_CLOEXEC)
		}
		return !errors.Is(err, unix.EAGAIN)
	}); closed != nil {
		err = closed
	}
	if errors.Is(err, unix.ECONNRESET) || err == nil && n == 0 {
		return nil, io.EOF
	}
	if err != nil {
		return nil, &OpError{Op: "receive", Err: err}
	}
	m := &Message{}
	if err := m.takeFDs(s.oob[:oobn]); err != nil {
		return nil, err
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		m.CloseFDs()
		return nil, &OpError{Op: "receive", Err: fmt.Errorf("%w: cut off, flags %#x", ErrMessage, flags)}
	}
	if err := m.decode(s.in[:n]); err != nil {
		m.CloseFDs()
		return nil, &OpError{Op: "receive", Err: err}
	}
	return m, nil
}

func (m *Message) takeFDs(oob []byte) error {
	cmsgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return &OpError{Op: "receive", Err: err}
	}
	for i := range cmsgs {
		raws, err := unix.ParseUnixRights(&cmsgs[i])
		if err != nil {
			continue
		}
		for _, raw := range raws {
			m.FDs = append(m.FDs, dmabuf.NewFD(raw, "kept"))
		}
	}
	return nil
}

func (m *Message) decode(p []byte) error {
	if len(p) < headSize {
		return fmt.Errorf("%w: %d bytes", ErrMessage, len(p))
	}
	key, flags, size := int(p[1]), p[2], binary.LittleEndian.Uint32(p[4:])
	m.Op = Op(p[0])
	p = p[headSize:]
	if key > len(p) || size > MaxValue {
		return fmt.Errorf("%w: key of %d bytes in %d, value of %d", ErrMessage, key, len(p), size)
	}
	m.Key, p = string(p[:key]), p[key:]
	m.Value = make([]byte, size)
	if flags&flagFile == 0 {
		if len(p) != int(size) {
			return fmt.Errorf("%w: value of %d bytes, said to be %d", ErrMessage, len(p), size)
		}
		copy(m.Value, p)
		return nil
	}
	if len(m.FDs) == 0 {
		return fmt.Errorf("%w: a value in a file, and no file", ErrMessage)
	}
	file := m.FDs[len(m.FDs)-1]
	m.FDs = m.FDs[:len(m.FDs)-1]
	defer func() { _ = file.Close() }()
	if seals, err := dmabuf.Seals(file); err != nil || size == 0 {
		return fmt.Errorf("%w: the value's file is no memfd: %#x, %w", ErrMessage, seals, err)
	}
	for at := 0; at < len(m.Value); {
		n, err := unix.Pread(file.Int(), m.Value[at:], int64(at))
		if err != nil || n == 0 {
			return fmt.Errorf("%w: read %d of %d bytes of the value's file: %w", ErrMessage, at, size, errors.Join(err))
		}
		at += n
	}
	return nil
}
