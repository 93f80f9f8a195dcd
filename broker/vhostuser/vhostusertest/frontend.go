package vhostusertest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Timeout is how long the front-end waits for a reply. QEMU waits for ever; an
// emulated machine takes its time to start a renderer.
const Timeout = time.Minute

// Layout says where in guest memory a ring lies (guest-physical addresses).
type Layout struct {
	Size  int
	Desc  uint64
	Avail uint64
	Used  uint64
}

// Step is one message about a ring during a start.
type Step uint8

// The steps of a ring's start.
const (
	StepNum Step = iota
	StepBase
	StepAddr
	StepKick
	StepCall
)

// DefaultOrder is the order in which QEMU sends them; StepCall only if the profile
// has CallInRing.
var DefaultOrder = []Step{StepNum, StepBase, StepAddr, StepKick, StepCall}

// Config says how to make a front-end.
type Config struct {
	Profile Profile
	RAM     *RAM   // borrowed
	Rings   int    // 2 if 0
	Order   []Step // DefaultOrder if nil
	// BeforeCommit, if set, is called between the reply to a SHMEM_MAP or
	// SHMEM_UNMAP and the change of the guest's memory.
	BeforeCommit func()
}

// Frontend is a front-end with one device, like a QEMU process. Its methods hold
// one lock, as QEMU holds its big lock, and so does the goroutine that serves the
// back-end's requests.
type Frontend struct {
	cfg  Config
	conn *vhostuser.Conn
	raw  *dmabuf.FD // the same socket, for bytes that Conn would not send

	mu       sync.Mutex // the big lock; guards all below
	offered  uint64
	proto    vhostuser.ProtocolFeature
	slots    uint64
	shmem    vhostuser.ShmemConfig
	rings    []feRing
	sent     []vhostuser.MemRegion // memory slots that the back-end has
	stale    []vhostuser.MemRegion // of sent: gone at a reset
	started  bool
	driver   uint64 // features of the last start
	layout   []Layout
	display  *dmabuf.FD
	problems []string
	changes  int
	unknown  int // requests
	maps     []Mapping

	backend *vhostuser.Conn // our end of the back-end channel
	serving sync.WaitGroup

	quitting atomic.Bool
}

type feRing struct {
	kick   *dmabuf.FD // lives from start to stop
	call   *dmabuf.FD // the guest's notifier, lives as long as the front-end
	masked *dmabuf.FD
	errfd  *dmabuf.FD
	base   uint16
}

// Pair makes a connected pair of sockets.
func Pair() (a, b *dmabuf.FD, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return dmabuf.NewFD(fds[0], "socket a"), dmabuf.NewFD(fds[1], "socket b"), nil
}

// Dial connects to a back-end's listening socket. The result goes to New.
func Dial(path string) (*dmabuf.FD, error) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	f, err := c.File()
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	raw, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return dmabuf.NewFD(raw, "front-end socket"), nil
}

// New makes a front-end on a connected socket, which it owns from now on.
func New(sock *dmabuf.FD, cfg Config) (*Frontend, error) {
	if cfg.Rings == 0 {
		cfg.Rings = 2
	}
	if cfg.Order == nil {
		cfg.Order = DefaultOrder[:len(DefaultOrder)-1]
		if cfg.Profile.CallInRing {
			cfg.Order = DefaultOrder
		}
	}
	raw, err := sock.Dup()
	if err != nil {
		_ = sock.Close()
		return nil, err
	}
	conn, err := vhostuser.FromFD(sock)
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	f := &Frontend{cfg: cfg, conn: conn, raw: raw, rings: make([]feRing, cfg.Rings)}
	for i := range f.rings {
		r := &f.rings[i]
		for _, fd := range []**dmabuf.FD{&r.call, &r.masked, &r.errfd} {
			if *fd, err = newEvent(); err != nil {
				f.Quit()
				return nil, err
			}
		}
	}
	return f, nil
}

// newEvent makes an eventfd as QEMU does: non-blocking.
func newEvent() (*dmabuf.FD, error) {
	raw, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	return dmabuf.NewFD(raw, "front-end eventfd"), nil
}

func (f *Frontend) problem(format string, args ...any) {
	f.problems = append(f.problems, fmt.Sprintf(format, args...))
}

// Problems lists what the back-end did that QEMU would not survive or accept.
func (f *Frontend) Problems() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.problems...)
}

// errNoReply says that no reply came in time.
var errNoReply = errors.New("no reply")

// roundTrip sends a request and waits for what answers it. The payload is a copy.
func (f *Frontend) roundTrip(req vhostuser.Request, flags uint32, payload []byte, fds ...*dmabuf.FD) ([]byte, error) {
	if err := f.conn.Send(uint32(req), flags, payload, fds...); err != nil {
		return nil, fmt.Errorf("send %v: %w", req, err)
	}
	timer := time.AfterFunc(Timeout, f.conn.Interrupt)
	m, err := f.conn.Read()
	timer.Stop()
	if err != nil {
		return nil, fmt.Errorf("%w to %v: %w", errNoReply, req, err)
	}
	m.CloseFDs()
	if m.Request != uint32(req) {
		return nil, fmt.Errorf("got request %d as a reply to %v", m.Request, req)
	}
	if m.Flags != 0x5 { // QEMU compares the whole word
		return nil, fmt.Errorf("reply to %v has flags %#x, QEMU wants 0x5", req, m.Flags)
	}
	return append([]byte(nil), m.Payload...), nil
}

func (f *Frontend) getU64(req vhostuser.Request) (uint64, error) {
	p, err := f.roundTrip(req, 0, nil)
	if err != nil {
		return 0, err
	}
	return vhostuser.DecodeU64(p)
}

// set sends a request; with wait (and REPLY_ACK) it asks for a status.
func (f *Frontend) set(wait bool, req vhostuser.Request, payload []byte, fds ...*dmabuf.FD) error {
	if !wait || f.proto&vhostuser.ProtoReplyAck == 0 {
		return f.conn.Send(uint32(req), 0, payload, fds...)
	}
	p, err := f.roundTrip(req, vhostuser.FlagNeedReply, payload, fds...)
	if err != nil {
		return err
	}
	status, err := vhostuser.DecodeU64(p)
	if err != nil {
		return err
	}
	if status != 0 {
		return &StatusError{Request: req, Status: status}
	}
	return nil
}

// StatusError is a request that the back-end acknowledged with a failure.
type StatusError struct {
	Request vhostuser.Request
	Status  uint64
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("back-end failed %v with status %d", e.Request, e.Status)
}

// Init sends what QEMU sends when it starts.
func (f *Frontend) Init() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var err error
	if f.offered, err = f.getU64(vhostuser.ReqGetFeatures); err != nil {
		return err
	}
	if f.offered&vhostuser.FProtocolFeatures != 0 && f.cfg.Profile.Proto != 0 {
		if err := f.negotiate(); err != nil {
			return err
		}
	}
	if err := f.set(false, vhostuser.ReqSetOwner, nil); err != nil {
		return err
	}
	if f.offered, err = f.getU64(vhostuser.ReqGetFeatures); err != nil {
		return err
	}
	for i := range f.rings {
		// Until the guest drives the device, interrupts go to the masked notifier.
		if err := f.vringFD(vhostuser.ReqSetVringCall, i, f.rings[i].masked); err != nil {
			return err
		}
		if err := f.vringFD(vhostuser.ReqSetVringErr, i, f.rings[i].errfd); err != nil {
			return err
		}
	}
	if f.cfg.Profile.ResetDevice {
		if err := f.resetDevice(); err != nil {
			return err
		}
	}
	if f.proto&vhostuser.ProtoShmem == 0 || f.cfg.Profile.DisplaySocket {
		return nil
	}
	p, err := f.roundTrip(vhostuser.ReqGetShmemConfig, 0, nil)
	if err != nil {
		return err
	}
	f.shmem, err = vhostuser.DecodeShmemConfig(p)
	return err
}

func (f *Frontend) negotiate() error {
	p, err := f.getU64(vhostuser.ReqGetProtocolFeatures)
	if err != nil {
		return err
	}
	f.proto = vhostuser.ProtocolFeature(p) & f.cfg.Profile.Proto
	if f.proto&vhostuser.ProtoConfig == 0 {
		return errors.New("device expecting VHOST_USER_PROTOCOL_F_CONFIG")
	}
	if f.proto&vhostuser.ProtoGPAAddresses != 0 {
		f.problem("back-end offers GPA_ADDRESSES")
	}
	if err := f.set(false, vhostuser.ReqSetProtocolFeatures, vhostuser.AppendU64(nil, uint64(f.proto))); err != nil {
		return err
	}
	if f.proto&vhostuser.ProtoMQ != 0 {
		if _, err := f.getU64(vhostuser.ReqGetQueueNum); err != nil {
			return err
		}
	}
	f.slots = 8
	if f.proto&vhostuser.ProtoConfigureMemSlots != 0 {
		if f.slots, err = f.getU64(vhostuser.ReqGetMaxMemSlots); err != nil {
			return err
		}
		f.slots = min(f.slots, 512)
	}
	if f.proto&vhostuser.ProtoBackendReq != 0 {
		return f.openChannel()
	}
	return nil
}

// Offered returns the virtio features that the back-end offered.
func (f *Frontend) Offered() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.offered
}

// Proto returns the negotiated protocol features.
func (f *Frontend) Proto() vhostuser.ProtocolFeature {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.proto
}

// Shmem returns the back-end's shared memory regions.
func (f *Frontend) Shmem() vhostuser.ShmemConfig {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.shmem
}

func (f *Frontend) vringFD(req vhostuser.Request, ring int, fd *dmabuf.FD) error {
	v := vhostuser.VringFD{Index: uint8(ring), NoFD: fd == nil}
	wait := f.cfg.Profile.VringFDWaits
	if fd == nil {
		return f.set(wait, req, v.Append(nil))
	}
	return f.set(wait, req, v.Append(nil), fd)
}

// GetConfig reads the config space, as each access of the guest does.
func (f *Frontend) GetConfig(off, size uint32) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, err := f.roundTrip(vhostuser.ReqGetConfig, 0, vhostuser.ConfigSpace{Offset: off, Data: make([]byte, size)}.Append(nil))
	if err != nil {
		return nil, err
	}
	c, err := vhostuser.DecodeConfig(p)
	if err != nil {
		return nil, err
	}
	if len(c.Data) != int(size) {
		return nil, fmt.Errorf("config read of %d bytes at %d answered with %d bytes", size, off, len(c.Data))
	}
	return c.Data, nil
}

// SetConfig writes the config space.
func (f *Frontend) SetConfig(off uint32, p []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.set(true, vhostuser.ReqSetConfig, vhostuser.ConfigSpace{Offset: off, Data: p}.Append(nil))
}

// Request sends any request and waits for its status if the back-end knows
// REPLY_ACK; otherwise for the reply to a GET_FEATURES behind it.
func (f *Frontend) Request(req vhostuser.Request, payload []byte, fds ...*dmabuf.FD) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.set(true, req, payload, fds...); err != nil || f.proto&vhostuser.ProtoReplyAck != 0 {
		return err
	}
	_, err := f.getU64(vhostuser.ReqGetFeatures)
	return err
}

// SendRaw writes bytes, and descriptors with the first of them, past all rules.
func (f *Frontend) SendRaw(p []byte, fds ...*dmabuf.FD) error {
	var oob []byte
	if len(fds) > 0 {
		raws := make([]int, len(fds))
		for i, fd := range fds {
			raws[i] = fd.Int()
		}
		oob = unix.UnixRights(raws...)
	}
	return unix.Sendmsg(f.raw.Int(), p, oob, nil, unix.MSG_NOSIGNAL)
}

// Sync waits until the back-end has handled everything sent before.
func (f *Frontend) Sync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := f.getU64(vhostuser.ReqGetFeatures)
	return err
}

// Quit closes everything, as a QEMU does that exits or is killed. It is safe to
// call twice.
func (f *Frontend) Quit() {
	f.quitting.Store(true)
	_ = f.conn.Close()
	_ = f.raw.Close()
	if f.backend != nil {
		_ = f.backend.Close()
	}
	f.serving.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.started = false
	_ = f.display.Close()
	for i := range f.rings {
		r := &f.rings[i]
		for _, fd := range []*dmabuf.FD{r.kick, r.call, r.masked, r.errfd} {
			if fd.Valid() {
				f.checkFlags(fd)
			}
			_ = fd.Close()
		}
	}
	for i := range f.maps {
		_ = f.maps[i].fd.Close()
	}
	f.maps = nil
}

// checkFlags looks for the change that once made QEMU hang: its eventfds share
// their status flags with the back-end's copies.
func (f *Frontend) checkFlags(fd *dmabuf.FD) {
	flags, err := unix.FcntlInt(uintptr(fd.Int()), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NONBLOCK == 0 {
		f.problem("back-end changed the status flags of an eventfd: %#x, %v", flags, err)
	}
}
