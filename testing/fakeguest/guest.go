package fakeguest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// The queues of a virtio-gpu device (virtio 1.2, 5.7.2).
const (
	ControlQueue = 0
	CursorQueue  = 1
)

// Config says what machine to pretend to be. The zero value but for Profile is
// good.
type Config struct {
	Profile vhostusertest.Profile

	RAMSize uint64 // bytes, a multiple of PageSize; 64 MiB if 0
	Split   uint64 // bytes below 4 GiB, see vhostusertest.RAMConfig
	NoSeal  bool
	Seed    uint64 // for the order of pages

	QueueSizes [2]int // the profile's if 0
	// Features are the driver's bits, acknowledged as far as they are offered;
	// all that are offered if 0.
	Features   uint64
	NoIndirect bool // do not use indirect descriptors
	NoEventIdx bool // do not use event indices
}

// Guest is a running guest.
type Guest struct {
	FE    *vhostusertest.Frontend
	RAM   *vhostusertest.RAM
	Pages *Pages

	Ctrl   *Queue
	Cursor *Queue
	queues []*Queue
	cfg    Config
}

// Dial connects to a back-end's listening socket and starts QEMU, but not the
// guest's driver: see Boot.
func Dial(path string, cfg Config) (*Guest, error) {
	sock, err := vhostusertest.Dial(path)
	if err != nil {
		return nil, err
	}
	return New(sock, cfg)
}

// New is Dial on a connected socket, which the guest owns from now on.
func New(sock *dmabuf.FD, cfg Config) (*Guest, error) {
	if cfg.RAMSize == 0 {
		cfg.RAMSize = 64 << 20
	}
	for i := range cfg.QueueSizes {
		if cfg.QueueSizes[i] == 0 {
			cfg.QueueSizes[i] = cfg.Profile.QueueSizes[i]
		}
	}
	ram, err := vhostusertest.NewRAM(vhostusertest.RAMConfig{Size: cfg.RAMSize, Split: cfg.Split, NoSeal: cfg.NoSeal})
	if err != nil {
		_ = sock.Close()
		return nil, err
	}
	fe, err := vhostusertest.New(sock, vhostusertest.Config{Profile: cfg.Profile, RAM: ram})
	if err != nil {
		ram.Close()
		return nil, err
	}
	g := &Guest{FE: fe, RAM: ram, cfg: cfg}
	if err := fe.Init(); err != nil {
		g.Quit()
		return nil, err
	}
	g.layOut()
	return g, nil
}

// layOut places the rings in the first pages, each part on a page of its own.
func (g *Guest) layOut() {
	page := 1 // page 0 stays empty, so that address 0 is never good
	for i, size := range g.cfg.QueueSizes {
		q := newQueue(g, i, size, page)
		page += q.ringPages
		g.queues = append(g.queues, q)
	}
	g.Ctrl, g.Cursor = g.queues[ControlQueue], g.queues[CursorQueue]
	g.Pages = newPages(g.RAM, page, g.cfg.Seed+1)
}

// Boot loads the driver: empty rings, DRIVER_OK.
func (g *Guest) Boot() error {
	driver := g.FE.Offered()
	if g.cfg.Features != 0 {
		driver &= g.cfg.Features
	}
	if g.cfg.NoIndirect {
		driver &^= vhostuser.FIndirectDesc
	}
	if g.cfg.NoEventIdx {
		driver &^= vhostuser.FEventIdx
	}
	layout := make([]vhostusertest.Layout, len(g.queues))
	for i, q := range g.queues {
		q.clear()
		layout[i] = q.layout
	}
	// QEMU may acknowledge more than the driver uses; the rings' formats depend
	// on what is acknowledged, so the driver follows.
	acked := driver | g.cfg.Profile.ForcedBits
	for _, q := range g.queues {
		q.eventIdx = acked&vhostuser.FEventIdx != 0
		q.indirect = acked&vhostuser.FIndirectDesc != 0 && !g.cfg.NoIndirect
	}
	return g.FE.Start(driver, layout)
}

// Reset stops the device as a driver does that is unloaded, or a guest that
// reboots. Commands in flight are forgotten. Boot starts again.
func (g *Guest) Reset() error {
	err := g.FE.Reset()
	for _, q := range g.queues {
		q.forget()
	}
	return err
}

// Stop is vm stop: nothing is lost.
func (g *Guest) Stop() error { return g.FE.Stop() }

// Cont is the end of Stop.
func (g *Guest) Cont() error {
	if err := g.FE.Cont(); err != nil {
		return err
	}
	for _, q := range g.queues {
		if err := q.ring(); err != nil { // a kick may have been lost while stopped
			return err
		}
	}
	return nil
}

// Quit ends QEMU without a word, as a kill does. It is safe to call twice.
func (g *Guest) Quit() {
	g.FE.Quit()
	g.RAM.Close()
}

// Shutdown ends QEMU in good order.
func (g *Guest) Shutdown() error {
	err := g.FE.Stop()
	g.Quit()
	return err
}

// Do sends a command on the control queue, waits for the response and copies it
// to resp. It returns the response's length as the device gave it, at most
// len(resp).
func (g *Guest) Do(cmd, resp []byte) (int, error) { return g.Ctrl.Do(cmd, resp) }

// Timeout is how long Do waits: in an emulated machine on a busy one llvmpipe was seen
// to take 40 seconds for the first picture of 1920x1080.
const Timeout = 2 * time.Minute

// ErrTimeout says that the device did not answer in time.
var ErrTimeout = errors.New("no answer from the device")

// Serve runs a back-end for one connection inside this process and returns a
// guest connected to it. stop ends both and returns the back-end's error.
func Serve(b *vhostuser.Backend, cfg Config) (g *Guest, stop func() error, err error) {
	fe, be, err := vhostusertest.Pair()
	if err != nil {
		return nil, nil, err
	}
	conn, err := vhostuser.FromFD(be)
	if err != nil {
		_ = fe.Close()
		return nil, nil, err
	}
	served := make(chan error, 1)
	go func() { served <- b.Serve(context.Background(), conn) }()
	if g, err = New(fe, cfg); err != nil {
		return nil, nil, errors.Join(err, <-served)
	}
	return g, func() error {
		g.Quit()
		if err := <-served; err != nil {
			return fmt.Errorf("back-end: %w", err)
		}
		return nil
	}, nil
}
